"""What holds for all tests."""

from __future__ import annotations

import gc
import os
from importlib import import_module
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from streams.devstack.packages import MAVEN_URL_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

# Frames have a few rows here, and several test processes share the cores: one thread each, which
# polars settles when it is imported. That is not meant for the workers that tests start.
if "POLARS_MAX_THREADS" not in os.environ:
    os.environ["POLARS_MAX_THREADS"] = "1"
    import_module("polars")
    del os.environ["POLARS_MAX_THREADS"]

# How long an example takes says something about the machine, not about the code. A test run can
# be repeated: `scripts/test --hypothesis-profile explore tests/property` draws other examples.
settings.register_profile("explore", deadline=None, print_blob=True)
settings.register_profile("rewindow", settings.get_profile("explore"), derandomize=True)
settings.load_profile("rewindow")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: not to look at it again is a tenth of all processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def _own_user_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A test must see neither the stack nor the configuration of whoever runs it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user-state"))
    for name in os.environ:
        if name.startswith("REWINDOW_") and name != MAVEN_URL_VARIABLE:
            monkeypatch.delenv(name)
