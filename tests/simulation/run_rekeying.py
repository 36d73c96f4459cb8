"""Many seeds of the rekeying stage:

    python -m tests.simulation.run_rekeying --seeds 2000
    python -m tests.simulation.run_rekeying --first 26 --seeds 1
    python -m tests.simulation.run_rekeying --break markers-first

Prints one JSON object. Exits with 1 if a seed failed; with --break, if none did.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast
from unittest.mock import patch

import typer

from streams.runtime import rekey_cursor
from streams.runtime.rekey_cursor import RekeyCursor
from streams.runtime.rekey_output import with_markers
from tests.polars_pool import in_pool
from tests.simulation.broker import Broker
from tests.simulation.check_rekeying import check
from tests.simulation.rekeying import Consumer, RekeyWorld
from tests.simulation.run import again_if_needed
from tests.simulation.simulate import in_simulation

MODULE = "tests.simulation.run_rekeying"
TRACE_LINES = 30


def defects() -> dict[str, list[tuple[Any, str, Any]]]:
    """By name, what to put in the place of what."""
    claim, init = RekeyCursor._claim, Broker.init

    async def claimed_at_once(self: RekeyCursor) -> None:
        self._claimed = True
        await claim(self)

    def first_of_all(outgoing: Any, *rest: Any) -> Any:
        marked = with_markers(outgoing, *rest)
        return [*marked[len(outgoing) :], *outgoing]

    def without_fencing(self: Broker, transactional_id: str) -> int:
        known = self._producers.get(transactional_id)
        return init(self, transactional_id) if known is None else known.epoch

    async def without_seeking_back(self: RekeyCursor) -> None:
        consumer = cast("Consumer", self._consumer)
        fetched = consumer._positions.get((self._tp.topic, self._tp.partition), 0)
        await claim(self)
        consumer.seek(self._tp, max(fetched, self.position))

    return {
        "claimed-before-sought": [(RekeyCursor, "_claim", claimed_at_once)],
        "markers-first": [(rekey_cursor, "with_markers", first_of_all)],
        "claim-without-fencing": [(Broker, "init", without_fencing)],
        "claim-without-seeking": [(RekeyCursor, "_claim", without_seeking_back)],
    }


def failures(first: int, seeds: int, defect: str) -> list[dict[str, Any]]:
    """The seeds that fail; with a defect the first one alone."""
    found = []
    with in_simulation(), ExitStack() as planted, tempfile.TemporaryDirectory() as directory:
        for place in defects()[defect] if defect else ():
            planted.enter_context(patch.object(*place))
        for seed in range(first, first + seeds):
            world = RekeyWorld(seed, Path(directory))
            world.run()
            problems = [*world.problems, *check(world)]
            if problems:
                words = ["python", "-m", MODULE, "--first", str(seed), "--seeds", "1"]
                words += ["--break", defect] if defect else []
                found.append(
                    {
                        "seed": seed,
                        "problems": problems,
                        "repeat": shlex.join(words),
                        "trace": world.trace[-TRACE_LINES:],
                    }
                )
                if defect:
                    break
    return found


def main(
    seeds: Annotated[int, typer.Option(min=1, help="how many seeds")] = 200,
    first: Annotated[int, typer.Option(min=0, help="the first of them")] = 0,
    defect: Annotated[str, typer.Option("--break", metavar="NAME", help="plant a defect")] = "",
) -> None:
    """Run seeds of the rekeying stage and judge each."""
    if defect and defect not in defects():
        raise typer.BadParameter(f"no defect {defect!r}; there are {', '.join(defects())}")
    found = in_pool(partial(failures, first, seeds, defect))
    print(json.dumps({"seeds": seeds, "failed": len(found), "failures": found[:10]}))
    raise typer.Exit(bool(found) is not bool(defect))


if __name__ == "__main__":
    again_if_needed(MODULE)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
