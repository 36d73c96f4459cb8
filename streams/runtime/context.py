"""What every part of a running worker shares; built once, in worker.py."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from streams.clock import Clock
    from streams.config import Settings
    from streams.names import Names
    from streams.runtime.offsets import Offsets
    from streams.runtime.schemas import SchemaBook
    from streams.runtime.stats import Stats
    from streams.state.bundle import Resources

T = TypeVar("T")


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

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work in a thread, so that heartbeats go on."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)
