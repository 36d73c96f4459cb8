"""A sensor breaks: absurd delays among the flights, and how a set is defined without them."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from examples.flights.data import Flight
    from streams.definitions.model import FeatureSet

ABSURD = 99_999.0
"""Minutes; no flight of 2013 left as much as a day late."""
CONDITION = "dep_delay >= 99999"
"""What the operator asks to leave out."""
SHARE = 0.05
SEED = 9
CLEANED = "~"
"""Ends the name that the reference model has for a version without the absurd delays."""


def corrupted(flown: Sequence[Flight], begin: float) -> list[Flight]:
    """From the share `begin` of the flights on some of those that left have an absurd delay.

    They are sound in all else: the schema takes them, and they come when they did.
    """
    draw = random.Random(SEED)
    begun = round(begin * len(flown))
    return [
        replace(flight, event={**flight.event, "dep_delay": ABSURD})
        if place >= begun and draw.random() < SHARE and not flight.event["cancelled"]
        else flight
        for place, flight in enumerate(flown)
    ]


def is_absurd(event: Mapping[str, object]) -> bool:
    """Whether the event has a delay that can't be."""
    return event["dep_delay"] == ABSURD


def without(definition: FeatureSet) -> FeatureSet:
    """The version as the reference model knows it once the absurd delays are left out."""
    return replace(
        definition,
        version=f"{definition.version}{CLEANED}",
        where=f"({definition.where or 'TRUE'}) AND NOT COALESCE({CONDITION}, 0)",
    )
