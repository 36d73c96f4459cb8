"""Plans in words, and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

from rich.console import Console

from streams.cli.plan import Entry
from streams.cli.plan_text import entry_json, entry_lines, facts_of, in_short, preview_json
from tests.unit.control.test_preview import FIRST, LONGER, OTHER, decided, facts, seen

ROUTE = decided("1.0.0", "1.0.0")


def entry(**given: object) -> Entry:
    fields = {"kind": "feature_set", "name": "a", "version": "1.1.0", "change": "published"}
    return replace(Entry(kind="feature_set", name="a", change="published"), **{**fields, **given})  # type: ignore[arg-type]  # given by name


def shown(one: Entry) -> str:
    console = Console(width=120, file=StringIO())
    with console.capture() as captured:
        for line in entry_lines(one):
            console.print(line)
    return captured.get()


def test_a_plan_says_what_each_feature_takes_and_from_where() -> None:
    text = shown(entry(preview=seen(FIRST, OTHER, route=ROUTE)))
    assert "feature set a@1.1.0: new" in text
    assert "total    replay  no live version stores its sum" in text
    assert "70 records: clicks/0 0 to 70" in text
    assert "once 70 records are read again" in text
    assert "1.0.0, 1.1.0; stops being live: none" in text


def test_what_shares_all_is_said_to_be_ready_at_once() -> None:
    facts = dict(facts_of(entry(), seen(FIRST, replace(FIRST, version="1.1.0"), route=ROUTE)))
    assert (facts["state"], facts["replay"]) == ("nothing is added", "none")
    assert facts["ready"] == "at once"


def test_when_windows_are_whole_is_said_in_event_time() -> None:
    found = seen(FIRST, LONGER, route=ROUTE)
    assert dict(facts_of(entry(), found))["ready"] == (
        "once 1970-01-01 00:00:00 is closed: its windows are whole from then on"
    )
    assert "panes are kept for 100ms instead of 20ms" in dict(facts_of(entry(), found))["state"]
    assert preview_json(found)["ready"]["after_closed_ms"] == 270


def test_a_log_that_begins_too_late_is_named_with_both_offsets() -> None:
    trimmed = facts(1, log_start=30, begin=30, begin_floor_ms=195, needs_offset=20)
    found = seen(FIRST, OTHER, route=ROUTE, at=(facts(needs_offset=10), trimmed))
    replay = dict(facts_of(entry(), found))["replay"]
    assert replay.endswith(
        "clicks/1 is needed from offset 20 and begins at 30, so its windows have to fill"
    )
    partitions = preview_json(found)["replay"]["partitions"]
    assert [(one["needs_offset"], one["log_start"]) for one in partitions] == [(10, 0), (20, 30)]


def test_many_partitions_are_not_all_listed() -> None:
    many = tuple(facts(number) for number in range(20))
    replay = dict(facts_of(entry(), seen(FIRST, OTHER, route=ROUTE, at=many)))["replay"]
    assert replay.startswith("1,400 records: clicks/0 0 to 70")
    assert replay.endswith("and 12 partitions more")


def test_a_source_without_a_topic_has_no_offsets() -> None:
    found = seen(FIRST, at=())
    assert dict(facts_of(entry(), found))["replay"].startswith("unknown")


def test_in_short_it_is_one_line() -> None:
    found = seen(FIRST, LONGER, route=ROUTE)
    assert in_short(found).startswith("features: 1 from panes that are kept; ready once ")
    assert in_short(seen(FIRST)) == "features: 1 from a replay; ready once 70 records are read"


def test_what_is_refused_or_there_already_has_no_plan() -> None:
    refused = entry(change="refused", reasons=("because",))
    assert shown(refused).strip() == "feature set a@1.1.0: refused"
    assert shown(entry(change="unchanged", state="live")).strip().endswith("unchanged (live)")
    printed = entry_json(refused)
    assert (printed["plan"], printed["reasons"]) == (None, ["because"])


def test_as_json_all_of_it_can_be_read_back() -> None:
    printed = entry_json(entry(preview=seen(FIRST, OTHER, route=ROUTE)))
    plan = json.loads(json.dumps(printed))["plan"]
    (feature,) = plan["features"]
    assert (feature["takes"], feature["accumulators"][0]["stored_by"]) == ("replay", [])
    (partition,) = plan["replay"]["partitions"]
    assert (partition["from_offset"], partition["to_offset"]) == (0, 70)
