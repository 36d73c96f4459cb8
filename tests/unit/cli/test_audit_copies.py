"""A copy of the audit trail in a file, tampered with in every way, is found out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.cli import audit
from streams.cli.audit import as_line
from streams.control.records import Head
from streams.errors import UnreachableError
from tests.unit.cli.runs import run
from tests.unit.control.small import V1, V2, Run, activate

Change = Callable[[list[str]], list[str]]


@pytest.fixture
def trail() -> Run:
    made = Run(V1, V2)
    made.ready(V1)
    made.ready(V2)
    made.ask(activate(V2, requested_by="me"))
    made.fence()
    return made


@pytest.fixture
def copy(tmp_path: Path, trail: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the whole trail; the control topic can be asked."""
    heads = [record.stamp.audit for record in trail.control]
    monkeypatch.setattr(audit, "_read_heads", lambda _: heads)
    file = tmp_path / "trail.jsonl"
    file.write_text("".join(f"{as_line(record)}\n" for record in trail.audit))
    return file


def test_an_untouched_copy_is_whole(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "audit", "verify", "--file", str(copy), "--json")
    printed = json.loads(ran.stdout)
    assert (ran.exit_code, printed["whole"], printed["by_control_topic"]) == (0, True, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda lines: [
                one.replace('"requested_by":"me"', '"requested_by":"you"') for one in lines
            ],
            "is edited: its content does not have its hash",
        ),
        (lambda lines: [*lines[:2], *lines[3:]], "record 2 is missing: record 3 is there"),
        (
            lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
            "record 2 is reordered: it comes after record 3",
        ),
        (lambda lines: [*lines[:3], *lines[2:]], "record 2 is a duplicate"),
        (lambda lines: lines[:-1], "is missing: the control topic knows that there was more"),
        (lambda lines: [*lines[:2], "nonsense", *lines[3:]], ":3: is no audit record"),
        (lambda lines: lines[:0], "are missing: the control topic knows that there was more"),
    ],
    ids=["edited", "missing", "reordered", "duplicate", "cut off", "nonsense", "emptied"],
)
def test_what_was_done_to_a_copy_is_named(
    copy: Path, capsys: pytest.CaptureFixture[str], change: Change, said: str
) -> None:
    lines = copy.read_text().splitlines()
    changed = change(lines)
    assert changed != lines
    copy.write_text("".join(f"{line}\n" for line in changed))
    ran = run(capsys, "audit", "verify", "--file", str(copy))
    assert ran.exit_code == 1
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_copy_that_is_older_than_the_trail_is_whole_by_itself(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy.write_text("".join(copy.read_text().splitlines(keepends=True)[:-2]))
    asked = run(capsys, "audit", "verify", "--file", str(copy))
    assert asked.exit_code == 1
    assert "a copy that was made before the missing ones is whole with --alone" in asked.stderr
    alone = run(capsys, "audit", "verify", "--file", str(copy), "--alone")
    assert (alone.exit_code, "by themselves" in alone.stderr) == (0, True)


def test_without_the_control_topic_a_copy_is_checked_by_itself_and_that_is_said(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> list[Head]:
        raise UnreachableError("Kafka does not answer")

    monkeypatch.setattr(audit, "_read_heads", away)
    ran = run(capsys, "audit", "verify", "--file", str(copy))
    assert ran.exit_code == 0
    assert "an end that was cut off does not show: Kafka does not answer" in ran.stderr


def test_alone_is_for_files(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "audit", "verify", "--alone").failed(2, "--alone goes with --file")
    given = ("--file", "a", "--topic", "b")
    run(capsys, "audit", "verify", *given).failed(2, "--file and --topic: give one of them")
