"""The command line as a user runs it, in this process."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from streams.cli import main

if TYPE_CHECKING:
    import pytest

    from streams.settings import Settings
    from tests.integration.kafka_tools import KafkaTools


class Home(Protocol):
    """Whose app it is."""

    @property
    def settings(self) -> Settings: ...

    @property
    def kafka(self) -> KafkaTools: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        return json.loads(self.stdout)


class Shell:
    """Runs commands as a user of the rig's app."""

    def __init__(self, rig: Home, capsys: pytest.CaptureFixture[str]) -> None:
        self._rig = rig
        self._capsys = capsys

    async def __call__(self, *arguments: str) -> Ran:
        """The command beside what the test does meanwhile."""
        return await asyncio.to_thread(self.run, *arguments)

    def run(self, *arguments: str) -> Ran:
        """The command with these arguments, and the app's options."""
        addresses = self._rig.kafka.addresses
        options = {
            "--app": self._rig.settings.app,
            "--bootstrap-servers": addresses.bootstrap_servers,
            "--registry-url": addresses.registry_url,
        }
        self._capsys.readouterr()
        exit_code = 0
        try:
            main.main([*arguments, *(one for pair in options.items() for one in pair)])
        except SystemExit as ended:
            exit_code = int(ended.code or 0)
        told = self._capsys.readouterr()
        return Ran(exit_code=exit_code, stdout=told.out, stderr=told.err)
