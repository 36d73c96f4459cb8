"""What every part of a running worker shares; built once, in worker.py."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from streams.datapath.pipeline import PAIRS_PER_STEP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from streams.clock import Clock
    from streams.names import Names
    from streams.runtime.offsets import Offsets
    from streams.runtime.schemas import SchemaBook
    from streams.runtime.snapshots import Snapshots
    from streams.runtime.stats import Stats
    from streams.settings import Settings
    from streams.state.bundle import Resources

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is done at once. Nobody has to set these; tests do, to meet limits early."""

    records_per_fetch: int = 40_000
    pairs_per_step: int = PAIRS_PER_STEP
    commit_every_s: float = 0.25
    """So long at most a batch that says nothing waits to be committed with one that does."""
    flush_every_s: float = 5.0
    flush_rows: int = 300_000
    replay_again: int = 10_000
    """What was replayed beyond so many records is flushed with the next batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Components, each built once."""

    settings: Settings
    names: Names
    kafka_config: Mapping[str, Any]
    offsets: Offsets
    schemas: SchemaBook
    clock: Clock
    stats: Stats
    pool: ThreadPoolExecutor
    resources: Resources
    state_dir: Path
    instance: str
    definitions_offset: int
    limits: Limits = field(default_factory=Limits)
    snapshots: Snapshots | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work in a thread, so that heartbeats go on."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)
