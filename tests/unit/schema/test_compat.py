"""What the reasons for a refusal say."""

from __future__ import annotations

from typing import Any

import pytest

from streams.errors import InvalidInputError
from streams.schema.compat import incompatibilities


def record(*fields: tuple[Any, ...], name: str = "event") -> dict[str, Any]:
    """Fields are (name, type) or (name, type, default)."""
    members = [
        {"name": f[0], "type": f[1], **({"default": f[2]} if len(f) > 2 else {})} for f in fields
    ]
    return {"type": "record", "name": name, "fields": members}


A = record(("a", "int"))
WIDER = record(("a", "long"))
TWO = record(("a", "int"), ("b", "string"))
TWO_DEFAULT = record(("a", "int"), ("b", ["null", "string"], None))
MILLIS = record(("a", {"type": "long", "logicalType": "timestamp-millis"}))
MICROS = record(("a", {"type": "long", "logicalType": "timestamp-micros"}))


@pytest.mark.parametrize(
    ("new", "old", "level", "reasons"),
    [
        (A, A, "FULL", []),
        (TWO_DEFAULT, A, "FULL", []),
        (A, TWO_DEFAULT, "FULL", []),
        (WIDER, A, "BACKWARD", []),
        (WIDER, A, "NONE", []),
        (WIDER, A, "FORWARD", ["field 'a' changes from int to long"]),
        (A, WIDER, "BACKWARD", ["field 'a' changes from long to int"]),
        (TWO, A, "BACKWARD", ["field 'b' is new and has no default"]),
        (TWO, A, "FORWARD", []),
        (A, TWO, "FORWARD", ["field 'b' is gone and had no default"]),
        (A, TWO, "BACKWARD", []),
        (MICROS, MILLIS, "BACKWARD", ["from timestamp-millis to timestamp-micros"]),
        (MICROS, WIDER, "BACKWARD", []),
        (record(("a", "int"), name="other"), A, "BACKWARD", ["renamed from 'event' to 'other'"]),
    ],
)
def test_reasons_name_the_field(
    new: dict[str, Any], old: dict[str, Any], level: str, reasons: list[str]
) -> None:
    found = incompatibilities(new, [old], level)
    assert len(found) == len(reasons)
    for text, expected in zip(found, reasons, strict=True):
        assert expected in text


def test_transitive_levels_look_at_every_older_schema() -> None:
    text = record(("a", "string"))
    assert incompatibilities(A, [text, A], "BACKWARD") == []
    assert len(incompatibilities(A, [text, A], "BACKWARD_TRANSITIVE")) == 1
    assert incompatibilities(A, [], "FULL_TRANSITIVE") == []


def test_bad_input_is_named() -> None:
    with pytest.raises(InvalidInputError, match="SIDEWAYS"):
        incompatibilities(A, [A], "SIDEWAYS")
    with pytest.raises(InvalidInputError, match="not valid Avro"):
        incompatibilities({"type": "nonsense"}, [A], "FULL")
