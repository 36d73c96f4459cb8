"""`scripts/simulate`: many seeds, on all cores; what failed, and what was visited.

./scripts/simulate --seeds 20000 --json
./scripts/simulate --first 433 --seeds 1          # one seed again
./scripts/simulate --break half-flush             # plant a defect: is it found?
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import shlex
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CHUNK = 20
"""Seeds that a process takes at once."""

FAILURES_SHOWN = 10
TRACE_LINES = 25
ENOUGH = 10_000
"""From so many seeds on everything has to be visited."""

BREAK_SEEDS = 2_000

FIXED = {"PYTHONHASHSEED": "0", "POLARS_MAX_THREADS": "1"}
"""Without these a run depends on more than its seed, and is slower."""


@dataclass
class Part:
    """What became of some seeds."""

    digests: list[str] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    transitions: set[str] = field(default_factory=set)
    excludes: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    seeds: int = 0

    def add(self, other: Part) -> None:
        """Those of the seeds that follow."""
        self.digests += other.digests
        self.failures += other.failures
        self.transitions |= other.transitions
        self.excludes.update(other.excludes)
        self.points.update(other.points)
        self.seeds += other.seeds


def run_part(first: int, count: int, defect: str | None) -> Part:
    """Some seeds, in this process; with a defect no more than up to the first that finds it."""
    from tests.polars_pool import in_pool

    # What is loaded by now stays, and a part leaves little: there is no need to look for garbage
    # in its midst, which is an eighth of its time.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return in_pool(partial(_run_part, first, count, defect))
    finally:
        gc.enable()


def _run_part(first: int, count: int, defect: str | None) -> Part:
    from tests.simulation.simulate import in_simulation, simulate

    part = Part()
    with in_simulation(defect) as visited:
        for seed in range(first, first + count):
            outcome = simulate(seed, visited)
            part.seeds += 1
            part.digests.append(outcome.digest)
            part.points.update(outcome.points)
            if outcome.problems:
                part.failures.append(
                    {
                        "seed": seed,
                        "problems": outcome.problems[:FAILURES_SHOWN],
                        "repeat": repeat(seed, defect),
                        "trace": outcome.trace[-TRACE_LINES:],
                    }
                )
                if defect:
                    break
    part.transitions, part.excludes = visited.transitions, visited.excludes
    return part


def repeat(seed: int, defect: str | None) -> str:
    """The command that runs a seed again."""
    words = ["./scripts/simulate", "--first", str(seed), "--seeds", "1"]
    return shlex.join([*words, "--break", defect] if defect else words)


def parts(first: int, seeds: int, defect: str | None, processes: int) -> Iterator[Part]:
    """The parts of a run in their order, as they are done."""
    tasks = [
        (start, min(CHUNK, first + seeds - start), defect)
        for start in range(first, first + seeds, CHUNK)
    ]
    if processes == 1:
        for task in tasks:
            yield run_part(*task)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(run_part, *zip(*tasks, strict=True))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def wanted_transitions() -> list[str]:
    """What of the machine's table changes something."""
    from streams.control.machine import TABLE

    return [
        f"{state.value}: {event.value}"
        for (state, event), transition in TABLE.items()
        if not transition.ignored
    ]


def wanted_points() -> list[str]:
    """Where a process has to be killed, and what else has to go wrong; that it is frozen, or fails,
    at a point is counted, too."""
    from streams.runtime.crashpoints import ARCHIVE_POINTS, POINTS
    from tests.simulation.faults import CRASH, DECIDED, OTHERS

    named = [f"{CRASH} {point}" for point in (*POINTS, *ARCHIVE_POINTS)]
    return [*named, *(f"after {event}" for event in DECIDED), *OTHERS]


def report(whole: Part, first: int, seconds: float) -> dict[str, Any]:
    """What is printed of a run."""
    from tests.simulation.excludes import WANTED

    transitions = sorted(whole.transitions)
    return {
        "seeds": whole.seeds,
        "first": first,
        "failed": len(whole.failures),
        "seconds": round(seconds, 1),
        "digest": hashlib.sha256("".join(whole.digests).encode()).hexdigest(),
        "transitions": transitions,
        "missing_transitions": sorted(set(wanted_transitions()) - set(transitions)),
        "excludes": dict(sorted(whole.excludes.items())),
        "missing_excludes": sorted(set(WANTED) - set(whole.excludes)),
        "points": dict(sorted(whole.points.items())),
        "missing_points": sorted(set(wanted_points()) - set(whole.points)),
        "failures": whole.failures[:FAILURES_SHOWN],
    }


def main(
    seeds: Annotated[int, typer.Option(min=1, help="how many seeds")] = BREAK_SEEDS,
    first: Annotated[int, typer.Option(min=0, help="the first of them")] = 0,
    defect: Annotated[
        str, typer.Option("--break", metavar="NAME", help="plant a defect, or `all` in turns")
    ] = "",
    processes: Annotated[
        int, typer.Option(min=0, help="how many at once; 0: one for each core")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Run seeds of the simulation and judge each; exits with 1 if any failed.

    With --break it exits with 0 if the defect is found within these seeds.
    """
    processes = processes or os.cpu_count() or 1
    if defect:
        raise typer.Exit(_break(defect, seeds, first, processes, as_json=as_json))
    began_s = time.monotonic()
    whole = Part()
    for part in _shown(parts(first, seeds, None, processes), seeds, "seeds"):
        whole.add(part)
        for failure in part.failures:
            _say(f"seed {failure['seed']} failed: {failure['repeat']}")
    found = report(whole, first, time.monotonic() - began_s)
    if as_json:
        print(json.dumps(found))
    else:
        _print(found)
    missing = any(found[f"missing_{name}"] for name in ("transitions", "excludes", "points"))
    raise typer.Exit(1 if whole.failures or (missing and seeds >= ENOUGH) else 0)


def _break(defect: str, seeds: int, first: int, processes: int, *, as_json: bool) -> int:
    from tests.simulation.defects import BREAKS

    if defect != "all" and defect not in BREAKS:
        _say(f"error: no defect {defect!r}; there are {', '.join(BREAKS)}, and all")
        return 2
    results = []
    for name in BREAKS if defect == "all" else [defect]:
        result = find(name, seeds, first, processes)
        results.append(result)
        if not as_json:
            print(_told(result))
    if as_json:
        print(json.dumps({"breaks": results} if defect == "all" else results[0]))
    return 0 if all(one["found"] for one in results) else 1


def find(defect: str, seeds: int, first: int, processes: int) -> dict[str, Any]:
    """Whether and where a defect is found."""
    tried = 0
    running = parts(first, seeds, defect, processes)
    for part in _shown(running, seeds, defect):
        tried += part.seeds
        if part.failures:
            failure = part.failures[0]
            return {"break": defect, "found": True, "seeds": tried, **failure}
    return {"break": defect, "found": False, "seeds": tried}


def _told(result: dict[str, Any]) -> str:
    if not result["found"]:
        return f"{result['break']}: NOT FOUND in {result['seeds']} seeds"
    return (
        f"{result['break']}: found at seed {result['seed']} after {result['seeds']} seeds: "
        f"{result['problems'][0]}"
    )


def _shown(running: Iterable[Part], seeds: int, what: str) -> Iterator[Part]:
    """The same, with a bar on a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=seeds)
        for part in running:
            progress.advance(task, part.seeds)
            yield part


def _print(found: dict[str, Any]) -> None:
    failures: Sequence[dict[str, Any]] = found.pop("failures")
    for name, value in found.items():
        text = value
        if isinstance(value, dict):
            text = ", ".join(f"{key} {count}" for key, count in value.items())
        elif isinstance(value, list):
            text = ", ".join(value) or "none"
        print(f"{name.replace('_', ' ')}: {text}")
    for failure in failures:
        print(f"\nseed {failure['seed']}: {failure['repeat']}")
        for problem in failure["problems"]:
            print(f"  {problem}")
        for line in failure["trace"]:
            print(f"    {line}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def again_if_needed(module: str) -> None:
    """Start `module` over where the interpreter is without what makes runs repeatable."""
    if any(os.environ.get(name) != value for name, value in FIXED.items()):
        words = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, words, {**os.environ, **FIXED})


if __name__ == "__main__":
    again_if_needed("tests.simulation.run")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
