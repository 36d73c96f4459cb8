"""An S3 server for the tests of archives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.checkpoint_world import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def s3() -> Iterator[str]:
    """Its endpoint; all tests share one bucket, so each takes a prefix of its own."""
    with s3_server() as endpoint:
        yield endpoint
