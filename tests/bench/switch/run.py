"""The command line of `scripts/bench switch`, and what it prints."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from tests.bench.load import HOURS, LEAST_EVENTS, PARTITIONS
from tests.bench.switch.hot import switch_under_load
from tests.bench.switch.restoring import restore_ms
from tests.bench.switch.sharing import measure_throughput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.systems import Bench

FEWEST_ROWS = HOURS * PARTITIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured: rows of the large and the small state, switches over each, events a
    throughput is measured over, and rounds of the steady load a second."""

    rows: int = 5_000_000
    small_rows: int = 50_000
    switches: int = 40
    events: int = 3_000_000
    rounds_per_s: float = 20.0


QUICK = Sizes(rows=20_000, small_rows=2_000, switches=2, events=40_000, rounds_per_s=40.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is printed; docs/benchmark.md says what each figure is."""

    rows: int
    small_rows: int
    switches: int
    checkpoints: int
    hot_p50_ms: float
    hot_p99_ms: float
    hot_small_p50_ms: float
    hot_small_p99_ms: float
    size_ratio: float
    longest_gap_ms: float
    switch_gap_ms: float
    checkpoint_gap_ms: float
    longest_gap_quiet_ms: float
    longest_gap_small_ms: float
    one_events_per_s: float
    shared_ratio: float
    disjoint_ratio: float
    restore_ms: float
    restore_small_ms: float
    replay_events_per_s: float
    replay_ratio: float


def run(bench: Bench, sizes: Sizes) -> Report:
    """Measure it all, and check every output. Raises RewindowError if one is wrong."""
    rate, switches = sizes.rounds_per_s, sizes.switches
    hot, restores = {}, {}
    for rows in (sizes.small_rows, sizes.rows):
        app, hot[rows] = switch_under_load(bench, rows=rows, switches=switches, rounds_per_s=rate)
        bench.say("restoring from a checkpoint")
        restores[rows] = restore_ms(app)
    small, large = hot[sizes.small_rows], hot[sizes.rows]
    throughput = measure_throughput(bench, sizes.events)
    return Report(
        rows=sizes.rows,
        small_rows=sizes.small_rows,
        switches=switches,
        hot_p50_ms=round(large.at(0.5), 1),
        hot_p99_ms=round(large.at(0.99), 1),
        hot_small_p50_ms=round(small.at(0.5), 1),
        hot_small_p99_ms=round(small.at(0.99), 1),
        size_ratio=round(large.at(0.5) / small.at(0.5), 2),
        longest_gap_ms=round(max(large.switch_gap_ms, large.checkpoint_gap_ms), 1),
        switch_gap_ms=round(large.switch_gap_ms, 1),
        checkpoint_gap_ms=round(large.checkpoint_gap_ms, 1),
        longest_gap_quiet_ms=round(large.quiet_gap_ms, 1),
        longest_gap_small_ms=round(max(small.switch_gap_ms, small.checkpoint_gap_ms), 1),
        checkpoints=large.checkpoints,
        one_events_per_s=round(throughput.events_per_s["one"]),
        shared_ratio=round(throughput.ratio("shared"), 2),
        disjoint_ratio=round(throughput.ratio("disjoint"), 2),
        restore_ms=round(restores[sizes.rows], 1),
        restore_small_ms=round(restores[sizes.small_rows], 1),
        replay_events_per_s=round(throughput.replay_per_s),
        replay_ratio=round(throughput.replay_ratio, 2),
    )


def parse(arguments: Sequence[str]) -> tuple[Sizes, bool]:
    """What to measure, and whether to print JSON. Exits with 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench switch",
        description="What switching versions costs, and what many live versions cost.",
    )
    parser.add_argument("--rows", type=at_least(FEWEST_ROWS), help="of the large state")
    parser.add_argument("--small-rows", type=at_least(FEWEST_ROWS), help="of the small state")
    parser.add_argument("--switches", type=at_least(2), help="over each state")
    parser.add_argument("--events", type=at_least(LEAST_EVENTS), help="for each throughput")
    parser.add_argument("--quick", action="store_true", help="all of it tiny: figures mean little")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = vars(parser.parse_args(arguments))
    as_json, quick = given.pop("json"), given.pop("quick")
    sizes = QUICK if quick else Sizes()
    return replace(sizes, **{name: it for name, it in given.items() if it is not None}), as_json


def show(report: Report, *, as_json: bool) -> None:
    """Print it."""
    figures = asdict(report)
    if as_json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:<22} {figure:>14,}")


def at_least(least: int) -> Callable[[str], int]:
    """For argparse: a whole number, not below `least`."""

    def number(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if found < least:
            raise argparse.ArgumentTypeError(f"at least {least}")
        return found

    return number
