"""Mistakes on the command line: one screen, one clear line for each, the right exit code."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from streams import devstack, kafka
from streams.cli.main import main
from streams.devstack.process import free_port
from tests.unit.cli.runs import run

SHOP = Path(__file__).parents[3] / "examples" / "shop"
SCHEMA = str(SHOP / "schemas" / "orders-value" / "v0001.avsc")
SOURCE = str(SHOP / "sources" / "orders.yaml")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nope"], "No such option: --nope"),
        (["tail", "--nope", "x"], "No such option: --nope"),
        (["tial", "x"], "No such command 'tial'"),
        (["schemas", "lst"], "No such command 'lst'"),
        (["tail"], "Missing argument 'SET'"),
        (["publish"], "Missing argument 'FILE'"),
        (["schemas", "register", "a-value"], "Missing argument 'FILE'"),
        (["tail", "x", "--limit", "few"], "Invalid value for '--limit'"),
        (["tail", "x", "--app"], "'--app' requires an argument"),
        (["up", "--kafka-port", "99999"], "Invalid value for '--kafka-port'"),
    ],
)
def test_wrong_usage(capsys: Capture, arguments: list[str], message: str) -> None:
    run(capsys, *arguments).misused(message)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind: source\nname: [\n", ":3: is not YAML: "),
        ("kind: source\n\tname: a\n", ":2: is not YAML: "),
        ("", ": is empty: write 'kind: source' or 'kind: feature_set'"),
        ("# nothing\n", ": is empty: write 'kind: source' or 'kind: feature_set'"),
    ],
)
def test_a_file_that_defines_nothing(capsys: Capture, text: str, line: str) -> None:
    Path("a.yaml").write_text(text, encoding="utf-8")
    ran = run(capsys, "publish", "a.yaml", "--json")
    ran.failed(2, ran.stderr.strip().removeprefix("error: "))
    assert ran.stderr.startswith(f"error: a.yaml{line}")


@pytest.mark.parametrize(
    "arguments",
    [["publish"], ["schemas", "register", "a-value"], ["tail", "x", "--config"]],
    ids=" ".join,
)
class TestFilesThatCannotBeRead:
    def test_missing(self, capsys: Capture, arguments: list[str]) -> None:
        ran = run(capsys, *arguments, "none")
        ran.failed(2, "none: can't be read: No such file or directory")

    def test_a_directory(self, capsys: Capture, arguments: list[str]) -> None:
        Path("sources").mkdir()
        run(capsys, *arguments, "sources").failed(2, "sources: can't be read: Is a directory")

    def test_not_allowed(
        self, capsys: Capture, arguments: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> str:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "secret")

        monkeypatch.setattr(Path, "read_text", refuse)
        run(capsys, *arguments, "secret").failed(2, "secret: can't be read: Permission denied")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[kafka", ["is not TOML: Expected ']' at the end of a table declaration"]),
        ("[kafk]\n", ["kafk: unknown: did you mean 'kafka'?"]),
        (
            "[topics]\nparition = 3\n[state]\ndirectory = 'x'",
            [
                "topics.parition: unknown key: did you mean 'partitions'?",
                "state.directory: unknown key: known are dir",
            ],
        ),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [["publish", SOURCE], ["worker"], ["status"], ["schemas", "list"], ["up"], ["down"]],
    ids=lambda given: given[0],
)
def test_a_wrong_configuration_file(
    capsys: Capture,
    arguments: list[str],
    text: str,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devstack, "up", None)
    monkeypatch.setattr(devstack, "down", None)
    Path("rewindow.toml").write_text(text)
    ran = run(capsys, *arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")
    given = ran.stderr.removeprefix("error: ").splitlines()
    assert len(given) == len(lines)
    assert all(
        one.startswith(f"rewindow.toml: {line}") for one, line in zip(given, lines, strict=True)
    )


@pytest.mark.parametrize(
    "arguments",
    [["schemas", "list"], ["schemas", "register", "a-value", SCHEMA]],
    ids=lambda given: given[1],
)
def test_a_registry_that_does_not_answer(capsys: Capture, arguments: list[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ran = run(capsys, *arguments, "--registry-url", url)
    assert (ran.exit_code, ran.stdout) == (4, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"error: the schema registry at {url} does not answer")


@pytest.mark.parametrize("arguments", [["publish", SOURCE], ["tail", "x"]], ids=lambda one: one[0])
def test_a_kafka_that_does_not_answer(
    capsys: Capture, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "REQUEST_TIMEOUT_S", 0.5)
    servers = f"127.0.0.1:{free_port()}"
    ran = run(capsys, *arguments, "--bootstrap-servers", servers)
    assert (ran.exit_code, ran.stdout) == (4, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"error: Kafka at {servers} does not answer")
    assert "rewindow up" in line


def test_a_directory_that_the_system_refuses(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", "file")
    ran = run(capsys, "up")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: file/rewindow/stack")
    assert ran.stderr.endswith(": Not a directory\n")


def test_a_mistake_of_ours_is_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(devstack, "down", broken)
    with pytest.raises(OSError, match="Bad file descriptor"):
        main(["down"])
