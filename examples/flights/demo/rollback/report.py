"""What the rollback demo found, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from examples.flights.demo.rollback.asking import Asked
    from examples.flights.demo.rollback.judging import Verdict
    from examples.flights.demo.site import Site

STATES = ("accepted", "preparing", "switched", "completed")
NOTHING = "the run shows nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """A request that is completed, and how many as-of times were open at its cut.

    `changed` is how many vectors its corrections say something else for; None if it asked for no
    corrections.
    """

    asked: Asked
    open_windows: int
    changed: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Times in milliseconds from the send of the request until its answers were read."""
        return {
            "action": self.asked.reply["action"],
            "target": self.asked.target,
            "cut": self.asked.cut,
            "open_windows_at_cut": self.open_windows,
            "corrections": self.asked.corrections,
            "changed": self.changed,
            "timings_ms": self.asked.answered_ms,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that was found out; `switches` in order, by the name of the act."""

    place: Site
    events: int
    excluded_events: int
    switches: Mapping[str, Switched]
    verdict: Verdict
    seconds: Mapping[str, float]

    @property
    def failed(self) -> bool:
        """Whether a vector is not as it must be, or the run does not show what it is for."""
        verdict = self.verdict
        return bool(verdict.lost or verdict.duplicated or verdict.wrong or self._objections())

    def _objections(self) -> list[str]:
        """What is amiss besides vectors that are not as they must be."""
        verdict = self.verdict
        objections = []
        for name, one in self.switches.items():
            if not one.open_windows:
                objections.append(f"{name}: no window was open at the cut: {NOTHING}")
            if one.changed == 0:
                objections.append(f"{name}: nothing was corrected: {NOTHING}")
        objections += [
            f"{name} served no vector: {NOTHING}"
            for name, number in verdict.by_version.items()
            if not number
        ]
        told = sum(one.asked.corrections or 0 for one in self.switches.values())
        if told != verdict.corrections:
            objections.append(f"{verdict.corrections} corrections came, the answers say {told}")
        return objections

    def as_json(self) -> str:
        """One object; what is said once is about the rollback, unless its name says `exclude`."""
        verdict, back, left_out = self.verdict, self.switches["rollback"], self.switches["exclude"]
        return json.dumps(
            {
                "events": self.events,
                "excluded_events": self.excluded_events,
                "vectors": verdict.vectors,
                "corrections": verdict.corrections,
                "repair_corrections": back.asked.corrections,
                "exclude_corrections": left_out.asked.corrections,
                "lost": verdict.lost,
                "duplicated": verdict.duplicated,
                "wrong": verdict.wrong,
                "vectors_by_version": verdict.by_version,
                "cut_topic": self.place.flights_topic,
                "cut": back.asked.cut,
                "open_windows_at_cut": back.open_windows,
                "timings_ms": back.asked.answered_ms,
                "exclude_cut": left_out.asked.cut,
                "exclude_open_windows_at_cut": left_out.open_windows,
                "exclude_timings_ms": left_out.asked.answered_ms,
                "switches": [
                    {"name": name, **one.as_json()} for name, one in self.switches.items()
                ],
                "objections": self._objections(),
                "first_differences": verdict.differences.first,
                "seconds": dict(self.seconds),
            }
        )

    def print(self, console: Console) -> None:
        """The switches with their times, the cuts, what was corrected, and the comparison."""
        console.print(self._switches(), self._cuts(), self._corrected(), self._comparison())
        for text in (*self.verdict.differences.first, *self._objections()):
            console.print(f"[red]{escape(text)}[/]", highlight=False, soft_wrap=True)

    def _switches(self) -> Table:
        table = _table("Milliseconds from the request to each answer")
        for column in ("request", "to", *STATES, "open at cut"):
            table.add_column(column, justify="left" if column in ("request", "to") else "right")
        for name, one in self.switches.items():
            times = (one.asked.answered_ms.get(state) for state in STATES)
            table.add_row(
                name,
                one.asked.target,
                *("-" if ms is None else f"{ms:,.0f}" for ms in times),
                f"{one.open_windows:,}",
            )
        return table

    def _cuts(self) -> Table:
        table = _table("The cuts: the offset in each partition that another version begins at")
        table.add_column("")
        for partition in sorted(self.switches["rollback"].asked.cut):
            table.add_column(str(partition), justify="right")
        for name, one in self.switches.items():
            table.add_row(name, *(f"{offset:,}" for _, offset in sorted(one.asked.cut.items())))
        return table

    def _corrected(self) -> Table:
        table = _table(f"Said again; exclude leaves {self.excluded_events:,} events out")
        for column in ("", "corrections", "that say something else"):
            table.add_column(column, justify="right" if column else "left")
        for name, one in self.switches.items():
            if one.changed is not None:
                table.add_row(name, f"{one.asked.corrections:,}", f"{one.changed:,}")
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
