"""The Compose file, and what the scripts install, against what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from streams.devstack import KAFKA_VERSION, REGISTRY_VERSION, broker

TOP = Path(__file__).parents[2]
COMPOSE_FILE = TOP / "docker-compose.kafka.yml"

ADDRESSES_AND_PLACES = re.compile(r"listeners|quorum|log\.dirs|protocol\.map|inter\.broker")
"""Settings that differ by nature between a container and a process on this machine."""


@pytest.fixture
def services() -> dict[str, Any]:
    services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    assert isinstance(services, dict)
    return services


def compose_check(file: Path) -> subprocess.CompletedProcess[str]:
    """Check `file` against the Compose specification's schema, which the checker brings along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)


def test_file_follows_the_compose_specification() -> None:
    done = compose_check(COMPOSE_FILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_finds_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text("services: {kafka: {image: x, helthcheck: {}}}")
    done = compose_check(wrong)
    assert done.returncode == 1
    assert "'helthcheck'" in done.stdout, done.stdout + done.stderr


def test_versions_are_those_of_the_local_stack(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert services["registry"]["image"] == f"apicurio/apicurio-registry:{REGISTRY_VERSION}"


def test_services_are_local_lasting_and_checked(services: dict[str, Any]) -> None:
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["volumes"]
        assert service["healthcheck"]["test"]


def test_broker_settings_are_those_of_the_local_stack(services: dict[str, Any]) -> None:
    environment = services["kafka"]["environment"]
    settings = broker.settings(broker.BrokerPorts(client=1, controller=2), Path("data"))
    expected = {
        "KAFKA_" + name.replace(".", "_").upper(): value
        for name, value in settings.items()
        if not ADDRESSES_AND_PLACES.search(name)
    }
    assert {name: environment.get(name) for name in expected} == expected


def test_lock_satisfies_what_the_project_asks_for() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    lock = (TOP / "requirements.lock").read_text()
    locked = {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock, flags=re.MULTILINE)
    }
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for requirement in map(Requirement, asked):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in the lock: run scripts/lock"
        assert requirement.specifier.contains(version), (
            f"{requirement} is locked at {version}: run scripts/lock"
        )


def test_lock_names_no_package_index() -> None:
    assert "://" not in (TOP / "requirements.lock").read_text()
