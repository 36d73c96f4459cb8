"""What the demo shows while it runs, and what it found."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import Console

    from examples.flights.demo.judge import Verdict
    from examples.flights.demo.sent import Differences
    from examples.flights.demo.site import Site

COLUMNS_SHOWN = 6
MIB = 1024 * 1024


class Screen:
    """One line for each phase, on stderr; a spinner while it lasts where somebody looks at it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        """How long each phase took, by its name."""

    @contextlib.contextmanager
    def phase(
        self, name: str, title: str, *, total: int | None = None, shows_itself: bool = False
    ) -> Iterator[Callable[[int], None]]:
        """Show a phase of the demo while the block lasts; it may say how far of `total` it is.

        A phase that `shows_itself` draws on the terminal, which only one can do at a time.
        """
        begun_s = time.monotonic()
        if shows_itself:
            self.console.print(f"     {escape(title)} …", highlight=False)
        with Progress(
            SpinnerColumn(),
            TextColumn("  {task.description}"),
            *(() if total is None else (BarColumn(), MofNCompleteColumn())),
            console=self.console,
            transient=True,
            disable=shows_itself or not self.console.is_terminal,
        ) as progress:
            task = progress.add_task(escape(title), total=total)

            def so_far(completed: int) -> None:
                progress.update(task, completed=completed)

            yield so_far
        took_s = self.seconds[name] = round(time.monotonic() - begun_s, 1)
        self.console.print(f"[green]done[/] {escape(title)} ({took_s} s)", highlight=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that the demo found out."""

    events: int
    verdicts: Sequence[Verdict]
    dead_letters: int
    differences: Differences
    events_per_s: float | None
    peak_rss_bytes: int
    seconds: Mapping[str, float]

    @property
    def failed(self) -> bool:
        """Whether anything is not as it must be."""
        return self.differences.number > 0

    @property
    def vectors(self) -> int:
        return sum(verdict.vectors for verdict in self.verdicts)

    @property
    def late(self) -> int:
        return sum(verdict.late for verdict in self.verdicts)

    @property
    def peak_rss_mb(self) -> float:
        return round(self.peak_rss_bytes / MIB, 1)

    def as_json(self) -> str:
        """One object, for programs."""
        rate = self.events_per_s
        return json.dumps(
            {
                "events": self.events,
                "vectors": self.vectors,
                "vectors_by_set": {one.feature_set: one.vectors for one in self.verdicts},
                "late": self.late,
                "dead_letters": self.dead_letters,
                "mismatches": self.differences.number,
                "first_mismatches": self.differences.first,
                "events_per_s": None if rate is None else round(rate),
                "peak_rss_mb": self.peak_rss_mb,
                "seconds": dict(self.seconds),
            }
        )

    def print(self, console: Console) -> None:
        """The figures, a few vectors of each set, and the first mismatches."""
        table = Table(box=None, show_header=False, padding=(0, 2))
        table.add_column(justify="right")
        table.add_column()
        rate = "-" if self.events_per_s is None else f"{self.events_per_s:,.0f}"
        for figure, what in (
            (f"{self.events:,}", "events"),
            *((f"{one.vectors:,}", f"vectors of {one.feature_set}") for one in self.verdicts),
            (f"{self.late:,}", "late copies"),
            (f"{self.dead_letters:,}", "dead letters, those that were planted"),
            (f"{self.differences.number:,}", "mismatches"),
            (rate, "events per second, through both sets, first commit to last"),
            (f"{self.peak_rss_mb:,.0f} MB", "peak memory of the worker"),
        ):
            table.add_row(figure, what)
        console.print(table)
        for verdict in self.verdicts:
            console.print(_samples(verdict))
        for text in self.differences.first:
            console.print(f"[red]mismatch:[/] {escape(text)}", highlight=False, soft_wrap=True)


def _samples(verdict: Verdict) -> Table:
    table = Table(title=verdict.feature_set, title_justify="left", box=None, padding=(0, 2, 0, 0))
    names = (
        [name for name in verdict.samples[0] if not name.startswith("rewindow_")]
        if verdict.samples
        else []
    )
    shown = names[:COLUMNS_SHOWN]
    for name in shown:
        table.add_column(name, overflow="fold", no_wrap=name == "as_of")
    for row in verdict.samples:
        table.add_row(*(_cell(row[name]) for name in shown))
    return table


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return value.astimezone(UTC).strftime("%F %R")
        case float():
            return f"{value:.4g}"
        case list():
            return ", ".join(f"{item['value']} {item['count']}" for item in value)
        case _:
            return str(value)


def print_next(console: Console, place: Site, *, kept: bool, own: bool) -> None:
    """What to try after the demo."""
    lines = ["", "What to try next:"]
    if kept:
        config = f"--config {place.config}"
        lines += [
            f"  Kafka {place.addresses.bootstrap_servers}, registry {place.addresses.registry_url}",
            f"  .venv/bin/rewindow tail origin_departures -n 20 {config}",
            f"  .venv/bin/rewindow tail carrier_delays -n 20 --json {config}",
            f"  .venv/bin/rewindow worker {config}    (goes on with what you produce)",
        ]
        if own:
            lines.append(
                "  .venv/bin/rewindow down    (stops Kafka; --delete removes its data too)"
            )
    else:
        lines += [
            "  scripts/demo --keep                    leave Kafka running, to look around",
            "  examples/flights/features/*.yaml       change a window, add a feature, run again",
            "  .venv/bin/rewindow --help              the same by hand: up, publish, worker, tail",
        ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)
