"""`scripts/bench`: figures of rewindow beside those of its peers."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streams.errors import RewindowError
from tests.bench.load import LEAST_EVENTS
from tests.bench.switch import run as switching
from tests.bench.systems import Bench, Result, run_faust, run_rewindow
from tests.integration.kafka_tools import KafkaTools
from tests.servers import INTERRUPTED_EXIT_CODE, end_in_order, some_servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EVENTS = 3_000_000
PEER_EVENTS = 300_000
SECONDS = 900.0
PEERS = {"faust": run_faust}


def main() -> None:
    """Run the systems one after the other, check what they put out, print the figures."""
    end_in_order()
    try:
        if sys.argv[1:2] == ["switch"]:
            _switch(sys.argv[2:])
        else:
            _compare(_arguments())
    except RewindowError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("interrupted: all is stopped")
        sys.exit(INTERRUPTED_EXIT_CODE)


def _switch(arguments: Sequence[str]) -> None:
    sizes, as_json = switching.parse(arguments)
    with _bench() as bench:
        report = switching.run(bench, sizes)
    switching.show(report, as_json=as_json)


def _compare(arguments: argparse.Namespace) -> None:
    report = _run(arguments)
    if arguments.json:
        print(json.dumps(report))
    else:
        _print_table(report)


@contextlib.contextmanager
def _bench() -> Iterator[Bench]:
    _say("starting Kafka and registry, unless yours are given")
    with some_servers() as addresses, tempfile.TemporaryDirectory(prefix="rewindow-") as directory:
        yield Bench(
            kafka=KafkaTools(addresses),
            directory=Path(directory),
            prefix=f"bench{uuid.uuid4().hex[:8]}",
            seconds=SECONDS,
            say=_say,
        )


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    with _bench() as bench:
        peers = {name: PEERS[name](bench, arguments.peer_events) for name in arguments.peers}
        ours = run_rewindow(bench, arguments.events)
    return _report(ours, peers)


def _report(ours: Result, peers: dict[str, Result]) -> dict[str, Any]:
    systems = {name: result.as_json() for name, result in {"rewindow": ours, **peers}.items()}
    mine = systems["rewindow"]["events_per_s"]
    ratios = {name: round(mine / systems[name]["events_per_s"], 1) for name in peers}
    return {"systems": systems, "ratios": ratios}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        epilog="scripts/bench switch --help: what switching versions costs.",
    )
    parser.add_argument(
        "--peers", type=_peers, default=list(PEERS), help="faust, or none; default: all"
    )
    parser.add_argument("--events", type=_events, default=EVENTS, help="ours")
    parser.add_argument("--peer-events", type=_events, default=PEER_EVENTS, help="each peer's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _peers(text: str) -> list[str]:
    names = [] if text == "none" else text.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PEERS)}, none")
    return names


def _events(text: str) -> int:
    try:
        events = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if events < LEAST_EVENTS:
        raise argparse.ArgumentTypeError(f"at least {LEAST_EVENTS}")
    return events


def _print_table(report: dict[str, Any]) -> None:
    row = "{:<10} {:>12} {:>16} {:>12}  {}"
    print(row.format("system", "events/s", "events/CPU s", "peak MiB", "guarantee"))
    for name, it in report["systems"].items():
        print(
            row.format(
                name,
                f"{it['events_per_s']:,.0f}",
                f"{it['events_per_cpu_s']:,.0f}",
                f"{it['peak_rss_mb']:,.0f}",
                it["guarantee"],
            )
        )
    for name, ratio in report["ratios"].items():
        print(f"rewindow does {ratio} times the events per second of {name}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
