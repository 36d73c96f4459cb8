"""What differs between two versions, field by field."""

from __future__ import annotations

from dataclasses import replace

from streams.definitions.differ import FieldChange, differences
from streams.definitions.model import Emit, Function
from tests.small import feature, feature_set

FIRST = feature_set(feature("n"), feature("gone"), feature("same"))


def test_a_version_does_not_differ_from_itself() -> None:
    found = differences(FIRST, replace(FIRST, version="2.0.0"))
    assert (found.fields, found.changed, found.added, found.removed) == ((), (), (), ())
    assert found.same == ("gone", "n", "same")
    assert found.parts == ()


def test_features_come_go_and_change() -> None:
    after = feature_set(
        feature("n", Function.SUM, "x", 20, where="x > 1"), feature("new"), feature("same")
    )
    found = differences(FIRST, after)
    assert (found.added, found.removed, found.same) == (("new",), ("gone",), ("same",))
    (changed,) = found.changed
    assert (changed.name, changed.fields) == (
        "n",
        (
            FieldChange(field="function", before="count", after="sum"),
            FieldChange(field="expression", before=None, after="x"),
            FieldChange(field="window", before="10ms", after="20ms"),
            FieldChange(field="where", before=None, after="x > 1"),
        ),
    )
    assert found.parts == ("features.gone", "features.n", "features.new")


def test_fields_of_the_set_are_named_and_written_as_users_do() -> None:
    after = replace(
        FIRST,
        every_ms=60_000,
        entity=("who", "where"),
        emit=Emit.UPDATES,
        where="x > 1",
        owner="me",
    )
    found = {one.field: (one.before, one.after) for one in differences(FIRST, after).fields}
    assert found == {
        "every": ("10ms", "1m"),
        "entity": ("[who]", "[who, where]"),
        "emit": ("final", "updates"),
        "where": (None, "x > 1"),
        "owner": ("", "me"),
    }
    assert differences(FIRST, after).parts == ("entity", "every", "emit", "where")
