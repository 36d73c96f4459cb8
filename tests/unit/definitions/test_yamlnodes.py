"""Values out of YAML nodes, with lines and problems."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from streams.definitions.yamlnodes import Entries, Reader

if TYPE_CHECKING:
    from collections.abc import Callable


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


def document(text: str) -> tuple[Reader, yaml.Node]:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert node is not None
    return Reader("a.yaml", node), node


def problems(reader: Reader) -> list[str]:
    origin = reader.origin()
    return [origin.describe(problem) for problem in reader.problems]


def test_a_mapping_keeps_the_line_of_each_key() -> None:
    reader, node = document("# first\na: 1\nb:\n  c: 2\n")
    entries = reader.mapping(node, ())
    reader.mapping(entries["b"], ("b",))
    assert list(entries) == ["a", "b"]
    assert reader.origin().lines == {(): 2, ("a",): 2, ("b",): 3, ("b", "c"): 4}
    assert reader.origin().line(("b", "none")) == 3
    assert not reader.problems


def test_repeated_and_unknown_keys_are_problems_and_the_first_value_counts() -> None:
    reader, node = document("size: 1\nsize: 2\nseize: 3\n")
    entries = reader.mapping(node, (), ["size"])
    assert entries["size"].value == "1"
    assert problems(reader) == [
        "a.yaml:1: size: is given twice, here and in line 2",
        "a.yaml:3: seize: unknown key: did you mean 'size'?",
    ]


@pytest.mark.parametrize("text", ["[a]", "a", "3"])
def test_what_is_no_mapping_has_no_entries(text: str) -> None:
    reader, node = document(text)
    assert reader.mapping(node, ("x",)) == {}
    assert problems(reader) == ["a.yaml:1: x: needs to be a mapping of keys to values"]


READ: dict[str, Callable[[Reader, yaml.Node], Any]] = {
    "text": lambda reader, node: reader.text(node, ("x",)),
    "sql": lambda reader, node: reader.sql(node, ("x",)),
    "unquoted": lambda reader, node: reader.unquoted(node, ("x",), "a version"),
    "field_names": lambda reader, node: reader.field_names(node, ("x",)),
    "duration": lambda reader, node: reader.duration(node, ("x",)),
    "number": lambda reader, node: reader.number(node, ("x",)),
    "whole_number": lambda reader, node: reader.whole_number(node, ("x",)),
    "choice": lambda reader, node: reader.choice(node, ("x",), Size),
}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("text", "a b", "a b"),
        ("text", "'7'", "7"),
        ("sql", "1", "1"),
        ("unquoted", "1.0", "1.0"),
        ("field_names", "[a, b]", ("a", "b")),
        ("field_names", "[]", ()),
        ("duration", "90s", 90_000),
        ("number", "1e-3", 0.001),
        ("number", "5", 5.0),
        ("whole_number", "5", 5),
        ("choice", "large", Size.LARGE),
    ],
)
def test_a_value(kind: str, text: str, value: object) -> None:
    reader, node = document(text)
    assert READ[kind](reader, node) == value
    assert not reader.problems


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("text", "7", "needs text; '7' is none (quote it if it is meant as text)"),
        ("text", "[a]", "needs text; this is none (quote it if it is meant as text)"),
        ("text", r'"\ud800"', "has a character that UTF-8 can't hold (a lone surrogate)"),
        ("sql", "true", "needs an SQL expression, in quotes"),
        ("unquoted", "2026-01-01", "needs a version"),
        ("field_names", "a", "needs a list of field names, such as [origin]"),
        ("duration", "10", "10 has no unit: write one of ms, s, m, h, d after it"),
        ("duration", "{}", "needs a duration such as 10m or 24h"),
        ("number", "high", "'high' is no number"),
        ("whole_number", "1.5", "'1.5' is no whole number"),
        ("choice", "huge", "'huge' is not allowed: one of small, large"),
    ],
)
def test_a_wrong_value_is_a_problem_and_none(kind: str, text: str, message: str) -> None:
    reader, node = document(text)
    assert READ[kind](reader, node) is None
    assert problems(reader) == [f"a.yaml:1: x: {message}"]


def test_of_a_list_the_names_that_are_none_are_left_out() -> None:
    reader, node = document("[a, 1, b]")
    assert reader.field_names(node, ()) == ("a", "b")
    assert len(reader.problems) == 1


def test_entries_have_defaults_unless_they_are_needed() -> None:
    reader, node = document("a: 1m\nb: ~\nc: 10\n")
    entries = Entries(reader, (), reader.mapping(node, ()))
    assert entries.need("a", reader.duration, 0) == 60_000
    assert entries.get("b", reader.duration, 5) == 5
    assert entries.get("d", reader.duration, None) is None
    assert not reader.problems
    assert entries.get("c", reader.duration, 7) == 7
    assert entries.need("d", reader.duration, 8) == 8
    assert problems(reader) == [
        "a.yaml:3: c: 10 has no unit: write one of ms, s, m, h, d after it",
        "a.yaml:1: d is missing",
    ]
