"""Whether definitions fit the events' schema."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from streams.definitions.model import (
    EventTime,
    Feature,
    FeatureSet,
    Function,
    Source,
    TimeUnit,
)
from streams.definitions.validate import (
    check_feature_set,
    check_source_fields,
    output_dtype,
    output_dtypes,
)

FIELDS = {
    "origin": pl.String(),
    "at": pl.Datetime("ms"),
    "day": pl.Date(),
    "delay": pl.Int32(),
    "distance": pl.Float64(),
    "cancelled": pl.Boolean(),
}
UNSUPPORTED = {"price": "decimal is not supported", "raw": "bytes is not supported"}
SOURCE = Source(
    name="flights", topic="flights", schema="flights-value", event_time=EventTime(field="at")
)


def feature(function: Function, expression: str | None, where: str | None = None) -> Feature:
    q = 0.5 if function is Function.QUANTILE else None
    k = 3 if function is Function.TOP_K else None
    return Feature(
        name="a", function=function, expression=expression, window_ms=1, where=where, q=q, k=k
    )


def feature_set(*features: Feature) -> FeatureSet:
    return FeatureSet(
        name="one", version="1.0.0", source="flights", entity=("origin",), every_ms=1,
        features=features,
    )  # fmt: skip


def problems(definition: FeatureSet) -> list[str]:
    return [str(one) for one in check_feature_set(definition, SOURCE, FIELDS, UNSUPPORTED)]


@pytest.mark.parametrize("function", list(Function))
def test_every_function_takes_whole_numbers(function: Function) -> None:
    assert problems(feature_set(feature(function, "delay"))) == []


@pytest.mark.parametrize(
    ("function", "expression", "expected"),
    [
        (Function.SUM, "cancelled", "features.a.sum: sum needs a number, not true or false: write"),
        (Function.MEAN, "origin", "features.a.mean: mean needs a number, not text: write CAST"),
        (Function.QUANTILE, "at", "quantile needs a number, not a timestamp"),
        (Function.VARIANCE, "day", "variance needs a number, not a date"),
        (Function.TOP_K, "distance", "top_k needs text, whole numbers or true/false, not a float"),
        (Function.MIN, "price", "features.a.min: can't use field 'price': decimal is not supp"),
        (Function.MIN, "dealy", "features.a.min: unknown field 'dealy': did you mean 'delay'?"),
    ],
)
def test_an_expression_that_does_not_fit_its_function(
    function: Function, expression: str, expected: str
) -> None:
    (problem,) = problems(feature_set(feature(function, expression)))
    assert expected in problem


def test_filters_are_checked_with_their_places() -> None:
    wrong = replace(feature_set(feature(Function.COUNT, None, where="delay")), where="NOT canceled")
    assert problems(wrong) == [
        "where: unknown field 'canceled': did you mean 'cancelled'?",
        "features.a.where: a filter needs to be true or false, this is a whole number: compare it",
    ]


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        ("orgin", "entity: unknown field 'orgin': did you mean 'origin'?"),
        ("distance", "entity: field 'distance' is a floating number, which can't name an entity"),
        ("raw", "entity: can't use field 'raw': bytes is not supported"),
    ],
)
def test_an_entity_that_does_not_fit(entity: str, expected: str) -> None:
    (problem,) = problems(replace(feature_set(feature(Function.COUNT, None)), entity=(entity,)))
    assert problem.startswith(expected)


@pytest.mark.parametrize("entity", ["origin", "at", "day", "delay", "cancelled"])
def test_types_that_can_name_an_entity(entity: str) -> None:
    assert not problems(replace(feature_set(feature(Function.COUNT, None)), entity=(entity,)))


@pytest.mark.parametrize(
    ("field", "unit", "expected"),
    [
        ("at", TimeUnit.AVRO, None),
        ("delay", TimeUnit.S, None),
        ("delay", TimeUnit.AVRO, "event_time: field 'delay' is a whole number: use a timestamp-"),
        ("at", TimeUnit.MS, "event_time: field 'at' is a timestamp: a unit needs an int or long"),
        ("distance", TimeUnit.S, "a unit needs an int or long"),
        ("att", TimeUnit.AVRO, "event_time: unknown field 'att': did you mean 'at'?"),
    ],
)
def test_the_event_time_of_a_source(field: str, unit: TimeUnit, expected: str | None) -> None:
    source = replace(SOURCE, event_time=EventTime(field=field, unit=unit))
    found = [str(problem) for problem in check_source_fields(source, FIELDS)]
    if expected is None:
        assert found == []
    else:
        assert expected in found[0]


def test_the_key_of_a_source_needs_known_fields() -> None:
    (problem,) = check_source_fields(replace(SOURCE, key=("orign",)), FIELDS)
    assert str(problem) == "key: unknown field 'orign': did you mean 'origin'?"


@pytest.mark.parametrize(
    ("function", "given", "expected"),
    [
        (Function.COUNT, None, pl.Int64()),
        (Function.APPROX_DISTINCT, pl.String(), pl.Int64()),
        (Function.SUM, pl.Int32(), pl.Int64()),
        (Function.SUM, pl.Float32(), pl.Float64()),
        (Function.MEAN, pl.Int64(), pl.Float64()),
        (Function.STDDEV, pl.Int64(), pl.Float64()),
        (Function.QUANTILE, pl.Int64(), pl.Float64()),
        (Function.MIN, pl.Int32(), pl.Int32()),
        (Function.LAST, pl.String(), pl.String()),
        (
            Function.TOP_K,
            pl.String(),
            pl.List(pl.Struct({"value": pl.String(), "count": pl.Int64()})),
        ),
    ],
)
def test_the_type_that_comes_out(
    function: Function, given: pl.DataType | None, expected: pl.DataType
) -> None:
    assert output_dtype(function, given) == expected


def test_types_of_a_set_come_in_name_order() -> None:
    second = replace(feature(Function.COUNT, None), name="a2")
    first = replace(feature(Function.MEAN, "delay"), name="a1")
    assert list(output_dtypes(feature_set(second, first), FIELDS).items()) == [
        ("a1", pl.Float64()),
        ("a2", pl.Int64()),
    ]
