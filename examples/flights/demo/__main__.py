"""Run the demo: start, produce, work, judge, show. `rollback` is told in rollback/rehearsal.py.

1. Start the judges, who work out what must come out before anything has.
2. Start Kafka and the registry, register `schemas/`, produce the flights.
3. Publish the feature sets and run a worker until the whole source is silent and closed.
4. Stop the worker, let the judges read the topics and compare.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from rich.console import Console
from rich.markup import escape

from examples.flights.data import PARTITIONS
from examples.flights.demo.judge import Case, Judge
from examples.flights.demo.report import Findings, Screen, print_next
from examples.flights.demo.rollback import report as rollback_report
from examples.flights.demo.rollback.rehearsal import rehearse
from examples.flights.demo.rollback.stage import publish
from examples.flights.demo.sent import SCHEMA, Sent, check_dead, place_of, sent
from examples.flights.demo.site import FEATURES, FLIGHTS, Site, site
from examples.flights.demo.topics import read_topic
from examples.flights.demo.work import Task, Worked, work
from examples.flights.produce import produce_flights
from streams.definitions.load import load_files
from streams.devstack import Addresses
from streams.errors import InvalidInputError, RewindowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.flights.demo.judge import Verdict
    from examples.flights.demo.topics import Seen
    from streams.definitions.model import FeatureSet

FLIGHTS_IN_A_YEAR = 336_776
BAD_COPIES = 5
INTERRUPTED_EXIT_CODE = 130
"""That of a shell for a program ended by Ctrl-C."""


def main() -> None:
    """Command line of the demo: exits with 0 only if every number is right."""
    arguments = _arguments()
    console = Console(stderr=True)
    # Whoever ends us means the servers and the worker too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        findings = PLAYS[arguments.play](arguments, console)
    except RewindowError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(error.exit_code)
    except KafkaException as error:
        console.print(f"[bold red]error:[/] Kafka: {escape(str(error))}", highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted: all is stopped", highlight=False)
        sys.exit(INTERRUPTED_EXIT_CODE)
    if arguments.json:
        print(findings.as_json())
    sys.exit(1 if findings.failed else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Stream a year of flights through a real Kafka and check every feature.",
        epilog="`rollback`: three versions take over from each other and are taken back meanwhile, "
        "and bad events are left out after they have been counted.",
    )
    parser.add_argument("play", nargs="?", choices=PLAYS, default="year", help="default: year")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--keep", action="store_true", help="leave Kafka, registry and topics")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N flights")
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="a Kafka of yours")
    parser.add_argument("--registry-url", metavar="URL", help="a schema registry of yours")
    return parser.parse_args()


def _given(arguments: argparse.Namespace) -> Addresses | None:
    servers = arguments.bootstrap_servers or os.environ.get("REWINDOW_BOOTSTRAP_SERVERS")
    url = arguments.registry_url or os.environ.get("REWINDOW_REGISTRY_URL")
    if servers and url:
        return Addresses(bootstrap_servers=servers, registry_url=url)
    if servers or url:
        raise InvalidInputError("name both --bootstrap-servers and --registry-url, or none")
    return None


def _run(arguments: argparse.Namespace, console: Console) -> Findings:
    given = _given(arguments)
    loaded = load_files([FLIGHTS / "sources" / "flights.yaml", *FEATURES])
    screen = Screen(console)
    with contextlib.ExitStack() as stack:
        # 1
        judges = {
            one.name: stack.enter_context(contextlib.closing(Judge(_case(one, arguments.limit))))
            for one in loaded.feature_sets
        }
        # 2
        with screen.phase("stack", "Kafka and schema registry", shows_itself=True):
            place = stack.enter_context(site(given=given, keep=arguments.keep))
        with screen.phase("schemas", "Schemas"):
            place.register_schemas()
        contents = _produce(screen, place, arguments.limit)
        with screen.phase("publish", "Feature sets"):
            publish(place, *place.definitions)
        # 3
        task = Task(
            place=place,
            source=loaded.sources[0],
            sets=loaded.feature_sets,
            contents=contents,
        )
        worked = work(task, judges, screen)
        # 4
        with screen.phase("judging", "Comparison with the reference model"):
            for judge in judges.values():
                judge.finish()
            verdicts = [judge.verdict() for judge in judges.values()]
            dead = read_topic(place.client, place.names.dlq_topic)
        findings = _findings(task, worked, verdicts, dead, screen.seconds)
        findings.print(console)
        print_next(console, place, kept=arguments.keep, own=given is None)
    return findings


def _rollback(arguments: argparse.Namespace, console: Console) -> rollback_report.Findings:
    given = _given(arguments)
    findings = rehearse(Screen(console), given=given, keep=arguments.keep, limit=arguments.limit)
    findings.print(console)
    own = given is None
    rollback_report.print_next(console, findings.place, kept=arguments.keep, own=own)
    return findings


Play = Callable[[argparse.Namespace, Console], Findings | rollback_report.Findings]

PLAYS: Mapping[str, Play] = {"year": _run, "rollback": _rollback}


def _case(one: FeatureSet, limit: int | None) -> Case:
    return Case(
        definitions=(FLIGHTS / "sources" / "flights.yaml", *FEATURES),
        feature_set=one.name,
        source_partitions=PARTITIONS,
        limit=limit,
        bad_copies=BAD_COPIES,
    )


def _produce(screen: Screen, place: Site, limit: int | None) -> Sent:
    total = limit or FLIGHTS_IN_A_YEAR
    with screen.phase("producing", "Flights, and bad records among them", total=total) as so_far:
        produced = produce_flights(
            place.client["bootstrap.servers"],
            place.addresses.registry_url,
            place.flights_topic,
            limit=limit,
            bad_copies=BAD_COPIES,
            schema_version=SCHEMA,
            client=place.client,
            progress=so_far,
        )
    return sent(produced.flights, produced.bad)


def _findings(
    task: Task,
    worked: Worked,
    verdicts: Sequence[Verdict],
    dead: Sequence[Seen],
    seconds: Mapping[str, float],
) -> Findings:
    differences = check_dead(dead, task.contents.bad)
    if worked.unfinished is not None:
        differences.add(worked.unfinished)
    wanted = task.source_ends
    for verdict in verdicts:
        differences.add_all(verdict.differences)
        wanted |= task.ends(verdict.feature_set, verdict.last_offsets)
    busy_s = worked.commits.seconds_until(wanted)
    return Findings(
        events=len(task.contents.events),
        verdicts=verdicts,
        dead_letters=len({place_of(record) for record in dead}),
        differences=differences,
        events_per_s=len(task.contents.events) / busy_s if busy_s else None,
        peak_rss_bytes=worked.peak_rss_bytes,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
