"""Tests marked `polars_pool` run in the thread of polars' pool, which takes a third less time.

They must start no thread that works with frames: it would wait for the pool, and the test for it.
"""

from __future__ import annotations

import inspect

import pytest

from tests.polars_pool import in_pool

MARK = "polars_pool"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The main thread only waits, and hears no signal meanwhile.
    for item in items:
        if item.get_closest_marker(MARK):
            item.add_marker(pytest.mark.timeout(method="thread"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not pyfuncitem.get_closest_marker(MARK):
        return None
    test, names = pyfuncitem.obj, inspect.signature(pyfuncitem.obj).parameters
    in_pool(lambda: test(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
