"""What the commands of the control path read from their arguments, and say of answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from streams.cli.answers import progress, summary
from streams.cli.audit import as_line, as_text, from_line, read_file
from streams.cli.conversation import failure, follow, unfinished
from streams.cli.requests import parse_deadline, parse_exclude, parse_version
from streams.cli.versions import VersionRow, exclusion_rows, version_rows
from streams.control.acks import Acks
from streams.control.facts import Outside
from streams.control.records import Action, Code, Reason, Reply, ReplyState
from streams.control.requests import Unreadable
from streams.control.set_record import Pin
from streams.definitions.exclusions import Exclude, Exclusion, OffsetRange
from streams.definitions.model import Feature, FeatureSet, Function
from streams.definitions.store import PublishedSet
from streams.errors import (
    DeadlinePassedError,
    InvalidInputError,
    RefusedError,
    RewindowError,
)
from tests.unit.control.small import PARTITIONS, SET, V1, V2, V3, Run, activate, request

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("text", ["a", "a@", "@1.0.0", "@", ""])
def test_a_version_is_named_with_its_set(text: str) -> None:
    with pytest.raises(InvalidInputError, match="write SET@VERSION"):
        parse_version(text)
    assert parse_version("a@1.0.0") == ("a", "1.0.0")


def test_events_are_left_out_by_condition_and_by_range() -> None:
    assert parse_exclude([]) is None
    assert parse_exclude(["delay > 5"]) == Exclude(where="delay > 5")
    ranges = (OffsetRange(partition=0, start=5, end=9),)
    assert parse_exclude(["0:5-9"]) == Exclude(offsets=ranges)
    both = parse_exclude(["a = 1", "0:5-9", "b = 2"])
    assert both == Exclude(where="(a = 1) OR (b = 2)", offsets=ranges)
    with pytest.raises(InvalidInputError, match="empty"):
        parse_exclude(["0:9-9"])


def test_a_deadline_is_a_duration_from_now() -> None:
    assert parse_deadline("30s", 1_000) == 31_000
    with pytest.raises(InvalidInputError, match="--deadline: 'soon' is no duration"):
        parse_deadline("soon", 1_000)


# -- answers --------------------------------------------------------------------------------------


def replies(*versions: str, asked: str, **fields: object) -> list[Reply]:
    """All answers to the activation of a version that is live."""
    run = Run(*versions)
    for version in versions:
        run.ready(version)
    run.ask(activate(asked, **fields))
    if run.state.in_flight:
        run.fence()
    return run.replies


def test_a_hot_switch_in_words() -> None:
    accepted, switched, completed = replies(V1, V2, asked=V2)
    assert progress(accepted) == f"accepted: {V2} is live, switching from {V1}"
    assert progress(switched) == f"switched to {V2}, epoch 1"
    (line,) = summary(completed)
    assert line.startswith(f"{SET}: {V2} serves instead of {V1}, epoch 1, ")
    assert failure(completed) is None
    assert unfinished(request(), accepted).startswith(f"{V2} of {SET} is decided (epoch 1)")


def test_a_checkpoint_to_start_from_in_words() -> None:
    run = Run(V1, V2, new_checkpoint=lambda *_: "c2")
    run.ready(V1)
    run.ask(activate(V2, checkpoint="c1"))
    wanted = f"preparing {V2} from checkpoint c1: ready on 0 of 2 partitions when it began"
    assert progress(run.replies[-1]) == wanted
    run.ready(V2)
    run.fence()
    run.stored("r1", 0, 1)
    assert summary(run.replies[-1])[1] == "its state started from checkpoint c1"


def test_a_dry_run_in_words() -> None:
    accepted, completed = replies(V1, V2, asked=V2, dry_run=True)
    assert progress(accepted) == f"would be accepted: {V1} to {V2}"
    assert summary(completed) == [f"{SET}: {V2} would serve instead of {V1}, at once"]


def test_a_toggle_and_a_pin_in_words() -> None:
    run = Run(V1, V2)
    run.ready(V1)
    run.ready(V2)
    toggle = request(action=Action.TOGGLE, feature="n", enabled=False)
    run.ask(toggle)
    run.fence()
    accepted, switched, completed = run.replies
    assert progress(accepted) == f"accepted: n of {V1} will be switched off: null goes out"
    assert progress(switched) == "done on every partition, epoch 1"
    assert summary(completed) == [f"{SET}: n of {V1} is switched off: null goes out, epoch 1"]
    run.ask(replace(toggle, request_id="r2", enabled=True, dry_run=True))
    assert summary(run.replies[-1]) == [f"{SET}: n of {V1} would be switched on"]
    pin = request(request_id="r3", action=Action.PIN, target=V2, dry_run=True)
    run.ask(pin)
    accepted, completed = run.replies[-2:]
    assert progress(accepted).startswith(f"would be accepted: {V2} would be pinned")
    assert summary(completed) == [f"{SET}: {V2} would be pinned to a topic of its own"]


def test_a_refusal_says_all_its_reasons_and_a_deadline_is_one_of_its_own() -> None:
    (refused,) = replies(V1, asked="9.9.9", if_serving=V2)
    error = failure(refused)
    assert isinstance(error, RefusedError)
    assert len(str(error).splitlines()) == 2
    late = replace(refused, reasons=(Reason(code=Code.DEADLINE_PASSED, message="late"),))
    assert isinstance(failure(late), DeadlinePassedError)
    failed = replace(refused, state=ReplyState.FAILED)
    assert type(failure(failed)) is RewindowError


def test_only_the_last_answer_ends_it() -> None:
    answers = replies(V1, V2, asked=V2)
    shown: list[Reply] = []
    assert follow(iter(answers), shown.append) == answers[-1]
    assert shown == answers
    assert "no worker has answered" in unfinished(request(), None)
    preparing = replace(answers[0], epoch=None, state=ReplyState.PREPARING)
    assert "is preparing and has no end yet" in unfinished(request(), preparing)


# -- versions -------------------------------------------------------------------------------------


def published(*versions: str) -> list[PublishedSet]:
    feature = Feature(name="n", function=Function.COUNT, expression=None, window_ms=60_000)
    return [
        PublishedSet(
            feature_set=FeatureSet(
                name=SET,
                version=version,
                source="flights",
                entity=("origin",),
                every_ms=60_000,
                features=(feature,),
            ),
            digest=f"digest of {version}",
            key_schema_id=1,
            value_schema_id=2,
            order=order,
        )
        for order, version in enumerate(versions)
    ]


def rows(run: Run, *versions: str) -> dict[str, VersionRow]:
    acks = Acks(0)
    for offset, ack in enumerate(run.acks):
        acks.add(offset, ack)
    found = version_rows(published(*versions), run.control, acks, PARTITIONS)
    return {row.version: row for row in found}


def test_before_any_decision_the_first_version_serves() -> None:
    found = version_rows(published(V1, V2), [], Acks(0), PARTITIONS)
    assert [(row.state, row.epoch, row.since_ms) for row in found] == [
        ("serving", 0, None),
        ("published", None, None),
    ]


def test_each_version_shows_its_state_and_since_when() -> None:
    run = Run(V1, V2, V3)
    start_ms = run.now_ms
    run.ready(V1)
    run.ready(V2, 0)
    found = rows(run, V1, V2, V3)
    assert [found[one].state for one in (V1, V2, V3)] == ["serving", "live", "live"]
    assert [found[one].partitions_ready for one in (V1, V2, V3)] == [2, 1, 0]
    run.ready(V2, 1)
    run.tick(1_000)
    run.ask(activate(V2))
    run.fence()
    run.tick(1_000)
    run.ask(request(request_id="r2", action=Action.RETIRE, target=V3))
    found = rows(run, V1, V2, V3)
    assert [(found[one].state, found[one].epoch) for one in (V1, V2, V3)] == [
        ("live", 0),
        ("serving", 1),
        ("retired", None),
    ]
    since = {version: row.since_ms for version, row in found.items()}
    assert since == {V1: start_ms + 1_000, V2: start_ms + 1_000, V3: start_ms + 2_000}


def test_what_is_pinned_and_what_is_off_is_shown_and_is_no_switch() -> None:
    run = Run(V1, V2)
    run.ready(V1)
    run.ready(V2)
    run.ask(activate(V2))
    run.fence()
    toggle = request(request_id="r2", action=Action.TOGGLE, feature="n", enabled=False)
    run.ask(replace(toggle, fallback="previous"))
    run.fence()
    pin = request(request_id="r3", action=Action.PIN, target=V1)
    run.ask(pin, Outside(pin=Pin(version=V1, key_schema_id=7, value_schema_id=8)))
    run.fence()
    found = rows(run, V1, V2)
    assert [(row.pinned, row.switched_off) for row in found.values()] == [
        (True, {}),
        (False, {"n": V1}),
    ]
    assert (run.set.epoch, found[V2].epoch) == (3, 1)


# -- audit ----------------------------------------------------------------------------------------


def test_a_line_of_the_audit_is_read_back_as_it_was(tmp_path: Path) -> None:
    run = Run(V1, V2)
    run.ready(V1)
    run.ready(V2)
    run.ask(activate(V2, reason="Größe “½”", requested_by="me"))
    run.fence()
    run.ask(Unreadable(reasons=(Reason(code=Code.UNREADABLE, message="no"),)))
    lines = [as_line(record) for record in run.audit]
    head, rest = as_text(run.audit[-2]).splitlines()
    assert head.endswith(f"completed  {SET}@{V2}  me")
    assert rest.endswith("Größe “½”; epoch 1; from 0:200, 1:201")
    assert [from_line(line) for line in lines] == run.audit
    file = tmp_path / "audit.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert read_file(file) == run.audit


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"seq":0', '"seq":"0"'),
        ('"seq":0', '"extra":1,"seq":0'),
        ('"seq":0', '"seq": 0'),
        ('"seq":0', '"seq":0.0'),
        ('"event":"', '"event":"x'),
    ],
)
def test_a_line_that_is_written_otherwise_is_no_record(old: str, new: str) -> None:
    run = Run(V1)
    line = as_line(run.audit[0])
    assert old in line
    with pytest.raises(ValueError, match=r"audit show|valid"):
        from_line(line.replace(old, new, 1))


def test_a_file_names_its_bad_lines(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text("nonsense\n{}\n")
    with pytest.raises(RewindowError) as caught:
        read_file(file)
    lines = str(caught.value).splitlines()
    assert [line.partition(": is no audit record")[0] for line in lines] == [
        f"{file}:1",
        f"{file}:2",
    ]


def test_versions_shows_what_is_left_out_and_what_is_to_be() -> None:
    ranges = (OffsetRange(partition=0, start=5, end=9),)
    route = replace(
        Run(V1).set,
        exclusions=(Exclusion(number=2, where="a > 1"), Exclusion(number=4, offsets=ranges)),
        excluding=2,
    )
    first, second = exclusion_rows(route)
    assert (first["text"], first["in_force"]) == ("events where a > 1", True)
    assert (second["text"], second["in_force"]) == ("0:5-9", False)
    assert second["offsets"] == [{"partition": 0, "from": 5, "to": 9}]
    assert exclusion_rows(None) == []
