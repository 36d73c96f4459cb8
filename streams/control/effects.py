"""What an accepted request makes of a set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.control.records import Action
from streams.control.routes import (
    activated,
    given_up,
    left_out,
    pinned,
    retired,
    rolled_back,
    switched_off,
    switched_on,
    unpinned,
    version_before,
)
from streams.control.set_record import Pin, Toggle

if TYPE_CHECKING:
    from streams.control.records import Request
    from streams.control.routes import Rules
    from streams.control.set_record import SetRecord


def effect(
    request: Request, record: SetRecord, target: str, rules: Rules, pin: Pin | None = None
) -> SetRecord:
    """The set once the request is done, its target being ready where it has to be.

    `pin` names the schemas of a version to be pinned; without it they are unknown, which is
    enough for a plan.
    """
    match request.action:
        case Action.ROLLBACK if request.exclude is not None:
            return left_out(record, target, rules)
        case Action.ROLLBACK:
            return rolled_back(record, target, rules, repair=request.repair)
        case Action.ACTIVATE:
            return activated(record, target, rules, repair=request.repair)
        case Action.RETIRE:
            return retired(record, target, rules)
        case Action.CANCEL:
            return given_up(record, rules)
        case Action.PIN:
            unknown = Pin(version=target, key_schema_id=0, value_schema_id=0)
            return pinned(record, pin or unknown, rules)
        case Action.UNPIN:
            return unpinned(record, target, rules)
        case Action.TOGGLE:
            feature = request.feature or ""
            if request.enabled:
                return switched_on(record, target, feature, rules)
            before = version_before(record, target) if request.fallback else None
            toggle = Toggle(version=target, feature=feature, fallback=before)
            return switched_off(record, toggle, rules)
        case Action.SNAPSHOT:
            return record
