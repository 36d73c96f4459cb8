"""Idleness, drawn: a row for each partition, a column for each second.

    x  records came and are applied: the watermark is the column's number
    .  at the end of the log, nothing came
    >  records wait that are not applied yet
    ?  can't be read
    e  at the end, and never had a record

Below, what each partition follows: a watermark, or . where it is not idle. The last row, if
there is one, is the highest event time of a silent source, both in hexadecimal.
"""

from __future__ import annotations

import pytest

from streams.windowing.idleness import Idleness, Sight

IDLE_AFTER_S = 4
CLOSE_AFTER_S = 7

DRAWINGS = {
    "one stops, the other moves": """
        p0  x x x x x x x x x
        p1  x x . . . . . . .
        p0  . . . . . . . . .
        p1  . . . . . 5 6 7 8
    """,
    "one stops shortly after the other, and both are silent": """
        p0  x x x . . . . . . . . .
        p1  x . . . . . . . . . . .
        p0  . . . . . . . . . . . .
        p1  . . . . 2 2 2 2 2 2 2 2
    """,
    "both stop at once: neither moves while the other does not": """
        p0  x x . . . . . . . . . .
        p1  x x . . . . . . . . . .
        p0  . . . . . . . . . . . .
        p1  . . . . . . . . . . . .
    """,
    "a source of one partition is never idle": """
        p0  x . . . . . . .
        p0  . . . . . . . .
    """,
    "one that never had a record follows as well": """
        p0  x x x x x x
        p1  e e e e e e
        p0  . . . . . .
        p1  . . . . 4 5
    """,
    "one that never had a record follows what came before the first look": """
        p0  x . . . . .
        p1  e e e e e e
        p0  . . . . . .
        p1  . . . . 0 0
    """,
    "it follows the lowest of those that move": """
        p0  x x x x x x x x
        p1  x x . x . x . x
        p2  x . . . . . . .
        p0  . . . . . . . .
        p1  . . . . . . . .
        p2  . . . . 3 5 5 7
    """,
    "one that is idle itself is not among those that move": """
        p0  x x x x x x x x x x
        p1  x x x . . . . . . .
        p2  x . . . . . . . . .
        p0  . . . . . . . . . .
        p1  . . . . . . 6 7 8 9
        p2  . . . . 2 2 6 7 8 9
    """,
    "after silence of all the first to move leaves the others time": """
        p0  x . . . . . . . . . x x x x x x
        p1  x . . . . . . . . . . . . . . .
        p0  . . . . . . . . . . . . . . . .
        p1  . . . . . . . . . . . . . . e f
    """,
    "a backlog that comes within that time is not idle": """
        p0  x . . . . . . . . . x x x x x x
        p1  x . . . . . . . . . . . . x . .
        p0  . . . . . . . . . . . . . . . .
        p1  . . . . . . . . . . . . . . . .
    """,
    "sparse records, further apart than idle_after": """
        p0  x . . . . . x . . . . . x . . .
        p1  e e e e e e e e e e e e e e e e
        p0  . . . . . . . . . . . . . . . .
        p1  . . . . 0 0 . . . . 6 6 . . . .
    """,
    "what lags is not idle, and moves": """
        p0  x x > > > > > x
        p1  x . . . . . . .
        p2  x > > > > > > >
        p0  . . . . . . . .
        p1  . . . . 0 0 0 0
        p2  . . . . . . . .
    """,
    "what came at once has moved at once, though one is applied later": """
        p0  x > . . . . . . .
        p1  x x . . . . . . .
        p0  . . . . . . . . .
        p1  . . . . . . . . .
    """,
    "what can't be read is not idle": """
        p0  x x x x x x x x x x x
        p1  x . . ? . . . . . . .
        p0  . . . . . . . . . . .
        p1  . . . . . . . . 8 9 a
    """,
    "silence of the whole source": """
        p0  x x x . . . . . . . . .
        p1  x . . . . . . . . . . .
        p0  . . . . . . . . . . . .
        p1  . . . . 2 2 2 2 2 2 2 2
        all . . . . . . . . . 2 2 2
    """,
    "silence ends with a record": """
        p0  x . . . . . . . x . . . . . . .
        p0  . . . . . . . . . . . . . . . .
        all . . . . . . . 0 . . . . . . . 8
    """,
    "what lags, or can't be read, is not silent": """
        p0  x . . . . . . . . . . . . . . . .
        p1  x . . . > . . . . ? . . . . . . .
        p0  . . . . . . . . 0 . . . . 0 0 0 0
        p1  . . . . . . . . . . . . . . . . .
        all . . . . . . . . . . . . . . . . .
    """,
    "a source that never had a record has nothing to close": """
        p0  e e e e e e e e e
        p0  . . . . . . . . .
        all . . . . . . . . .
    """,
}


def _rows(drawing: str) -> list[tuple[str, list[str]]]:
    lines = [line.split() for line in drawing.strip().splitlines()]
    return [(line[0], line[1:]) for line in lines]


def _number(sign: str) -> int | None:
    return None if sign == "." else int(sign, 16)


class _Partition:
    """Turns signs into sights; a batch is ten records."""

    def __init__(self) -> None:
        self.applied = self.end = 0
        self.watermark_ms: int | None = None

    def sight(self, sign: str, column: int) -> Sight:
        if sign == "x":
            self.end += 10
            self.applied = self.end
            self.watermark_ms = column
        elif sign == ">":
            self.end += 10
        elif sign == ".":
            self.applied = self.end
        elif sign == "?":
            return Sight(position=None, end=None, watermark_ms=None)
        return Sight(position=self.applied, end=self.end, watermark_ms=self.watermark_ms)


@pytest.mark.parametrize("title", DRAWINGS)
def test_idleness_is_as_drawn(title: str) -> None:
    rows = _rows(DRAWINGS[title])
    names = sorted({name for name, _ in rows if name != "all"})
    signs = dict(rows[: len(names)])
    expected = dict(rows[len(names) : 2 * len(names)])
    silence = dict(rows).get("all")
    idleness = Idleness(idle_after_s=IDLE_AFTER_S, close_after_s=CLOSE_AFTER_S if silence else None)
    partitions = [_Partition() for _ in names]
    for column in range(len(signs[names[0]])):
        verdict = idleness.look(
            {
                number: partition.sight(signs[name][column], column)
                for number, (name, partition) in enumerate(zip(names, partitions, strict=True))
            },
            float(column),
        )
        wanted = {
            number: watermark
            for number, name in enumerate(names)
            if (watermark := _number(expected[name][column])) is not None
        }
        assert verdict.idle == wanted, f"column {column}"
        assert verdict.silent_ms == (_number(silence[column]) if silence else None), (
            f"column {column}"
        )


def test_a_watermark_raised_by_idleness_is_no_movement() -> None:
    idleness = Idleness(idle_after_s=4, close_after_s=None)
    for second in range(10):
        moving = Sight(position=second, end=second, watermark_ms=100 + second)
        # p1's owner does as it is told, and its metadata says so.
        still = Sight(position=5, end=5, watermark_ms=50 if second < 4 else 99 + second)
        verdict = idleness.look({0: moving, 1: still}, float(second))
    assert verdict.idle == {1: 109}


def test_an_open_producer_transaction_is_not_idleness() -> None:
    idleness = Idleness(idle_after_s=4, close_after_s=8)
    for second in range(20):
        held_up = Sight(position=5, end=6, watermark_ms=50)
        moving = Sight(position=second, end=second, watermark_ms=second)
        verdict = idleness.look({0: moving, 1: held_up}, float(second))
        assert 1 not in verdict.idle
        assert verdict.silent_ms is None
