"""Requests as anyone may send them: strict, and in words about what is wrong.

A value is a plain JSON object, or Avro in the Confluent wire format; the fields are the same.
Absent fields take their default, unknown ones are refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streams.control.records import Action, Code, Origin, Reason, Request
from streams.definitions.exclusions import Exclude, OffsetRange
from streams.errors import UnreachableError
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_ID = 200
MAX_TEXT = 4_000
MAX_RANGES = 10_000
MAX_REASONS = 20
_LONG = range(-(1 << 63), 1 << 63)
_INT = range(1 << 31)

_ACTIONS = tuple(action.value for action in Action)
_FIELDS = tuple(Request.__dataclass_fields__)
_NEEDED: Mapping[Action, tuple[str, ...]] = {
    Action.ROLLBACK: (),
    Action.ACTIVATE: ("target",),
    Action.TOGGLE: ("feature", "enabled"),
    Action.RETIRE: ("target",),
    Action.PIN: ("target",),
    Action.UNPIN: ("target",),
    Action.CANCEL: ("cancels",),
    Action.SNAPSHOT: (),
}
_ONLY: Mapping[str, tuple[Action, ...]] = {
    "exclude": (Action.ROLLBACK,),
    "repair": (Action.ROLLBACK, Action.ACTIVATE),
    "checkpoint": (Action.ROLLBACK, Action.ACTIVATE, Action.SNAPSHOT),
    "feature": (Action.TOGGLE,),
    "enabled": (Action.TOGGLE,),
    "fallback": (Action.TOGGLE,),
    "cancels": (Action.CANCEL,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """What came instead of a request; `request_id` where that much could be read."""

    reasons: tuple[Reason, ...]
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRequest:
    """One record of the rollback topic, and when it was appended."""

    origin: Origin
    at_ms: int
    content: Request | Unreadable


def read_request(
    value: bytes | None, decode: Callable[[bytes], Mapping[str, Any]]
) -> Request | Unreadable:
    """The request in a record's value.

    `decode` reads values that are not JSON, by the schema that they name. UnreachableError
    from it is passed on, since the same value may be readable later; anything else that it
    raises says that the value can't be read.
    """
    if not value:
        return _unreadable("the record has no value")
    if value.lstrip(b" \t\r\n").startswith(b"{"):
        return parse_json(value)
    try:
        return parse_fields(decode(value))
    except UnreachableError:
        raise
    except Exception as error:
        return _unreadable(f"neither a JSON object nor Avro in the Confluent wire format ({error})")


def parse_json(value: bytes) -> Request | Unreadable:
    """The request in a JSON object."""
    try:
        fields = json.loads(
            value.decode(), object_pairs_hook=_no_repeats, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        return _unreadable(f"no JSON object: {error}")
    if not isinstance(fields, dict):
        return _unreadable("no JSON object")
    return parse_fields(fields)


def parse_fields(fields: Mapping[str, Any]) -> Request | Unreadable:
    """The request with these fields; null is the same as absent.

    Every fault is named and not only the first, up to `MAX_REASONS`.
    """
    reader = _Reader(fields)
    request_id = reader.text("request_id", limit=MAX_ID)
    action = reader.action()
    exclude = reader.exclude()
    request = Request(
        request_id=request_id or "",
        feature_set=reader.text("feature_set", limit=MAX_ID) or "",
        action=action or Action.ROLLBACK,
        target=reader.text("target", limit=MAX_ID),
        if_serving=reader.text("if_serving", limit=MAX_ID),
        checkpoint=reader.text("checkpoint"),
        exclude=exclude,
        repair=bool(reader.flag("repair")),
        dry_run=bool(reader.flag("dry_run")),
        feature=reader.text("feature", limit=MAX_ID),
        enabled=reader.flag("enabled"),
        fallback=reader.text("fallback", limit=MAX_ID),
        reason=reader.text("reason", empty=True) or "",
        requested_by=reader.text("requested_by", empty=True) or "",
        deadline_ms=reader.number("deadline_ms", _LONG),
        cancels=reader.text("cancels", limit=MAX_ID),
    )
    reader.needed("request_id", Code.MISSING_REQUEST_ID)
    reader.needed("feature_set")
    if action is not None:
        for name in _NEEDED[action]:
            reader.needed(name, why=f" for {action}")
        reader.fitting(request)
    if reader.reasons:
        return Unreadable(reasons=tuple(reader.reasons[:MAX_REASONS]), request_id=request_id)
    return request


def request_fields(request: Request) -> dict[str, Any]:
    """All fields of a request as they go on the wire; `parse_fields` reads them back."""
    fields: dict[str, Any] = {name: getattr(request, name) for name in _FIELDS}
    fields["action"] = request.action.value
    if request.exclude is not None:
        fields["exclude"] = {
            "where": request.exclude.where,
            "offsets": [
                {"partition": one.partition, "from": one.start, "to": one.end}
                for one in request.exclude.offsets
            ],
        }
    return fields


class _Reader:
    """Takes fields apart and collects what is wrong with them."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self.reasons: list[Reason] = []
        self._unknown("", fields, _FIELDS)

    def fault(self, name: str, message: str, code: Code = Code.UNREADABLE) -> None:
        self.reasons.append(Reason(code=code, message=f"{name}: {message}", subject=name))

    def needed(self, name: str, code: Code = Code.UNREADABLE, why: str = "") -> None:
        if self._fields.get(name) is None:
            self.fault(name, f"is needed{why}", code)

    def text(self, name: str, *, limit: int = MAX_TEXT, empty: bool = False) -> str | None:
        return self._text(name, self._fields.get(name), limit=limit, empty=empty)

    def flag(self, name: str) -> bool | None:
        value = self._fields.get(name)
        if value is None or isinstance(value, bool):
            return value
        self.fault(name, f"needs to be true or false, not {_shown(value)}")
        return None

    def number(self, name: str, allowed: range) -> int | None:
        return self._number(name, self._fields.get(name), allowed)

    def action(self) -> Action | None:
        value = self._fields.get("action")
        if value is None:
            return Action.ROLLBACK
        if isinstance(value, str) and value in _ACTIONS:
            return Action(value)
        hint = did_you_mean(value if isinstance(value, str) else "", _ACTIONS)
        self.fault("action", f"there is no action {_shown(value)}: {hint}")
        return None

    def exclude(self) -> Exclude | None:
        value = self._fields.get("exclude")
        if value is None:
            return None
        if not isinstance(value, dict):
            self.fault("exclude", f"needs to be an object, not {_shown(value)}")
            return None
        self._unknown("exclude.", value, ("where", "offsets"))
        where = self._text("exclude.where", value.get("where"))
        offsets = value.get("offsets")
        if offsets is not None and not isinstance(offsets, list):
            self.fault("exclude.offsets", f"needs to be a list, not {_shown(offsets)}")
            return None
        if where is None and not offsets:
            self.fault("exclude", "needs `where` or `offsets`")
        if offsets and len(offsets) > MAX_RANGES:
            self.fault("exclude.offsets", f"has more than {MAX_RANGES} ranges")
            return None
        ranges = [self._range(f"exclude.offsets[{at}]", it) for at, it in enumerate(offsets or ())]
        return Exclude(where=where, offsets=tuple(one for one in ranges if one is not None))

    def fitting(self, request: Request) -> None:
        """Fields that belong to other actions than the one that is asked for."""
        for name, actions in _ONLY.items():
            given = getattr(request, name) != Request.__dataclass_fields__[name].default
            if given and request.action not in actions:
                self.fault(name, f"goes with {' and '.join(actions)}, not with {request.action}")
        if request.fallback is not None:
            if request.fallback != "previous":
                self.fault("fallback", "needs to be null or 'previous'")
            elif request.enabled:
                self.fault("fallback", "goes with enabled = false")

    def _unknown(self, where: str, fields: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for name in fields:
            if name not in known:
                shown = str(name)[:MAX_ID].encode(errors="replace").decode()
                self.fault(f"{where}{shown}", f"is no field: {did_you_mean(shown, known)}")

    def _text(
        self, name: str, value: Any, *, limit: int = MAX_TEXT, empty: bool = False
    ) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            self.fault(name, f"needs to be text, not {_shown(value)}")
        elif len(value) > limit:
            self.fault(name, f"is longer than {limit} characters")
        elif not value and not empty:
            self.fault(name, "is empty")
        elif any("\ud800" <= character <= "\udfff" for character in value):
            self.fault(name, "is no Unicode text: half of a surrogate pair")
        else:
            return value
        return None

    def _number(self, name: str, value: Any, allowed: range) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(name, f"needs to be a whole number, not {_shown(value)}")
        elif value not in allowed:
            self.fault(name, f"needs to be from {allowed.start} to {allowed.stop - 1}")
        else:
            return value
        return None

    def _range(self, name: str, value: Any) -> OffsetRange | None:
        if not isinstance(value, dict):
            self.fault(name, f"needs to be an object, not {_shown(value)}")
            return None
        self._unknown(f"{name}.", value, ("partition", "from", "to"))
        numbers = []
        for key, allowed in (("partition", _INT), ("from", _LONG), ("to", _LONG)):
            if value.get(key) is None:
                self.fault(f"{name}.{key}", "is needed")
            numbers.append(self._number(f"{name}.{key}", value.get(key), allowed))
        partition, start, end = numbers
        if partition is None or start is None or end is None:
            return None
        if not 0 <= start < end:
            self.fault(name, "needs 0 <= from < to; `to` is the first offset that stays")
            return None
        return OffsetRange(partition=partition, start=start, end=end)


def _unreadable(message: str) -> Unreadable:
    shown = message[:MAX_TEXT].encode(errors="replace").decode()
    return Unreadable(reasons=(Reason(code=Code.UNREADABLE, message=shown),))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return fields


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")
