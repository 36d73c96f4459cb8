"""A worker whose disk was lost gets its state from checkpoints: how long, and is it the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.config import load_settings
from streams.definitions.store import read_definitions
from streams.definitions.topics import SourceTopic
from streams.errors import RewindowError
from streams.names import bundle_dir
from streams.runtime.streams import StreamBook
from streams.state.bundle import Bundle, Resources
from streams.state.manifest import BundleId
from streams.state.rows import RowLayout
from tests.bench.load import PARTITIONS
from tests.bench.switch.app import INSTANCE, App

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.definitions.plan import Bundle as BundlePlan


def restore_ms(app: App) -> float:
    """Milliseconds that a worker without state takes to have that of all partitions.

    The worker before it has stopped, and left checkpoints on the same disk. Raises RewindowError
    if what comes back is not what was there, or comes from the log.
    """
    state, before = app.state_dir / INSTANCE, app.state_dir / "before"
    state.rename(before)
    with app.worker() as worker:
        recoveries = app.recoveries(worker)
        # It tells once a second what it has done.
        worker.until(lambda: worker.stats.get("restored", 0) >= PARTITIONS, "restored")
        replayed = worker.stats["replayed"]
        app.stop(worker)
    if replayed:
        raise RewindowError(f"{replayed} records came from the log instead of a checkpoint")
    for path, plan, of in _bundles(app):
        if not _same(_open(before / path, plan, of), _open(state / path, plan, of)):
            raise RewindowError(f"{of} came back from its checkpoint as something else")
    begin_s = min(one.begin_s for one in recoveries)
    return 1000 * (max(one.end_s for one in recoveries) - begin_s)


def _bundles(app: App) -> Iterator[tuple[Path, BundlePlan, BundleId]]:
    """Where the bundles of the set's first version are below an instance's directory."""
    settings = load_settings(app.config)
    topic = SourceTopic(partitions=PARTITIONS, retention_ms="-1")
    book = StreamBook(settings, read_definitions(settings), {app.topic: topic})
    stream = book.stream(app.topic)
    plan = stream.version(app.feature_set, stream.first(app.feature_set)).plan
    for bundle in plan.bundles:
        for partition in range(PARTITIONS):
            of = BundleId(
                app=app.name, stream=stream.name, partition=partition, bundle=bundle.digest
            )
            home = app.state_dir
            path = bundle_dir(home, stream.name, partition, bundle.digest).relative_to(home)
            yield path, bundle, of


def _open(path: Path, plan: BundlePlan, of: BundleId) -> Bundle:
    layout = RowLayout(plan.columns)
    return Bundle.open(path, layout, identity=of.identity, resources=Resources())


def _same(one: Bundle, other: Bundle) -> bool:
    """Whether two bundles have the same panes, and in each the same rows; both are closed."""
    every = (-(1 << 62), 1 << 62)
    try:
        panes = one.panes(*every)
        return panes == other.panes(*every) and all(
            one.scan(at, at + 1).equals(other.scan(at, at + 1)) for at in panes
        )
    finally:
        one.close()
        other.close()
