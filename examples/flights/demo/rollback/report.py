"""What the rollback demo found, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from examples.flights.demo.rollback.asking import Asked
    from examples.flights.demo.rollback.judging import Verdict
    from examples.flights.demo.site import Site

STATES = ("accepted", "preparing", "switched", "completed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """A request that is completed, and how many as-of times were open at its cut."""

    asked: Asked
    open_windows: int

    def as_json(self) -> dict[str, Any]:
        """Times in milliseconds from the send of the request until its answers were read."""
        return {
            "action": self.asked.reply["action"],
            "target": self.asked.target,
            "cut": self.asked.cut,
            "open_windows_at_cut": self.open_windows,
            "timings_ms": self.asked.answered_ms,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that was found out; `switches` in order, the rollback last."""

    place: Site
    events: int
    switches: Sequence[Switched]
    verdict: Verdict
    seconds: Mapping[str, float]

    @property
    def failed(self) -> bool:
        """Whether a vector is not as it must be, or the run does not show what it is for."""
        verdict = self.verdict
        wrong = verdict.lost or verdict.duplicated or verdict.wrong
        shows = all(one.open_windows for one in self.switches) and all(verdict.by_version.values())
        return bool(wrong or not shows or not verdict.corrections)

    def as_json(self) -> str:
        """One object; what is said once is about the rollback."""
        verdict, back = self.verdict, self.switches[-1]
        return json.dumps(
            {
                "events": self.events,
                "vectors": verdict.vectors,
                "corrections": verdict.corrections,
                "lost": verdict.lost,
                "duplicated": verdict.duplicated,
                "wrong": verdict.wrong,
                "vectors_by_version": verdict.by_version,
                "cut_topic": self.place.flights_topic,
                "cut": back.asked.cut,
                "open_windows_at_cut": back.open_windows,
                "timings_ms": back.asked.answered_ms,
                "switches": [one.as_json() for one in self.switches],
                "first_differences": verdict.differences.first,
                "seconds": dict(self.seconds),
            }
        )

    def print(self, console: Console) -> None:
        """The switches with their times, the cut, and the comparison."""
        console.print(self._switches(), self._cut(), self._comparison())
        for text in self.verdict.differences.first:
            console.print(f"[red]{escape(text)}[/]", highlight=False, soft_wrap=True)
        if not all(one.open_windows for one in self.switches):
            console.print("[red]no window was open at a cut: the run shows nothing[/]")
        for name, number in self.verdict.by_version.items():
            if not number:
                console.print(f"[red]{escape(name)} served no vector: the run shows nothing[/]")
        if not self.verdict.corrections:
            console.print("[red]nothing was corrected: the run shows nothing[/]")

    def _switches(self) -> Table:
        table = _table("Milliseconds from the request to each answer")
        for column in ("request", "to", *STATES, "open at the cut"):
            table.add_column(column, justify="left" if column in ("request", "to") else "right")
        for one in self.switches:
            times = (one.asked.answered_ms.get(state) for state in STATES)
            table.add_row(
                one.asked.reply["action"],
                one.asked.target,
                *("-" if ms is None else f"{ms:,.0f}" for ms in times),
                f"{one.open_windows:,}",
            )
        return table

    def _cut(self) -> Table:
        back = self.switches[-1].asked
        cut = sorted(back.cut.items())
        table = _table(
            f"The rollback's cut: the offset in each partition that {back.target} begins at"
        )
        for partition, _ in cut:
            table.add_column(str(partition), justify="right")
        table.add_row(*(f"{offset:,}" for _, offset in cut))
        return table

    def _comparison(self) -> Table:
        verdict = self.verdict
        table = _table("Every vector, beside the reference model of the version that served")
        found = {
            **{name.partition("@")[2]: number for name, number in verdict.by_version.items()},
            "vectors": verdict.vectors,
            "corrections": verdict.corrections,
            "lost": verdict.lost,
            "duplicated": verdict.duplicated,
            "wrong": verdict.wrong,
        }
        for column in found:
            table.add_column(column, justify="right")
        table.add_row(*(f"{number:,}" for number in found.values()))
        return table


def _table(title: str) -> Table:
    """A table as wide as its title at least, so that the title stays on one line."""
    text = f"\n{escape(title)}"
    return Table(
        title=text, title_justify="left", box=None, padding=(0, 2, 0, 0), min_width=len(text)
    )


def print_next(console: Console, place: Site, *, kept: bool, own: bool) -> None:
    """What to try after the demo."""
    lines = ["", "What to try next:"]
    if kept:
        config = f"--config {place.config}"
        lines += [
            f"  Kafka {place.addresses.bootstrap_servers}, registry {place.addresses.registry_url}",
            f"  .venv/bin/rewindow versions origin_departures {config}",
            f"  .venv/bin/rewindow audit show {config}       who changed what, and why",
            f"  .venv/bin/rewindow audit verify {config}",
            f"  .venv/bin/rewindow worker {config}           then ask it for another rollback",
        ]
        if own:
            lines.append(
                "  .venv/bin/rewindow down    (stops Kafka; --delete removes its data too)"
            )
    else:
        lines += [
            "  scripts/demo rollback --keep                        leave Kafka, to look around",
            "  examples/flights/versions/                          change 1.1.0, run it again",
            "  examples/flights/demo/rollback/asking.py            the request, in 20 lines",
            "  scripts/chaos --rollbacks 30 --kills 15 --seed 11   the same under kill -9",
        ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)
