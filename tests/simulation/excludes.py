"""What runs have been through of leaving events out, as the report counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.control.records import RequestRecord, State
from streams.control.set_record import SetRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streams.control.records import ControlRecord

TRANSITIONS = (
    "received: reject",
    "received: dry run",
    "received: accept cold",
    "preparing: ready",
    "preparing: lost",
    "preparing: deadline",
    "preparing: cancelled",
    "preparing: repeated",
    "preparing: resumed",
    "switching: fenced",
    "switching: switched",
    "switching: resumed",
    "completed: repeated",
)
"""Of the requests for it."""

HELD = (
    "again",
    "corrected",
    "to another version",
    "with a feature off",
    "with a pin",
    "with a stand-in",
)
"""What else there was when it took effect."""

LATER = ("later exclude failed", "later pin", "later repair", "later switch", "later toggle")
"""What was decided of a set that leaves something out."""

WANTED = (*TRANSITIONS, *HELD, *LATER)


def met(control: Iterable[ControlRecord]) -> Iterator[str]:
    """What the control topic tells."""
    known: dict[str, SetRecord] = {}
    ended: set[str | None] = set()
    for one in control:
        body = one.body
        if isinstance(body, SetRecord):
            before = known.get(body.feature_set)
            if before is not None and body.epoch != before.epoch:
                news = _begun if body.excluding != before.excluding else _later
                yield from news(before, body)
            known[body.feature_set] = body
        elif body.request_id not in ended:
            yield from _ended(body, known, ended)


def _begun(before: SetRecord, after: SetRecord) -> Iterator[str]:
    if len(after.in_force) > 1:
        yield "again"
    if after.serving != before.serving:
        yield "to another version"
    if after.pinned:
        yield "with a pin"
    off = after.held.off(after.serving)
    if off:
        yield "with a feature off"
    if any(off.values()):
        yield "with a stand-in"


def _later(before: SetRecord, after: SetRecord) -> Iterator[str]:
    if not after.excluding:
        return
    if after.serving != before.serving:
        yield "later switch" if after.corrects is None else "later repair"
    if len(after.pinned) > len(before.pinned):
        yield "later pin"
    if after.toggles != before.toggles:
        yield "later toggle"


def _ended(
    body: RequestRecord, known: dict[str, SetRecord], ended: set[str | None]
) -> Iterator[str]:
    request = body.request
    if request is None or request.exclude is None:
        return
    if body.state is State.COMPLETED:
        ended.add(body.request_id)
        if body.corrections:
            yield "corrected"
    elif body.state is State.FAILED:
        ended.add(body.request_id)
        route = known.get(request.feature_set)
        if route is not None and route.excluding:
            yield "later exclude failed"
