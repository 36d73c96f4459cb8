"""A coordinator in a process of its own, to be frozen and thawed.

Run as a program with an app, addresses, an instance and a directory, it is that process. It
writes a line to stdout when it coordinates, and another each time that it was fenced.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from streams.clock import SystemClock
from streams.config import load_settings
from streams.runtime.control.coordination import Parts
from streams.runtime.control.schemas import register_schemas
from streams.runtime.control.service import CoordinatorService
from streams.schema.registry import Registry
from tests.integration.control_rig import context_of

if TYPE_CHECKING:
    from tests.integration.control_rig import ControlRig

PATIENCE_S = 30.0
REPOSITORY = Path(__file__).parents[2]


class RunningCoordinator:
    """The process, as the test sees it."""

    def __init__(self, rig: ControlRig, instance: str, **environ: str) -> None:
        self._log = rig.directory / f"{instance}.log"
        addresses = rig.kafka.addresses
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("REWINDOW_")}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.integration.run_coordinator"),
                    *(rig.settings.app, addresses.bootstrap_servers, addresses.registry_url),
                    *(instance, str(rig.directory)),
                ],
                cwd=REPOSITORY,
                env={**inherited, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def coordinates(self) -> None:
        """Wait until it has claimed."""
        self._until(lambda: "coordinating " in self._log.read_text(), "coordinating")

    def stands_still(self) -> None:
        """Wait until it has stopped itself."""
        process = psutil.Process(self._process.pid)
        self._until(lambda: process.status() == psutil.STATUS_STOPPED, "standing still")

    def thaw(self) -> None:
        """It goes on where it stood."""
        psutil.Process(self._process.pid).resume()

    def fenced(self) -> None:
        """Wait until it has learnt that it no longer coordinates."""
        self._until(lambda: "fenced" in self._log.read_text(), "fenced")

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._process.kill()
        self._process.wait()

    def _until(self, condition: object, what: str) -> None:
        assert callable(condition)
        clock = SystemClock()
        deadline_s = clock.monotonic_s() + PATIENCE_S
        while not condition():
            assert clock.monotonic_s() < deadline_s, f"not {what}:\n{self._log.read_text()}"
            assert self._process.poll() is None, f"it ended:\n{self._log.read_text()}"
            try:
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue


async def _run(app: str, servers: str, url: str, instance: str, directory: str) -> None:
    settings = load_settings(bootstrap_servers=servers, registry_url=url, app=app, environ={})
    registry = Registry.from_settings(settings.registry_options())
    context = context_of(settings, registry, Path(directory), instance, ThreadPoolExecutor(2))
    ids = register_schemas(settings.names, registry)
    parts = Parts(context=context, registry=registry, ids=ids)
    service = CoordinatorService(parts, on_failure=lambda error: print(f"failed: {error}"))
    await service.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(_run(*sys.argv[1:]))
