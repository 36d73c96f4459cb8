"""What a chaos run does, as a pure function of its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

PLACES = ("in_batch", "in_transaction", "before_flush", "in_recovery")
"""Every run of as many kills or more kills at each of these."""

OTHER_PLACES = ("in_flush", "in_claim", "after_commit")
RANDOM = "random"

SHARE_AT_PLACES = 0.6
FEW_TIMES = 4
LONGEST_LIFE_S = 7.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill: at the `count`-th arrival at a named place, or so long after the start."""

    place: str
    count: int = 1
    after_s: float = 0.0


def plan(kills: int, seed: int) -> list[Kill]:
    """`kills` kills, those at places and those at random moments mixed."""
    draw = random.Random(seed)
    at_places = max(min(kills, len(PLACES)), int(kills * SHARE_AT_PLACES))
    order = [*PLACES, *OTHER_PLACES, *PLACES]
    places = [order[number % len(order)] for number in range(at_places)]
    places += [RANDOM] * (kills - at_places)
    draw.shuffle(places)
    return [_kill(draw, place) for place in places]


def _kill(draw: random.Random, place: str) -> Kill:
    if place == RANDOM:
        return Kill(place=place, after_s=round(draw.uniform(0.2, LONGEST_LIFE_S), 2))
    # A worker flushes only every few seconds, and recovers each partition once.
    often = place in ("in_batch", "in_transaction", "after_commit")
    return Kill(place=place, count=draw.randint(1, 40 if often else FEW_TIMES))
