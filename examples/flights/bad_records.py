"""Bad records to plant among the flights, and the error each must be put aside with."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from examples.flights.data import Flight

DAY_MS = 24 * 3_600_000
YEAR_MS = 365 * DAY_MS

UNKNOWN_SCHEMA_ID = 0x7FFF_FF00
"""No registry hands out ids as high as this."""

KINDS = (
    ("tombstone", "tombstone"),
    ("wrong_magic_byte", "wrong_magic_byte"),
    ("cut_header", "truncated"),
    ("cut_body", "undecodable"),
    ("unknown_schema_id", "unknown_schema_id"),
    ("no_such_branch", "undecodable"),
    ("missing_entity", "missing_entity"),
    ("missing_event_time", "missing_event_time"),
    ("event_time_ahead", "event_time_ahead"),
)
"""What is wrong with a record, and the error that says so."""

ERRORS = tuple(error for _, error in KINDS)
"""The error of each kind of bad record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRecord:
    """A record that must end in the dead-letter topic under `error`.

    It goes to `partition` right before the flight with index `before`.
    """

    before: int
    partition: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    error: str


def planted_bad(
    flights: Sequence[Flight],
    encode: Callable[[Mapping[str, object]], bytes],
    *,
    partitions: int,
    copies: int = 5,
) -> list[BadRecord]:
    """`copies` of each kind of bad record, spread evenly over `flights` and partitions.

    `encode` frames an event as its producer does: a zero byte, the schema id, the body.
    Each bad record is made from the flight it precedes. None could move the watermark of
    the flights in its partition: if it has a sound event time, that is a day in the past.
    """
    number = copies * len(KINDS)
    bad = []
    for i in range(number):
        before = (i + 1) * len(flights) // (number + 1)
        flight = flights[before]
        kind, error = KINDS[i % len(KINDS)]
        bad.append(
            BadRecord(
                before=before,
                partition=i % partitions,
                timestamp_ms=flight.timestamp_ms,
                key=None if kind == "missing_entity" else str(flight.event["origin"]).encode(),
                value=_spoilt(flight, kind, encode),
                error=error,
            )
        )
    return bad


def _spoilt(
    flight: Flight, kind: str, encode: Callable[[Mapping[str, object]], bytes]
) -> bytes | None:
    whole = encode(flight.event)
    scheduled_at = flight.timestamp_ms
    match kind:
        case "tombstone":
            return None
        case "wrong_magic_byte":
            return b"\x07" + whole[1:]
        case "cut_header":
            return whole[:3]
        case "cut_body":
            return whole[: len(whole) // 2]
        case "unknown_schema_id":
            return whole[:1] + struct.pack(">I", UNKNOWN_SCHEMA_ID) + whole[5:]
        case "no_such_branch":
            # The first field is a union of two branches; 0x12 is the tenth.
            return whole[:5] + b"\x12" + whole[6:]
        case "missing_entity":
            nobody = {"origin": None, "carrier": None, "departed_at": scheduled_at - DAY_MS}
            return encode({**flight.event, **nobody})
        case "missing_event_time":
            return encode({**flight.event, "departed_at": None})
        case "event_time_ahead":
            return encode({**flight.event, "departed_at": scheduled_at + YEAR_MS})
    message = f"no such kind: {kind}"
    raise ValueError(message)
