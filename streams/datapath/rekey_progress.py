"""What a cursor of the rekeying stage commits with its position, beside the position itself.

Text form: compact JSON with the format `f`, the watermark `w`, the floor `r`, `n` while the
floor is still to be found, `s` after a silence marker; what is absent is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.errors import RewindowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.definitions.plan import View

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RekeyProgress:
    """A cursor in one source partition.

    `watermark_ms` is the highest event time below the position, or what idleness gave if that
    is higher. From `floor_ms` on the cursor has passed every event; `floor_wanted` says that it
    began after offset 0 and has not met a record yet. `silent` says that its newest marker
    told of silence.
    """

    watermark_ms: int | None = None
    floor_ms: int | None = None
    floor_wanted: bool = False
    silent: bool = False

    def encode(self) -> str:
        """The text that goes with a committed offset."""
        document: dict[str, int] = {"f": FORMAT}
        if self.watermark_ms is not None:
            document["w"] = self.watermark_ms
        if self.floor_ms is not None:
            document["r"] = self.floor_ms
        if self.floor_wanted:
            document["n"] = 1
        if self.silent:
            document["s"] = 1
        return json.dumps(document, separators=(",", ":"))

    @staticmethod
    def decode(text: str) -> RekeyProgress:
        """Read `encode`'s text; raises `RewindowError` for another format."""
        try:
            document = json.loads(text)
            if document["f"] != FORMAT:
                raise ValueError(f"format {document['f']}")
            return RekeyProgress(
                watermark_ms=document.get("w"),
                floor_ms=document.get("r"),
                floor_wanted=bool(document.get("n")),
                silent=bool(document.get("s")),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RewindowError(
                f"the commit metadata {text[:80]!r} was not written by this version of rewindow "
                f"({error}): run the version that wrote it, or give this app another name"
            ) from error

    def after(self, watermark_ms: int | None) -> int | None:
        """The watermark, raised to `watermark_ms` if that is higher."""
        if self.watermark_ms is None or watermark_ms is None:
            return self.watermark_ms if watermark_ms is None else watermark_ms
        return max(self.watermark_ms, watermark_ms)


def closes_something(views: Sequence[View], before_ms: int | None, after_ms: int) -> bool:
    """Whether a watermark that goes from one to the other passes what a set could close.

    An as-of time T, a multiple of `every`, closes at the watermark T + lateness.
    """
    if before_ms is None:
        return True
    return any(
        (after_ms - view.allowed_lateness_ms) // view.every_ms
        > (before_ms - view.allowed_lateness_ms) // view.every_ms
        for view in views
    )
