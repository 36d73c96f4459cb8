"""Run the rollback demo: three versions, two switches and the way back, under load.

1. Start Kafka and the registry, publish 1.0.0, run a worker, begin to produce.
2. When the worker has come to a mark, publish 1.1.0 and activate it while flights go on coming.
3. The same with 2.0.0, which is bad.
4. Take it back, with a message that any Kafka client could send, which also asks that what 2.0.0
   has said is said again.
5. Produce the rest, stop the worker, read the feature topic and compare.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from examples.flights.data import flights
from examples.flights.demo.rollback.asking import Operator
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
        mark=0.30,
        end=0.45,
        publish=NEXT,
        wishes={"action": "activate", "target": "1.1.0", "reason": "longer windows"},
    ),
    Act(
        name="activate_bad",
        title="Version 2.0.0 is published and takes over: it is bad",
        mark=0.50,
        end=0.65,
        publish=BAD,
        wishes={"action": "activate", "target": "2.0.0", "reason": "delays in seconds"},
    ),
    Act(
        name="rollback",
        title="A plain Kafka client takes it back",
        mark=0.70,
        end=0.85,
        publish=None,
        wishes={"action": "rollback", "reason": "delays are negative", "repair": True},
    ),
)


def rehearse(screen: Screen, *, given: Addresses | None, keep: bool, limit: int | None) -> Findings:
    """Run it to its end; what was found.

    Raises `RewindowError` and `KafkaException` where it does not come to its end.
    """
    loaded = [load_files([SOURCE, file]) for file in (FIRST, NEXT, BAD)]
    source, versions = loaded[0].sources[0], [one.feature_sets[0] for one in loaded]
    name = versions[0].name
    flown = flights(limit=limit)
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
            # 2, 3, 4
            asked = [stage.play(act) for act in ACTS]
            # 5
            stage.finish()
        cuts = [
            Cut(
                feature_set=name,
                version=one.target,
                offsets=one.cut,
                repair=bool(act.wishes.get("repair")),
            )
            for act, one in zip(ACTS, asked, strict=True)
        ]
        with screen.phase("judging", "Comparison with the reference model"):
            expected = expect(versions, source, sent(flown, ()), cuts)
            verdict = judge(expected, versions, read_found(versions, place))
        return Findings(
            place=place,
            events=len(flown),
            switches=[
                Switched(asked=one, open_windows=number)
                for one, number in zip(asked, expected.open_windows, strict=True)
            ],
            verdict=verdict,
            seconds=screen.seconds,
        )
