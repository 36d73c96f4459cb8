"""What the pipeline hands out: steps, each of them one Kafka transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from streams.datapath.batch import DeadLetter
    from streams.datapath.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """An event that came after everything it belongs to had closed, for one set."""

    offset: int
    feature_set: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
    """From `offset` on this epoch holds here, and so do all before it; `version` serves.

    `closed_through_ms` is C, which it takes over; None if nothing has closed. `corrections` says
    how many were made; None: they are still being made, and it is said again when they are done.
    """

    feature_set: str
    version: str
    epoch: int
    offset: int
    closed_through_ms: int | None
    corrections: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One transaction: what goes out, and the position and progress committed with it.

    `vectors` are by set, those of a pinned version by its `names.outlet`. `last` says that no
    other step follows from what this one was made of; it may be false where none does.
    """

    position: int
    progress: Progress
    vectors: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    late: tuple[Late, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    events: int = 0
    acks: tuple[Fenced, ...] = ()
    last: bool = False
