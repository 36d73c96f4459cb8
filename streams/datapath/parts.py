"""Where a batch has to be cut, so that what happens at a record happens there."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.datapath.batch import Batch


def cut_at_orders(batch: Batch) -> list[Batch]:
    """Parts of a batch, last first, so that markers that say more than a watermark are obeyed
    where they stand in the log: silence ends its part, a floor has one to itself."""
    parts = [batch]
    for marker in batch.markers:
        cuts = []
        if marker.floor_ms is not None:
            cuts.append(marker.offset)
        if marker.floor_ms is not None or marker.silent:
            cuts.append(marker.offset + 1)
        for cut in cuts:
            rest = parts[-1]
            if rest.offsets[0] < cut <= rest.offsets[-1]:
                parts[-1:] = [rest.below(cut), rest.since(cut)]
    return parts[::-1]


def first_record(batch: Batch, reached: Callable[[Batch], bool]) -> int | None:
    """Offset of the first record that together with those before it in the batch has `reached`
    something, which more records only go beyond; None if not all of them have."""
    if not batch.offsets or not reached(batch):
        return None
    offsets = batch.offsets
    at = bisect_left(offsets, True, key=lambda offset: reached(batch.below(offset + 1)))
    return offsets[at]
