"""What the log does not say, as it travels in the commit metadata.

For each set and each pin (`set@version`): the highest closed as-of time and the version that
closed it. For each set the epoch that holds, what had closed when the set began here, and when
the version that serves took over. For the partition: the offset at which it began, a watermark
advanced by idleness, the definitions and control offsets applied, the cursors of a closing that
is larger than one transaction and of corrections, and whether the record at the position has
closed something already. It is read back at a claim; an unknown format is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from streams.errors import RewindowError
from streams.names import outlet

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

FORMAT = 4
"""Since 2 with epochs and the control offset, since 3 with pins, corrections, and epochs that
switch features off, since 4 with corrections that are made beside batches: who does not know them
must not go on."""

_READABLE = (1, 2, 3, FORMAT)
_NOTED_WHO_CLOSED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Every as-of time up to `through_ms` is closed; `version` closed the last of them."""

    through_ms: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Within as-of time `as_of_ms` of a set or pin, the first `entities_done` have gone out."""

    outlet: str
    version: str
    as_of_ms: int
    entities_done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Correcting:
    """What a version that was withdrawn has said is being corrected, up to `through_ms`, over the
    panes as they were at `offset`, the fence.

    Everything before `as_of_ms` is done, and the first `entities_done` of it; `made` counts the
    corrections so far.
    """

    feature_set: str
    version: str
    offset: int
    through_ms: int
    as_of_ms: int
    entities_done: int = 0
    made: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The metadata that goes with a committed offset. `closed` is by set and by pin."""

    closed: Mapping[str, Closed] = field(default_factory=dict)
    idle_watermark_ms: int | None = None
    watermark_ms: int | None = None
    definitions_offset: int = 0
    control_offset: int = 0
    epochs: Mapping[str, int] = field(default_factory=dict)
    """By set, where it is not 0."""
    began: Mapping[str, int] = field(default_factory=dict)
    """By set what was closed when it began here, and so by none of its versions."""
    took_over: Mapping[str, int] = field(default_factory=dict)
    """By set what was closed when the version that serves took over from another one."""
    cursor: Cursor | None = None
    correcting: Correcting | None = None
    owing: bool = False
    """Something is closed because of the record at the position, which is not applied yet."""
    start: int = 0
    """Offset at which the stream began for this app; what lies before is not its concern."""

    @property
    def at_rest(self) -> bool:
        """Whether nothing is half done at the position."""
        return self.cursor is None and self.correcting is None and not self.owing

    def closed_further(self, outlet: str, through_ms: int | None, version: str) -> Progress:
        """With C of a set or pin at `through_ms` by `version`; as it is where that is no further.

        So a version that has taken over is named from its first as-of time on.
        """
        known = self.closed.get(outlet)
        if through_ms is None or (known is not None and through_ms <= known.through_ms):
            return self
        through = Closed(through_ms=through_ms, version=version)
        return replace(self, closed={**self.closed, outlet: through})

    def closed_for(self, feature_set: str, version: str) -> int | None:
        """The C from which a version of a set would go on: that of its pin if that lies behind the
        set's; None while the set has closed nothing."""
        known = self.closed.get(feature_set)
        if known is None:
            return None
        pin = self.closed.get(outlet(feature_set, version), known)
        return min(known.through_ms, pin.through_ms)

    def without(self, outlets: Collection[str]) -> Progress:
        """Without the C of pins that are none any more."""
        closed = {name: c for name, c in self.closed.items() if name not in outlets}
        return replace(self, closed=closed)

    def encode(self) -> str:
        """Compact JSON; what is absent is left out."""
        document: dict[str, object] = {"f": FORMAT}
        if self.closed:
            document["c"] = {name: [c.through_ms, c.version] for name, c in self.closed.items()}
        if self.idle_watermark_ms is not None:
            document["i"] = self.idle_watermark_ms
        if self.watermark_ms is not None:
            document["w"] = self.watermark_ms
        if self.definitions_offset:
            document["d"] = self.definitions_offset
        if self.control_offset:
            document["o"] = self.control_offset
        if self.epochs:
            document["e"] = dict(self.epochs)
        if self.began:
            document["b"] = dict(self.began)
        if self.took_over:
            document["t"] = dict(self.took_over)
        if self.start:
            document["s"] = self.start
        if self.owing:
            document["r"] = 1
        if self.cursor is not None:
            cursor = self.cursor
            document["k"] = [
                cursor.outlet,
                cursor.version,
                cursor.as_of_ms,
                cursor.entities_done,
            ]
        if self.correcting is not None:
            pending = self.correcting
            document["x"] = [
                pending.feature_set,
                pending.version,
                pending.through_ms,
                pending.as_of_ms,
                pending.entities_done,
                pending.made,
                pending.offset,
            ]
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False)

    @staticmethod
    def decode(text: str) -> Progress:
        """Read `encode`'s text; raises `RewindowError` for another format."""
        try:
            document = json.loads(text)
            if document["f"] not in _READABLE:
                raise ValueError(f"format {document['f']}")
            cursor, correcting = document.get("k"), document.get("x")
            closed = {
                name: Closed(through_ms=through, version=version)
                for name, (through, version) in document.get("c", {}).items()
            }
            began = document.get("b", {})
            if document["f"] < _NOTED_WHO_CLOSED:
                began = {name: one.through_ms for name, one in closed.items()}
            return Progress(
                closed=closed,
                idle_watermark_ms=document.get("i"),
                watermark_ms=document.get("w"),
                definitions_offset=document.get("d", 0),
                control_offset=document.get("o", 0),
                epochs=dict(document.get("e", {})),
                began=dict(began),
                took_over=dict(document.get("t", {})),
                owing=bool(document.get("r", 0)),
                start=document.get("s", 0),
                cursor=None
                if cursor is None
                else Cursor(
                    outlet=cursor[0],
                    version=cursor[1],
                    as_of_ms=cursor[2],
                    entities_done=cursor[3],
                ),
                correcting=None
                if correcting is None
                else Correcting(
                    feature_set=correcting[0],
                    version=correcting[1],
                    through_ms=correcting[2],
                    as_of_ms=correcting[3],
                    entities_done=correcting[4],
                    made=correcting[5],
                    offset=correcting[6],
                ),
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RewindowError(
                f"the commit metadata {text[:80]!r} was not written by this version of rewindow "
                f"({error}): run the version that wrote it, or give this app another name"
            ) from error
