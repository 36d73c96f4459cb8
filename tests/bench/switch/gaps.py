"""How long the data path pauses: times between two moments at which a partition goes on."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.bench.switch.noting import Advanced

Span = tuple[float, float]
"""Begin and end in seconds, by the monotonic clock."""


def longest_gap_ms(
    progress: Iterable[Advanced], spans: Sequence[Span], *, apart_from: Sequence[Span] = ()
) -> float:
    """The longest time in which a partition did not go on that one of the spans meets, and none of
    those in `apart_from`.

    Progress comes in order of time. 0 if no two moments of a partition enclose part of a span.
    """
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    for one in progress:
        times[one.topic, one.partition].append(one.at_s)
    found = [
        end_s - begin_s
        for those in times.values()
        for begin_s, end_s in pairwise(those)
        if _meets((begin_s, end_s), spans) and not _meets((begin_s, end_s), apart_from)
    ]
    return 1000 * max(found, default=0.0)


def _meets(one: Span, spans: Sequence[Span]) -> bool:
    return any(one[0] < last_s and first_s < one[1] for first_s, last_s in spans)


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least the share `q` of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))]
