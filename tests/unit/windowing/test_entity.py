"""The text of an entity: one text for each, one entity for each text."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from streams.windowing.entity import SEPARATOR, entity_fields, entity_text

TEXT = pl.String()


def text_of(frame: pl.DataFrame) -> pl.Series:
    return frame.select(entity_text(dict(frame.schema)).alias("text")).to_series()


def there_and_back(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame(entity_fields(text_of(frame), dict(frame.schema)))


def test_a_single_field_is_its_own_text_whatever_is_in_it() -> None:
    values = ["", "EWR", "a\\b", SEPARATOR, "\\s", "ü"]
    frame = pl.DataFrame({"who": values})
    assert text_of(frame).to_list() == values
    assert there_and_back(frame).equals(frame)


def test_several_fields_are_joined() -> None:
    frame = pl.DataFrame({"a": ["x"], "b": [7]})
    assert text_of(frame).to_list() == [f"x{SEPARATOR}7"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((f"x{SEPARATOR}", "y"), ("x", f"{SEPARATOR}y")),
        (("x\\", "sy"), ("x", "\\sy")),
        (("\\", ""), ("", "\\")),
        (("\\s", "a"), (SEPARATOR, "a")),
        (("", ""), (SEPARATOR, "")),
    ],
)
def test_different_entities_have_different_texts(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    frame = pl.DataFrame({"a": [one[0], other[0]], "b": [one[1], other[1]]})
    assert text_of(frame).n_unique() == 2
    assert there_and_back(frame).equals(frame)


def test_separators_and_backslashes_come_back() -> None:
    pieces = ["", "\\", "\\\\", SEPARATOR, "\\s", f"\\{SEPARATOR}", f"{SEPARATOR}\\s\\", "plain"]
    frame = pl.DataFrame(
        {"a": [a for a in pieces for _ in pieces], "b": [b for _ in pieces for b in pieces]}
    )
    assert there_and_back(frame).equals(frame)


def test_an_entity_with_a_null_field_is_none() -> None:
    frame = pl.DataFrame({"a": ["x", None, "x"], "b": ["y", "y", None]})
    assert text_of(frame).to_list() == [f"x{SEPARATOR}y", None, None]
    assert text_of(pl.DataFrame({"a": [None]}, schema={"a": TEXT})).to_list() == [None]


def test_fields_of_every_type_come_back_as_they_were() -> None:
    frame = pl.DataFrame(
        {
            "text": ["ü", ""],
            "number": [-(2**63), 2**63 - 1],
            "flag": [True, False],
            "day": [date(1969, 12, 31), date(2024, 2, 29)],
            "moment": [datetime(1969, 12, 31, 23, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)],
        },
        schema_overrides={"moment": pl.Datetime("ms", "UTC")},
    )
    assert there_and_back(frame).equals(frame)


def test_numbers_and_days_are_decimal_numbers() -> None:
    frame = pl.DataFrame({"n": [-5], "day": [date(1970, 1, 2)], "flag": [True]})
    assert text_of(frame).to_list() == [SEPARATOR.join(("-5", "1", "true"))]
