"""Running commands in this process, as a user would."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from streams.cli.main import main

LINES_OF_A_SCREEN = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    def failed(self, exit_code: int, *lines: str) -> None:
        """stderr is just `lines`, after `error: `, and stdout is empty."""
        assert (self.exit_code, self.stdout) == (exit_code, ""), self
        assert self.stderr.splitlines() == [f"error: {lines[0]}", *lines[1:]]

    def misused(self, message: str) -> None:
        """stderr is one screen with `message` on one line, and mostly the usage before it."""
        assert (self.exit_code, self.stdout) == (2, ""), self
        lines = self.stderr.splitlines()
        assert len(lines) < LINES_OF_A_SCREEN
        assert lines[0].startswith(("Usage: rewindow", "╭─ Error"))
        assert any(message in line for line in lines), self.stderr


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run `rewindow` with `arguments`."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert isinstance(caught.value.code, int)
    captured = capsys.readouterr()
    return Ran(exit_code=caught.value.code, stdout=captured.out, stderr=captured.err)
