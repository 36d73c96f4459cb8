"""A bundle, an archive and a clock that tests set: what tests of checkpoints start from."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import polars as pl

from streams.state.archive import open_archive
from streams.state.bundle import Bundle, Resources
from streams.state.checkpoint import Checkpoints, Facts
from streams.state.manifest import BundleId, Manifest
from streams.state.rows import RowLayout
from streams.state.store import Meta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from streams.state.objects import Archive

LAYOUT = RowLayout([("n", pl.Int64())])
BUNDLE = BundleId(app="flights", stream="flights.by.origin", partition=3, bundle="ab12")
EVERYTHING = (-(1 << 63), (1 << 63) - 1)
DAY_MS = 86_400_000
S3_OPTIONS = {
    "region": "us-east-1",
    "access_key_id": "key",
    "secret_access_key": "secret",
    "allow_http": "true",
    "connect_timeout": "2s",
}


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.ms = 1_767_225_600_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


def frame(rows: Mapping[tuple[int, str], int]) -> pl.DataFrame:
    full = [(*key, n) for key, n in rows.items()]
    return pl.DataFrame(full, schema=LAYOUT.schema, orient="row")


def opened(path: Path, of: BundleId = BUNDLE, formerly: BundleId | None = None) -> Bundle:
    return Bundle.open(
        path,
        LAYOUT,
        identity=of.identity,
        resources=Resources(cache_bytes=1 << 20),
        formerly=None if formerly is None else formerly.identity,
    )


def rows_at(path: Path, of: BundleId = BUNDLE) -> tuple[Meta | None, dict[tuple[int, str], int]]:
    """What a bundle on disk holds; it is closed again."""
    bundle = opened(path, of)
    try:
        return bundle.meta, {(p, e): n for p, e, n in bundle.scan(*EVERYTHING).rows()}
    finally:
        bundle.close()


class World:
    """One bundle in `base`, its checkpoints in `archive`; time passes at each checkpoint."""

    def __init__(
        self,
        base: Path,
        archive: Archive | None = None,
        of: BundleId = BUNDLE,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.base = base
        self.of = of
        self.clock = Clock()
        self.archive = archive or open_archive((base / "archive").as_uri(), clock=self.clock)
        self.checkpoints = Checkpoints(self.archive, of.app, clock=self.clock, step=step)
        self.bundle = opened(base / "state", of)
        self.staging = base / "staging"

    def flush(self, rows: Mapping[tuple[int, str], int], meta: Meta) -> None:
        self.bundle.flush(frame(rows), meta)

    def take(self, **facts: str) -> Manifest:
        self.clock.ms += 1000
        aside = self.checkpoints.set_aside(self.bundle, self.of, self.staging)
        return self.checkpoints.upload(aside, Facts(**{"reason": "a test", **facts}))  # type: ignore[arg-type]

    def taken(self, next_offset: int) -> Manifest:
        """A checkpoint of one row more, at `next_offset`."""
        self.flush({(0, f"e{next_offset}"): next_offset}, Meta(next_offset=next_offset))
        return self.take()

    def keys(self, kind: str) -> list[str]:
        return [stored.key for stored in self.archive.list(f"{self.of.app}/{kind}")]

    def file(self, key: str) -> Path:
        """Where a directory holds an object."""
        return self.base / "archive" / key


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 server of our own, gone afterwards; it has a bucket `bucket`."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        httpx.put(f"{endpoint}/bucket", trust_env=False).raise_for_status()
        yield endpoint
    finally:
        server.stop()


def flip(path: Path) -> None:
    """Turn one bit in the middle of a file, as a bad disk or a bad hand does."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    # A new file: hard links to the old bytes are somebody else's.
    path.unlink()
    path.write_bytes(data)
