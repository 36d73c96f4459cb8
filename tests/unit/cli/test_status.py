"""Which servers `rewindow status` asks, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams import kafka
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


def test_a_usual_address_that_is_given_is_asked(capsys: Capture) -> None:
    ran = run(capsys, "status", "--json", "--registry-url", "http://127.0.0.1:8081")
    assert servers(ran)[1] == ("registry", True, "http://127.0.0.1:8081")


def test_a_table_for_people(capsys: Capture) -> None:
    ran = run(capsys, "status", "--registry-url", "http://registry")
    head, first, second = ran.stdout.splitlines()
    assert head.split() == ["server", "version", "state", "address", "pid"]
    assert first.split()[-3:] == ["down", "-", "-"]
    assert second.split() == ["registry", "-", "up", "http://registry", "-"]
    assert "log of Apache Kafka: " in ran.stderr
