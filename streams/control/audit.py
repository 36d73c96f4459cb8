"""The audit trail: a chain in which each record carries the hash of the one before.

A record's hash is SHA-256 over the hash before it and the canonical JSON of its other fields.
Whoever changes a record has to change all that follow, and even then the heads differ that the
control records carry.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from streams.control.records import GENESIS, AuditRecord, Head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Fault(StrEnum):
    """What is wrong with a record of the chain."""

    EDITED = "edited"
    MISSING = "missing"
    REORDERED = "reordered"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault. `seq` is the number of the record, or of the first of several missing ones.

    `position` is where it lies among those read, or where the missing ones should lie.
    """

    fault: Fault
    seq: int
    position: int
    message: str


def record_hash(record: AuditRecord) -> str:
    """The hash that `record` should carry, in hex."""
    fields = asdict(record)
    del fields["hash"]
    previous = fields.pop("previous")
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{previous}{text}".encode()).hexdigest()


def chained(head: Head, record: AuditRecord) -> tuple[AuditRecord, Head]:
    """`record` as the next one after `head`, and the head after it."""
    numbered = replace(record, seq=head.next_seq, previous=head.hash)
    linked = replace(numbered, hash=record_hash(numbered))
    return linked, Head(next_seq=linked.seq + 1, hash=linked.hash)


def verify(records: Sequence[AuditRecord], heads: Iterable[Head] = ()) -> list[Finding]:
    """What is wrong with the chain, in the order of the topic; empty if it is whole.

    `records` are all of the audit topic from its beginning; `heads` those of control records
    that were read before it, one or all. With the newest head a cut-off or rewritten tail is
    found; with all of them, where the rewriting begins.
    """
    places: dict[int, int] = {}
    for position, record in enumerate(records):
        places.setdefault(record.seq, position)
    findings = [
        *_contents(records),
        *_order(records, places),
        *_gaps(places),
        *_links(records, places),
        *_heads(records, places, heads),
    ]
    once = {(finding.fault, finding.seq): finding for finding in reversed(findings)}
    return sorted(once.values(), key=lambda finding: (finding.position, finding.seq))


def _contents(records: Sequence[AuditRecord]) -> Iterator[Finding]:
    """Records that do not have the hash that they carry."""
    for position, record in enumerate(records):
        if record.hash != record_hash(record):
            message = f"record {record.seq} is edited: its content does not have its hash"
            yield Finding(fault=Fault.EDITED, seq=record.seq, position=position, message=message)


def _order(records: Sequence[AuditRecord], places: dict[int, int]) -> Iterator[Finding]:
    """Records that are there twice, or after one that they come before."""
    highest = -1
    for position, record in enumerate(records):
        seq = record.seq
        if position != places[seq]:
            message = f"record {seq} is a duplicate"
            yield Finding(fault=Fault.DUPLICATE, seq=seq, position=position, message=message)
        elif seq < highest:
            message = f"record {seq} is reordered: it comes after record {highest}"
            yield Finding(fault=Fault.REORDERED, seq=seq, position=position, message=message)
        highest = max(highest, seq)


def _gaps(places: dict[int, int]) -> Iterator[Finding]:
    """Numbers that no record has; those that follow each other are one finding."""
    expected = 0
    for seq in sorted(places):
        if seq > expected:
            yield _missing(expected, seq - 1, places[seq], f"record {seq} is there")
        expected = seq + 1


def _links(records: Sequence[AuditRecord], places: dict[int, int]) -> Iterator[Finding]:
    """Records whose hash was made anew: what comes after still carries the one before."""
    for seq, position in places.items():
        record = records[position]
        if seq and seq - 1 not in places:
            continue
        before = places[seq - 1] if seq else position
        expected = records[before].hash if seq else GENESIS
        if record.previous == expected or record.hash != record_hash(record):
            continue
        blamed = max(seq - 1, 0)
        why = f"record {seq} follows one with another hash" if seq else "the first one follows none"
        message = f"record {blamed} is edited: {why}"
        yield Finding(fault=Fault.EDITED, seq=blamed, position=before, message=message)


def _heads(
    records: Sequence[AuditRecord], places: dict[int, int], heads: Iterable[Head]
) -> Iterator[Finding]:
    """Where the chain first differs from what the control topic remembers of it."""
    ordered = sorted(heads, key=lambda head: head.next_seq)
    end = max(places, default=-1) + 1
    if ordered and ordered[-1].next_seq > end:
        last = ordered[-1].next_seq - 1
        yield _missing(end, last, len(records), "the control topic knows that there was more")
    for head in ordered:
        seq = head.next_seq - 1
        if seq in places and records[places[seq]].hash != head.hash:
            message = (
                f"record {seq} is edited: the control topic knows it by another hash; "
                "it, or one before it, was written anew"
            )
            yield Finding(fault=Fault.EDITED, seq=seq, position=places[seq], message=message)
            return


def _missing(first: int, last: int, position: int, why: str) -> Finding:
    which = f"record {first} is" if first == last else f"records {first} to {last} are"
    message = f"{which} missing: {why}"
    return Finding(fault=Fault.MISSING, seq=first, position=position, message=message)
