"""A real Kafka and registry for the tests of this folder, and names that no other test uses.

`REWINDOW_BOOTSTRAP_SERVERS` and `REWINDOW_REGISTRY_URL` make them use servers of yours.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streams.devstack import Addresses, DevStack
from streams.errors import InvalidInputError
from tests.integration.kafka_tools import KafkaTools
from tests.servers import given_servers

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests below this folder need servers, so all carry the mark."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """Kafka and registry shared by all tests: leave them running and well."""
    try:
        given = given_servers()
    except InvalidInputError as error:
        pytest.exit(str(error), error.exit_code)
    if given is not None:
        yield given
        return
    with DevStack(tmp_path_factory.mktemp("stack")) as own:
        yield own.addresses


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[DevStack]:
    """A stack of the test's own, to stop, kill and start again. Takes seconds to start."""
    with DevStack(tmp_path / "stack") as own:
        yield own


@pytest.fixture
def prefix() -> str:
    """Begins names of topics, apps and subjects; no other test or run has the same."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def kafka(stack: Addresses) -> KafkaTools:
    """Topics, Avro records and reads on the shared stack."""
    return KafkaTools(stack)
