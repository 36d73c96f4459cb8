"""The options that every command takes, and those that some do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from streams.cli.main import build
from streams.cli.options import CommonOptions, takes_options
from streams.errors import InvalidInputError
from tests.unit.cli.runs import run

COMMON = ["--bootstrap-servers", "--registry-url", "--app", "--config"]


def commands(group: Any, *names: str) -> list[tuple[str, ...]]:
    """The names that lead to each command."""
    if not hasattr(group, "commands"):
        return [names]
    return [
        found
        for name, command in group.commands.items()
        for found in commands(command, *names, name)
    ]


@pytest.mark.parametrize("names", commands(typer.main.get_command(build())), ids=" ".join)
def test_every_command_takes_them_after_its_own(
    names: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = run(capsys, *names, "--help")
    assert shown.exit_code == 0
    options = re.findall(r"^\W*(--[a-z-]+)", shown.stdout, re.MULTILINE)
    assert options[-5:] == [*COMMON, "--help"]
    assert "--json" in options


@takes_options
def example(common: CommonOptions, name: str, *, loud: bool = False) -> None:
    """An example."""
    print(common, name, loud)


def run_example(*arguments: str) -> None:
    app = typer.Typer()
    app.command()(example)
    app(args=list(arguments), standalone_mode=False)


def test_a_command_gets_them_as_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    run_example("--app", "a", "ann", "--config", "c.toml", "--registry-url", "u", "--loud")
    given = CommonOptions(app="a", config=Path("c.toml"), registry_url="u")
    assert capsys.readouterr().out == f"{given} ann True\n"


def test_a_command_can_be_called_with_any_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    example(name="ann", bootstrap_servers="k:1")
    assert capsys.readouterr().out == f"{CommonOptions(bootstrap_servers='k:1')} ann False\n"
    assert example.__doc__ == "An example."


def test_they_come_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rewindow.toml"
    file.write_text('app = "file"\n[kafka]\nbootstrap.servers = "file:1"\n')
    settings = CommonOptions(config=file, app="given", registry_url="http://given").settings()
    assert (settings.app, settings.bootstrap_servers) == ("given", "file:1")
    assert settings.registry["url"] == "http://given"


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="can't be read"):
        CommonOptions(config=tmp_path / "none.toml").settings()
