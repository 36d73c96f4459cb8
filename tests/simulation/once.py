"""What many processes of a run work out from the same bytes or definitions, done once.

All of it gives the same for the same, and nobody changes what it gives.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from streams.control import codec
from streams.definitions import plan
from streams.schema.types import field_types
from tests.simulation import catalog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.control.records import Ack, ControlRecord
    from streams.definitions.exclusions import Exclusion
    from streams.definitions.model import FeatureSet, Source
    from streams.definitions.plan import Plan

_control = lru_cache(maxsize=10_000)(codec.decode_control)
_ack = lru_cache(maxsize=10_000)(codec.decode_ack)


def decode_control(value: bytes, writer: Mapping[str, Any] | None = None) -> ControlRecord:
    """As that of the codec."""
    return _control(value) if writer is None else codec.decode_control(value, writer)


def decode_ack(value: bytes, writer: Mapping[str, Any] | None = None) -> Ack:
    """As that of the codec."""
    return _ack(value) if writer is None else codec.decode_ack(value, writer)


@lru_cache(maxsize=10_000)
def _plans(versions: tuple[FeatureSet, ...], exclusions: tuple[Exclusion, ...]) -> tuple[Plan, ...]:
    return plan.plan_versions(versions, catalog.SOURCE, _FIELDS, exclusions)


_FIELDS = field_types(catalog.SCHEMA)


def plan_versions(
    versions: Sequence[FeatureSet],
    source: Source,
    fields: Mapping[str, Any],
    exclusions: Sequence[Exclusion] = (),
) -> tuple[Plan, ...]:
    """As that of the definitions."""
    assert source == catalog.SOURCE
    assert fields == _FIELDS
    return _plans(tuple(versions), tuple(exclusions))
