"""Whatever is done to the audit trail is found, and the record is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams.control.audit import Fault, chained, record_hash, verify
from streams.control.codec import decode_audit, encode
from streams.control.records import GENESIS, AuditEvent, AuditRecord, Head, Reason

LENGTH = 6


def chain(records: list[AuditRecord]) -> tuple[list[AuditRecord], list[Head]]:
    head, links, heads = Head(), [], []
    for record in records:
        linked, head = chained(head, record)
        links.append(linked)
        heads.append(head)
    return links, heads


def plain(number: int) -> AuditRecord:
    return AuditRecord(
        seq=0,
        previous=GENESIS,
        at_ms=1_000 + number,
        event=AuditEvent.COMPLETED,
        request_id=f"r{number}",
        requested_by="an operator, nöt a program",
        cut={10: 5, 2: 7},
        reasons=(Reason(code="unknown_set", message="…"),),
    )


WHOLE, HEADS = chain([plain(number) for number in range(LENGTH)])


def found(records: list[AuditRecord], *heads: Head) -> list[tuple[Fault, int]]:
    return [(one.fault, one.seq) for one in verify(records, heads)]


def renewed(record: AuditRecord) -> AuditRecord:
    return replace(record, hash=record_hash(record))


def test_a_whole_chain_has_no_findings() -> None:
    assert verify(WHOLE, HEADS) == []
    assert verify([]) == []
    assert verify([], [Head()]) == []
    assert verify([decode_audit(encode(record, 1)) for record in WHOLE], HEADS) == []


def test_records_after_the_head_are_no_fault() -> None:
    assert verify(WHOLE, HEADS[:2]) == []


@pytest.mark.parametrize("seq", range(LENGTH))
@pytest.mark.parametrize(
    "change",
    [
        {"reason": "no reason"},
        {"at_ms": 1},
        {"cut": {}},
        {"event": AuditEvent.FAILED},
        {"hash": "f" * 64},
        {"previous": "f" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_edited_record_is_named(seq: int, change: dict[str, object]) -> None:
    records = list(WHOLE)
    records[seq] = replace(records[seq], **change)  # type: ignore[arg-type]
    assert (Fault.EDITED, seq) in found(records)
    assert {fault for fault, _ in found(records)} == {Fault.EDITED}
    if "hash" not in change:
        assert found(records) == [(Fault.EDITED, seq)]


@pytest.mark.parametrize("seq", range(LENGTH - 1))
def test_a_record_whose_hash_was_made_anew_is_named(seq: int) -> None:
    records = list(WHOLE)
    records[seq] = renewed(replace(records[seq], reason="another"))
    assert found(records) == [(Fault.EDITED, seq)]
    assert found(records, *HEADS) == [(Fault.EDITED, seq)]


def test_the_last_record_with_a_new_hash_is_found_by_the_head() -> None:
    records = [*WHOLE[:-1], renewed(replace(WHOLE[-1], reason="another"))]
    assert found(records) == []
    assert found(records, HEADS[-1]) == [(Fault.EDITED, LENGTH - 1)]


def test_where_the_rest_was_written_anew_is_found_by_the_heads() -> None:
    records, _ = chain([replace(plain(at), reason="x" if at >= 2 else "") for at in range(LENGTH)])
    assert found(records) == []
    assert found(records, HEADS[-1]) == [(Fault.EDITED, LENGTH - 1)]
    assert found(records, *HEADS) == [(Fault.EDITED, 2)]


@pytest.mark.parametrize("seq", range(LENGTH - 1))
def test_a_missing_record_is_named(seq: int) -> None:
    records = [record for record in WHOLE if record.seq != seq]
    assert found(records, *HEADS) == [(Fault.MISSING, seq)]


def test_several_missing_records_are_one_finding() -> None:
    (finding,) = verify([*WHOLE[:1], *WHOLE[4:]])
    assert (finding.seq, finding.position) == (1, 1)
    assert finding.message == "records 1 to 3 are missing: record 4 is there"


def test_a_number_that_is_far_off_takes_no_time() -> None:
    records = [*WHOLE, renewed(replace(WHOLE[-1], seq=1 << 62))]
    assert (Fault.MISSING, LENGTH) in found(records)


def test_a_tail_that_was_cut_off_is_found_by_the_head() -> None:
    assert found(WHOLE[:4]) == []
    (finding,) = verify(WHOLE[:4], HEADS)
    assert (finding.fault, finding.seq, finding.position) == (Fault.MISSING, 4, 4)
    assert finding.message.startswith("records 4 to 5 are missing")
    assert found([], HEADS[-1]) == [(Fault.MISSING, 0)]


def test_a_reordered_record_is_named() -> None:
    records = [*WHOLE[:2], WHOLE[3], WHOLE[2], *WHOLE[4:]]
    assert found(records, *HEADS) == [(Fault.REORDERED, 2)]


def test_a_duplicate_is_named() -> None:
    assert found([*WHOLE[:3], WHOLE[2], *WHOLE[3:]], *HEADS) == [(Fault.DUPLICATE, 2)]


def test_a_forged_beginning_is_named() -> None:
    forged = renewed(replace(WHOLE[0], previous="f" * 64))
    assert (Fault.EDITED, 0) in found([forged, *WHOLE[1:]])
