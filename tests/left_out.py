"""What a version is where events are left out, as the reference model is told it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streams.names import variant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.definitions.exclusions import Exclusion
    from streams.definitions.model import FeatureSet

OFFSET_FIELD = "o"
"""The field of an event that holds its offset for the reference."""


def without(one: FeatureSet, exclusions: Sequence[Exclusion], *, partition: int) -> FeatureSet:
    """The definition that has the events of `exclusions` taken out, in one source partition."""
    wheres = [] if one.where is None else [f"({one.where})"]
    for exclusion in exclusions:
        if exclusion.where is not None:
            wheres.append(f"NOT COALESCE(({exclusion.where}), 0)")
        wheres += [
            f"NOT ({OFFSET_FIELD} >= {it.start} AND {OFFSET_FIELD} < {it.end})"
            for it in exclusion.offsets
            if it.partition == partition
        ]
    where = " AND ".join(wheres) if wheres else None
    return replace(one, version=variant(one.version, exclusions[-1].number), where=where)
