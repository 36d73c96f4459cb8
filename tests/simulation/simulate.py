"""One seed from its beginning to the verdict."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from streams.control.draft import Draft
from streams.datapath import corrections
from streams.definitions import outputs
from streams.runtime import log as log_module
from streams.runtime import orders, producer, replay, restoring, streams
from streams.runtime.control import coordination, needs, published, reading, tail
from streams.runtime.warming import Warming
from tests.simulation import clients, once
from tests.simulation.check import audit_trail, check
from tests.simulation.check_control import control_records
from tests.simulation.defects import BREAKS
from tests.simulation.excludes import met
from tests.simulation.faults import WARMING
from tests.simulation.loop import SimTask
from tests.simulation.scenario import Scenario
from tests.simulation.store import Bundle
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)
"""Directories are made and deleted by the thousand, faster where no disk is asked."""


@dataclass
class Outcome:
    """What became of a seed. `points` are what was visited."""

    seed: int
    problems: list[str]
    digest: str
    trace: list[str]
    points: dict[str, int]


@dataclass
class Visited:
    """What requests have been through: transitions, and what there is of leaving events out."""

    transitions: set[str] = field(default_factory=set)
    excludes: Counter[str] = field(default_factory=Counter)


@contextmanager
def in_simulation(defect: str | None = None) -> Iterator[Visited]:
    """The product on fakes, with a defect if one is named. Gives what is visited from then on."""
    visited = Visited()
    move = Draft.move

    def noted(self: Draft, record: Any, event: Any, **given: Any) -> None:
        name = f"{record.state.value}: {event.value}"
        visited.transitions.add(name)
        if record.request is not None and record.request.exclude is not None:
            visited.excludes[name] += 1
        move(self, record, event, **given)

    warm = Warming._open

    async def warming(self: Any) -> None:
        before = WARMING.set(True)
        try:
            await warm(self)
        finally:
            WARMING.reset(before)

    places: list[tuple[Any, str, Any]] = [
        (producer, "AIOKafkaProducer", clients.Producer),
        (log_module, "ColumnConsumer", clients.Consumer),
        (tail, "AIOKafkaConsumer", clients.Consumer),
        (orders, "read_definitions", clients.read_definitions),
        (published, "read_definitions", clients.read_definitions),
        (published, "Admin", clients.Admin),
        (outputs, "ensure_topics", lambda *_: []),
        (replay, "Bundle", Bundle),
        (restoring, "Bundle", Bundle),
        (reading, "decode_control", once.decode_control),
        (reading, "decode_ack", once.decode_ack),
        (needs, "plan_versions", once.plan_versions),
        (streams, "plan_versions", once.plan_versions),
        (coordination, "LOOK_EVERY_S", 1.0),
        (Draft, "move", noted),
        (Warming, "_open", warming),
    ]
    places += BREAKS[defect]() if defect else []
    patches = [patch.object(*place) for place in places]
    unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        for one in patches:
            one.start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of what a killed process left
            yield visited
    finally:
        for one in patches:
            one.stop()
        sys.unraisablehook = unraisable
        logging.disable(level)


def simulate(seed: int, visited: Visited) -> Outcome:
    """Run one seed. Needs `in_simulation`, which gives `visited`."""
    SimTask.numbers = itertools.count()
    directory = Path(tempfile.mkdtemp(prefix="rewindow-simulation-", dir=_MEMORY))
    world = World(seed, directory)
    try:
        with (
            patch.object(producer, "METADATA_BYTES", world.metadata_bytes),
            patch.object(corrections, "PAIRS_PER_STEP", world.corrections_per_step),
        ):
            Scenario(world).run()
            if not world.problems:
                for problem in check(world):
                    world.problem(problem)
        visited.excludes.update(met(control_records(world)))
        for life in world.lives:
            if life.stats.restored:
                world.faults.seen["restored"] += life.stats.restored
        if world.problems:
            world.trace += audit_trail(world)
        return Outcome(
            seed=seed,
            problems=list(world.problems),
            digest=world.digest(),
            trace=list(world.trace),
            points=dict(world.faults.seen),
        )
    finally:
        for process in world.scheduler.processes:
            process.clear()
        shutil.rmtree(directory, ignore_errors=True)
