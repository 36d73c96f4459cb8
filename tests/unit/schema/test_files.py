"""A project's schema files and its compatibility rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streams.errors import InvalidInputError
from streams.schema.files import compatibility_level, read_schema

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "1: is not JSON"),
        ('{"type": "record", "name": "A"}', "not valid Avro"),
        ('{"type": "nosuch"}', "not valid Avro"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_file(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "v0001.avsc"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=rf"v0001\.avsc:.*{words}"):
        read_schema(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="can't be read"):
        read_schema(tmp_path / "nosuch.avsc")


def test_a_bare_name_is_a_schema(tmp_path: Path) -> None:
    file = tmp_path / "key.avsc"
    file.write_text('"string"')
    assert read_schema(file) == {"type": "string"}


def test_the_level_is_the_subjects_then_the_default_then_backward(tmp_path: Path) -> None:
    rules = tmp_path / "compatibility.toml"
    file = tmp_path / "orders-value" / "v0001.avsc"
    file.parent.mkdir()
    assert compatibility_level(file, "orders-value") is None
    rules.write_text("[subjects]\n'orders-value' = 'FULL'\n")
    assert compatibility_level(file, "orders-value") == "FULL"
    assert compatibility_level(file, "other-value") == "BACKWARD"
    rules.write_text("default = 'NONE'\n")
    assert compatibility_level(file, "orders-value") == "NONE"
    (file.parent / "compatibility.toml").write_text("default = 'FORWARD'\n")
    assert compatibility_level(file, "orders-value") == "FORWARD"


@pytest.mark.parametrize("text", ["default = 'SOMETIMES'", "default =", "default = 1"])
def test_wrong_rules_are_refused_with_their_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "compatibility.toml").write_text(text)
    with pytest.raises(InvalidInputError, match=r"compatibility\.toml"):
        compatibility_level(tmp_path / "v0001.avsc", "a-value")
