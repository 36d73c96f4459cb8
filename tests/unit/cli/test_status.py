"""Which servers `rewindow status` asks, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams import devstack, kafka
from streams.devstack.process import free_port
from streams.schema.registry import Registry
from tests.unit.cli.runs import Ran, run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _any_registry_answers_and_no_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setattr(Registry, "ping", lambda _: None)


def servers(ran: Ran) -> list[tuple[str, bool, str | None]]:
    found = json.loads(ran.stdout)["servers"]
    return [(one["name"], one["answers"], one["address"]) for one in found]


def test_the_local_ones_where_none_are_named(capsys: Capture) -> None:
    ran = run(capsys, "status", "--json")
    assert servers(ran) == [("Apache Kafka", False, None), ("Apicurio Registry", False, None)]
    assert ran.exit_code == 4
    assert ran.stderr == (
        "error: no answer from Apache Kafka and Apicurio Registry: "
        "`rewindow up` starts the local ones\n"
    )


def test_those_that_the_configuration_names(capsys: Capture) -> None:
    address = f"127.0.0.1:{free_port()}"
    Path("rewindow.toml").write_text(f'[kafka]\nbootstrap.servers = "{address}"\n')
    ran = run(capsys, "status", "--json", "--registry-url", "http://registry")
    assert servers(ran) == [("Kafka", False, address), ("registry", True, "http://registry")]
    assert ran.exit_code == 4
    assert ran.stderr.startswith(f"error: Kafka at {address} does not answer")
    assert len(ran.stderr.splitlines()) == 1


def test_where_one_is_named_the_usual_address_of_the_other_is_asked(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka.Admin, "partitions", lambda _: {})
    ran = run(capsys, "status", "--json", "--registry-url", "http://127.0.0.1:8081")
    assert servers(ran) == [
        ("Kafka", True, "127.0.0.1:9092"),
        ("registry", True, "http://127.0.0.1:8081"),
    ]
    assert (ran.exit_code, ran.stderr) == (0, "")


@pytest.mark.parametrize("named", [[], ["--bootstrap-servers", "127.0.0.1:1"]])
def test_of_a_running_stack_it_knows_more(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, named: list[str]
) -> None:
    addresses = devstack.Addresses(bootstrap_servers="127.0.0.1:1", registry_url="http://a")
    local = [
        devstack.Health(name=name, answers=True, address=address, pid=7, log="a.log")
        for name, address in (("K", addresses.bootstrap_servers), ("R", addresses.registry_url))
    ]
    monkeypatch.setattr(devstack, "running", lambda: addresses)
    monkeypatch.setattr(devstack, "status", lambda: local)
    ran = run(capsys, "status", *named)
    assert [line.split()[-1] for line in ran.stdout.splitlines()] == ["pid", "7", "7"]
    assert (ran.exit_code, ran.stderr) == (0, "log of K: a.log\nlog of R: a.log\n")
    other = run(capsys, "status", "--json", "--registry-url", "http://b")
    assert servers(other) == [("K", True, "127.0.0.1:1"), ("registry", True, "http://b")]


def test_a_table_for_people(capsys: Capture) -> None:
    address = f"127.0.0.1:{free_port()}"
    ran = run(capsys, "status", "--bootstrap-servers", address, "--registry-url", "http://registry")
    head, first, second = ran.stdout.splitlines()
    assert head.split() == ["server", "version", "state", "address", "pid"]
    assert first.split() == ["Kafka", "-", "down", address, "-"]
    assert second.split() == ["registry", "-", "up", "http://registry", "-"]
