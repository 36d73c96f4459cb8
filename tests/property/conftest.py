"""Properties are tried in the thread of polars' pool: it takes a third less time."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.polars_pool import in_pool


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The main thread only waits, and hears no signal meanwhile.
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(method="thread"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    test, names = pyfuncitem.obj, inspect.signature(pyfuncitem.obj).parameters
    in_pool(lambda: test(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
