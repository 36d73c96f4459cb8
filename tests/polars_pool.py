"""Work in the thread of polars' pool, of which there is one in the tests.

Most of what polars does with a frame is handed to that thread and waited for, which takes longer
than to do it where frames have a few rows. From within the pool it is a plain call.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_pool(work: Callable[[], T]) -> T:
    """What `work` gives, or raises, there."""
    done: Future[T] = Future()

    def call(column: pl.Series) -> pl.Series:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)
        return column

    # A single column would be made in this thread.
    column = pl.col("column")
    pl.DataFrame({"column": [0]}).select(
        column.map_batches(call, return_dtype=pl.Int64), (column + 1).alias("other")
    )
    return done.result()
