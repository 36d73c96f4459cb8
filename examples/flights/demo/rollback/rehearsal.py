"""Run the rollback demo: versions that switch, the way back, and bad events left out, under load.

1. Start Kafka and the registry, publish 1.0.0, run a worker, begin to produce.
2. When the worker has come to a mark, publish 1.1.0 and activate it while flights go on coming.
3. The same with 2.0.0, which is bad.
4. Take it back, with a message that any Kafka client could send, which also asks that what 2.0.0
   has said is said again.
5. A while later a sensor has broken, and absurd delays are counted. Leave them out, with another
   such message: the panes are made anew without them, and what was said with them is said again.
6. Produce the rest, in which the sensor is still broken, stop the worker, read the feature topic
   and compare.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from examples.flights.data import flights
from examples.flights.demo.rollback.asking import Operator
from examples.flights.demo.rollback.corrupting import (
    CLEANED,
    CONDITION,
    corrupted,
    is_absurd,
    without,
)
from examples.flights.demo.rollback.judging import expect, judge, read_found
from examples.flights.demo.rollback.producing import Producing
from examples.flights.demo.rollback.report import Findings, Switched
from examples.flights.demo.rollback.stage import Act, Stage, publish
from examples.flights.demo.sent import sent
from examples.flights.demo.site import FLIGHTS, site
from streams.definitions.load import load_files
from tests.integration.pipeline_check import Cut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.flights.demo.report import Screen
    from examples.flights.demo.rollback.asking import Asked
    from streams.devstack import Addresses

SOURCE = FLIGHTS / "sources" / "flights.yaml"
FIRST = FLIGHTS / "features" / "origin_departures.yaml"
NEXT = FLIGHTS / "versions" / "origin_departures-1.1.0.yaml"
BAD = FLIGHTS / "versions" / "origin_departures-2.0.0.yaml"

NEVER_SILENT: Mapping[str, str | None] = {"idle_after": "1d", "close_after": None}
"""What closes is then a function of the flights alone: the reference needs no clock."""

ACTS = (
    Act(
        name="activate_next",
        title="Version 1.1.0 is published and takes over",
        mark=0.20,
        end=0.32,
        publish=NEXT,
        wishes={"action": "activate", "target": "1.1.0", "reason": "longer windows"},
    ),
    Act(
        name="activate_bad",
        title="Version 2.0.0 is published and takes over: it is bad",
        mark=0.40,
        end=0.52,
        publish=BAD,
        wishes={"action": "activate", "target": "2.0.0", "reason": "delays in seconds"},
    ),
    Act(
        name="rollback",
        title="A plain Kafka client takes it back",
        mark=0.60,
        end=0.72,
        publish=None,
        wishes={"action": "rollback", "reason": "delays are negative", "repair": True},
    ),
    Act(
        name="exclude",
        title="It leaves out the events of a broken sensor",
        mark=0.80,
        end=0.92,
        publish=None,
        wishes={"action": "rollback", "reason": "broken sensor", "exclude": {"where": CONDITION}},
    ),
)
BROKEN_FROM = 0.75
"""The share of the flights after which the sensor is broken."""


def rehearse(screen: Screen, *, given: Addresses | None, keep: bool, limit: int | None) -> Findings:
    """Run it to its end; what was found.

    Raises `RewindowError` and `KafkaException` where it does not come to its end.
    """
    loaded = [load_files([SOURCE, file]) for file in (FIRST, NEXT, BAD)]
    source, versions = loaded[0].sources[0], [one.feature_sets[0] for one in loaded]
    name = versions[0].name
    flown = corrupted(flights(limit=limit), BROKEN_FROM)
    with contextlib.ExitStack() as stack:
        # 1
        with screen.phase("stack", "Kafka and schema registry", shows_itself=True):
            place = stack.enter_context(
                site(given=given, keep=keep, features=(FIRST,), lifecycle=NEVER_SILENT)
            )
        with screen.phase("publish", "Schemas, and version 1.0.0"):
            place.register_schemas()
            url = place.addresses.registry_url
            producing = Producing(place.client, url, place.flights_topic, flown)
            publish(place, *place.definitions)
        operator = stack.enter_context(Operator(place, name))
        with Stage(screen, place, flown, producing, operator) as stage:
            # 2, 3, 4, 5
            asked = [stage.play(act) for act in ACTS]
            # 6
            stage.finish()
        cuts = [_cut(name, act, one) for act, one in zip(ACTS, asked, strict=True)]
        with screen.phase("judging", "Comparison with the reference model"):
            cleaned = without(versions[1])
            expected = expect([*versions, cleaned], source, sent(flown, ()), cuts)
            verdict = judge(expected, versions, read_found(versions, place))
        return Findings(
            place=place,
            events=len(flown),
            excluded_events=sum(is_absurd(flight.event) for flight in flown),
            switches={
                act.name: Switched(
                    asked=one,
                    open_windows=number,
                    changed=verdict.changed[one.replaced] if cut.repair else None,
                )
                for act, one, cut, number in zip(
                    ACTS, asked, cuts, expected.open_windows, strict=True
                )
            },
            verdict=verdict,
            seconds=screen.seconds,
        )


def _cut(name: str, act: Act, asked: Asked) -> Cut:
    """The switch as the reference model makes it."""
    cleaned = "exclude" in act.wishes
    return Cut(
        feature_set=name,
        version=f"{asked.target}{CLEANED if cleaned else ''}",
        offsets=asked.cut,
        repair=cleaned or "repair" in act.wishes,
    )
