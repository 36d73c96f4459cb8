"""What `rewindow diff` says."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from rich.console import Console

from streams.cli.agreement import compare
from streams.cli.diff import Compared, parse_time
from streams.cli.diff_read import Found
from streams.cli.diff_text import as_json, lines
from streams.definitions.differ import differences
from streams.definitions.plan import plan_versions
from streams.definitions.reuse import reuse
from streams.errors import InvalidInputError
from tests.small import feature, feature_set, source
from tests.unit.cli.runs import run
from tests.unit.cli.test_agreement import A, B, vectors
from tests.unit.definitions.test_plan import FIELDS

if TYPE_CHECKING:
    from streams.definitions.model import FeatureSet

FIRST = feature_set(feature("x"), feature("old"))
SECOND = feature_set(feature("x", window_ms=20), feature("new"), version=B)


def compared(
    *rows: tuple[str, int, str, Any],
    after: FeatureSet = SECOND,
    kind: str = "final",
    cells: int = 1,
    taken: int = 1,
) -> Compared:
    a, b = plan_versions([FIRST, after], source(), FIELDS)
    frame: pl.DataFrame = vectors(*rows, kind=kind).frame()
    seen = tuple(sum(row[2] == one for row in rows) for one in (A, B))
    return Compared(
        a=FIRST,
        b=after,
        differences=differences(FIRST, after),
        reuse=reuse(b, [a], {A}),
        topics=("features.a",),
        found=Found(vectors=frame, seen=(seen[0], seen[1]), cells=cells, cells_taken=taken),
        agreement=compare(frame, A, B, ["x"]),
    )


def shown(one: Compared) -> str:
    console = Console(width=160, file=StringIO())
    with console.capture() as captured:
        for line in lines(one):
            console.print(line)
    return captured.get()


BOTH = (("a", 10, A, 1), ("a", 10, B, 4), ("b", 10, A, 2), ("b", 10, B, 2))


def test_definitions_are_compared_field_by_field_with_what_each_change_takes() -> None:
    text = shown(compared(*BOTH))
    assert "clicks_by_who: from 1.0.0 to 2.0.0: no feature is the same" in text
    assert (
        "x.window  10ms     20ms   panes a window of 20ms, and the longest so far is 10ms" in text
    )
    assert "new       -        added  shared" in text
    assert "old       removed  -" in text


def test_values_are_summed_up_by_feature_with_examples() -> None:
    text = shown(compared(*BOTH))
    assert (
        "2 vectors of both, as of 1970-01-01 00:00:00 to 1970-01-01 00:00:00 (2 final/final)"
        in text
    )
    assert "x        2         1      3" in text
    assert "where they differ most" in text
    assert "left out" not in text


def test_an_update_and_what_is_left_out_are_remarked() -> None:
    text = shown(compared(*BOTH, ("c", 10, A, 1), kind="update", cells=3))
    assert "an update tells how things were before" in text
    assert "1 vectors are of 1.0.0 only, 0 of 2.0.0 only" in text
    assert "left out: 2 of 3" in text


@pytest.mark.parametrize(
    ("rows", "cells", "said"),
    [
        ((("a", 10, A, 1),), 0, "no vector of 2.0.0 is on features.a"),
        ((("a", 10, A, 1), ("b", 10, B, 1)), 1, "no entity has a vector of both"),
    ],
)
def test_where_nothing_was_computed_by_both_it_says_how_to_get_some(
    rows: tuple[tuple[str, int, str, Any], ...], cells: int, said: str
) -> None:
    text = " ".join(shown(compared(*rows, cells=cells, taken=cells)).split())
    assert said in text
    assert "`rewindow pin clicks_by_who@2.0.0`" in text


def test_a_limit_that_is_too_low_for_any_as_of_time_is_said_so() -> None:
    text = " ".join(shown(compared(cells=4, taken=0)).split())
    assert "more than --limit allows in each partition: raise it" in text


def test_equal_definitions_are_said_to_be_equal() -> None:
    same = feature_set(feature("x"), feature("old"), version=B)
    assert "the definitions are equal" in shown(compared(after=same))
    assert as_json(compared(after=same))["definitions"]["equal"]


def test_as_json_all_of_it_can_be_read_back() -> None:
    printed = json.loads(json.dumps(as_json(compared(*BOTH))))
    (one,) = printed["values"]["features"]
    assert (one["compared"], one["different"], one["max_difference"]) == (2, 1, 3.0)
    assert one["examples"] == [{"entity": "a", "as_of_ms": 10, "a": 1, "b": 4}]
    assert printed["definitions"]["features"]["added"] == ["new"]
    assert printed["definitions"]["takes"]["x"]["takes"] == "panes"


def test_a_time_is_in_utc_unless_it_says_otherwise() -> None:
    assert parse_time("1970-01-01T00:01") == 60_000
    assert parse_time("1970-01-01T01:00+01:00") == 0
    with pytest.raises(InvalidInputError, match="--since 'soon' is no time"):
        parse_time("soon")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a@1.0.0", "b@1.0.0"), "a@1.0.0 and b@1.0.0 are of different sets: give one set's"),
        (("a@1.0.0", "a@1.0.0"), "a@1.0.0 is given twice: give two versions"),
        (("a", "a@1.0.0"), "'a': write SET@VERSION, such as departures@1.1.0"),
    ],
)
def test_what_is_no_pair_of_versions_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, str], said: str
) -> None:
    run(capsys, "diff", *arguments).failed(2, said)
