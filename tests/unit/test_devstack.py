from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streams import devstack
from streams.cli.main import main
from streams.devstack import broker, packages
from streams.devstack.process import (
    HOST,
    Guard,
    Launch,
    ServerProcess,
    end_detached,
    free_port,
    pid_file,
    port_is_free,
    running_pid,
    wait_until,
)
from streams.devstack.stack import StackPorts
from streams.errors import InvalidInputError, RewindowError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEPER = (sys.executable, "-c", "import time; print('started', flush=True); time.sleep(600)")


def server(directory: Path, *command: str, guard: Guard | None = None) -> ServerProcess:
    launch = Launch(title="Sleeper", directory=directory, command=command or SLEEPER)
    return ServerProcess(launch, guard)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ServerProcess]:
    process = server(tmp_path)
    process.start()
    yield process
    process.kill()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and a package repository that nobody answers at."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(packages.MAVEN_URL_VARIABLE, f"http://{HOST}:1")
    return tmp_path / "cache" / "rewindow"


class TestPackages:
    def test_failed_download_says_what_to_do_and_leaves_nothing(self, nowhere: Path) -> None:
        for package in (packages.KAFKA, packages.REGISTRY):
            with pytest.raises(UnreachableError, match="HTTPS_PROXY") as caught:
                packages.installed(package, nowhere)
            assert package.title in str(caught.value)
        assert all(path.suffix == ".lock" for path in nowhere.iterdir())

    def test_what_is_there_is_not_downloaded_again(self, nowhere: Path) -> None:
        target = nowhere / packages.KAFKA.directory_name
        target.mkdir(parents=True)
        (target / packages.KAFKA.whole).touch()
        assert packages.installed(packages.KAFKA, nowhere) == target

    def test_remains_of_a_stopped_download_are_removed(self, nowhere: Path) -> None:
        remains = nowhere / f".{packages.KAFKA.directory_name}.partial-x"
        (remains / "content").mkdir(parents=True)
        with pytest.raises(UnreachableError):
            packages.installed(packages.KAFKA, nowhere)
        assert not remains.exists()

    def test_something_else_than_expected_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        archive = make_archive(tmp_path)
        monkeypatch.setattr(packages, "_download", lambda *_: [archive])
        with pytest.raises(RewindowError, match="not what this version"):
            packages.installed(packages.REGISTRY, tmp_path / "cache")
        assert not (tmp_path / "cache" / packages.REGISTRY.directory_name).exists()

    def test_archive_is_unpacked_under_its_own_name_when_whole(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        archive = make_archive(tmp_path)
        package = packages.Package(
            title="Program",
            group="org.example",
            artifact="program",
            version="1",
            size_mb=1,
            sha256=packages.digest([archive]),
            archive=True,
            whole="run.jar",
        )
        monkeypatch.setattr(packages, "_download", lambda *_: [archive])
        target = packages.installed(package, tmp_path / "cache")
        assert target.name == "program-1"
        assert (target / "run.jar").read_bytes() == b"jar"
        assert {path.name for path in target.parent.iterdir()} == {"program-1", "program-1.lock"}


def make_archive(directory: Path) -> Path:
    path = directory / "program.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("run.jar")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"jar"))
    return path


class TestPorts:
    def test_free_port_is_not_one_of_outgoing_connections(self) -> None:
        first_ephemeral = int(
            Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
            if sys.platform == "linux"
            else 49_152
        )
        assert 20_000 <= free_port() < max(first_ephemeral, 21_000)

    def test_preferred_port_is_taken_if_free(self) -> None:
        port = free_port()
        assert free_port(port) == port

    def test_port_with_a_listener_is_not_free(self) -> None:
        import socket

        with closing(socket.socket()) as listener:
            listener.bind((HOST, 0))
            listener.listen()
            port = listener.getsockname()[1]
            assert not port_is_free(port)
            assert free_port(port) != port


class TestServerProcess:
    def test_process_is_known_by_its_lock_until_it_ends(
        self, sleeper: ServerProcess, tmp_path: Path
    ) -> None:
        assert running_pid(pid_file(tmp_path)) == sleeper.pid
        sleeper.stop()
        assert running_pid(pid_file(tmp_path)) is None

    def test_id_of_a_process_that_is_gone_counts_for_nothing(self, tmp_path: Path) -> None:
        pid_file(tmp_path).write_text(str(os.getpid()))
        assert running_pid(pid_file(tmp_path)) is None
        assert not end_detached(pid_file(tmp_path))

    def test_second_server_in_a_directory_is_refused(
        self, sleeper: ServerProcess, tmp_path: Path
    ) -> None:
        with pytest.raises(InvalidInputError, match="already runs"):
            server(tmp_path).start()
        assert running_pid(pid_file(tmp_path)) == sleeper.pid

    def test_somebody_else_can_stop_it(self, sleeper: ServerProcess, tmp_path: Path) -> None:
        assert end_detached(pid_file(tmp_path))
        assert running_pid(pid_file(tmp_path)) is None
        with pytest.raises(RewindowError, match="ended while it started"):
            sleeper.wait_for(lambda: False, seconds=10)

    def test_failed_start_shows_the_end_of_the_log(self, tmp_path: Path) -> None:
        failing = server(tmp_path, sys.executable, "-c", "raise SystemExit('no such port')")
        failing.start()
        with pytest.raises(RewindowError, match="no such port"):
            failing.wait_for(lambda: False, seconds=30)

    def test_it_starts_again_after_a_kill(self, sleeper: ServerProcess, tmp_path: Path) -> None:
        first = sleeper.pid
        sleeper.kill()
        sleeper.start()
        assert sleeper.pid != first
        assert running_pid(pid_file(tmp_path)) == sleeper.pid

    def test_guarded_process_ends_with_the_guard(self, tmp_path: Path) -> None:
        guard = Guard()
        guarded = server(tmp_path, guard=guard)
        guarded.start()
        guard.close()
        assert wait_until(lambda: running_pid(pid_file(tmp_path)) is None, seconds=30)

    def test_guarded_process_ends_when_its_parent_is_killed(self, tmp_path: Path) -> None:
        program = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from streams.devstack.process import Guard, Launch, ServerProcess\n"
            f"launch = Launch(title='Sleeper', directory=Path({str(tmp_path)!r}), "
            f"command={SLEEPER!r})\n"
            "ServerProcess(launch, Guard()).start()\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        parent = subprocess.run([sys.executable, "-c", program], check=False)
        assert parent.returncode < 0
        assert wait_until(lambda: running_pid(pid_file(tmp_path)) is None, seconds=30)


def test_broker_listens_on_the_loopback_address_only() -> None:
    settings = broker.settings(broker.BrokerPorts(client=1, controller=2), Path("data"))
    assert settings["listeners"] == f"PLAINTEXT://{HOST}:1,CONTROLLER://{HOST}:2"
    assert settings["auto.create.topics.enable"] == "false"


class TestLocalStack:
    def test_nothing_runs_before_up(self) -> None:
        assert devstack.running() is None
        assert not devstack.down()
        assert not any(server.answers for server in devstack.status())

    def test_running_gives_the_addresses_of_the_state_file(self) -> None:
        ports = StackPorts(kafka=1, controller=2, registry=3)
        directory = devstack.stack_dir()
        servers = [server(directory / name) for name in ("kafka", "registry")]
        for each in servers:
            each.start()
        write_state(directory, ports)
        try:
            assert devstack.running() == ports.addresses
            servers[1].kill()
            assert devstack.running() is None
        finally:
            assert devstack.down()
        assert running_pid(pid_file(directory / "kafka")) is None

    def test_state_file_of_another_version_is_no_error(self) -> None:
        devstack.stack_dir().mkdir(parents=True)
        (devstack.stack_dir() / "stack.json").write_text('{"pids": []}')
        assert devstack.running() is None
        assert not devstack.down()

    def test_port_that_is_taken_is_refused(self, nowhere: Path) -> None:
        import socket

        with closing(socket.socket()) as listener:
            listener.bind((HOST, 0))
            listener.listen()
            port = listener.getsockname()[1]
            with pytest.raises(InvalidInputError, match=f"Port {port} is taken"):
                devstack.up(kafka_port=port)
        assert not nowhere.exists()


def write_state(directory: Path, ports: StackPorts) -> None:
    state = {
        "kafka_port": ports.kafka,
        "controller_port": ports.controller,
        "registry_port": ports.registry,
        "kafka_version": devstack.KAFKA_VERSION,
        "registry_version": devstack.REGISTRY_VERSION,
    }
    (directory / "stack.json").write_text(json.dumps(state))


class TestCommands:
    def run(self, *arguments: str) -> int:
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        assert isinstance(caught.value.code, int)
        return caught.value.code

    def test_status_of_nothing_exits_with_4(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run("status", "--json") == UnreachableError.exit_code
        captured = capsys.readouterr()
        servers = json.loads(captured.out)["servers"]
        assert [server["answers"] for server in servers] == [False, False]
        assert "rewindow up" in captured.err

    @pytest.mark.usefixtures("nowhere")
    def test_failed_download_is_one_line_and_exits_with_4(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run("up") == UnreachableError.exit_code
        errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(errors) == 1
        assert "could not be downloaded" in errors[0]

    @pytest.mark.parametrize("arguments", [["nonsense"], ["up", "--kafka-port", "x"], []])
    def test_wrong_usage_exits_with_2(self, arguments: list[str]) -> None:
        assert self.run(*arguments) == InvalidInputError.exit_code

    def test_version_is_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run("--version") == 0
        assert capsys.readouterr().out.startswith("rewindow ")

    def test_down_twice_is_no_error(self) -> None:
        assert self.run("down", "--json") == 0
        assert self.run("down", "--delete") == 0

    def test_interruption_exits_with_130(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(**_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(devstack, "up", interrupted)
        assert self.run("up") == 130
