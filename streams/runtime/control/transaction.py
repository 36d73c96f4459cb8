"""A decision as the records of one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.control.codec import Kind, encode
from streams.control.set_record import SetRecord
from streams.runtime.control.schemas import topic_of
from streams.runtime.producer import Outgoing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.control.draft import Decision
    from streams.control.records import ControlRecord
    from streams.names import Names


def records_of(decision: Decision, names: Names, ids: Mapping[Kind, int]) -> list[Outgoing]:
    """The decision's control records, audit records and replies, each kind in its order.

    Keys are text: `set/NAME` or `request/ID` of control records, the number of audit records,
    the request's id of replies. What could not be read as a request may have none.
    """
    control = [(_control_key(one), encode(one, ids[Kind.CONTROL])) for one in decision.control]
    audit = [(str(one.seq), encode(one, ids[Kind.AUDIT])) for one in decision.audit]
    replies = [(one.request_id, encode(one, ids[Kind.REPLY])) for one in decision.replies]
    kinds = ((Kind.CONTROL, control), (Kind.AUDIT, audit), (Kind.REPLY, replies))
    return [_outgoing(topic_of(names, kind), records) for kind, records in kinds if records]


def _outgoing(topic: str, records: Sequence[tuple[str | None, bytes]]) -> Outgoing:
    return Outgoing(
        topic=topic,
        partition=0,
        keys=[None if key is None else key.encode() for key, _ in records],
        values=[value for _, value in records],
    )


def _control_key(record: ControlRecord) -> str | None:
    if isinstance(record.body, SetRecord):
        return f"set/{record.body.feature_set}"
    return None if record.body.request_id is None else f"request/{record.body.request_id}"
