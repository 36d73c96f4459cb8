"""State back from a checkpoint on the same disk: the time it takes, and that it is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.clock import SystemClock
from streams.config import load_settings
from streams.definitions.store import read_definitions
from streams.definitions.topics import SourceTopic
from streams.errors import RewindowError
from streams.names import bundle_dir
from streams.runtime.streams import StreamBook
from streams.state.archive import open_archive
from streams.state.bundle import Bundle, Resources
from streams.state.checkpoint import Checkpoints, Facts
from streams.state.manifest import BundleId
from streams.state.restore import restore_newest
from streams.state.rows import RowLayout
from tests.bench.load import PARTITIONS
from tests.bench.switch.app import INSTANCE, App

if TYPE_CHECKING:
    from pathlib import Path

    from streams.definitions.plan import Bundle as BundlePlan


def restore_ms(app: App) -> float:
    """Milliseconds to restore and open the bundles of all partitions, one after the other.

    The worker has stopped. Raises RewindowError if what comes back is not what was there.
    """
    clock = SystemClock()
    archive = open_archive((app.directory / "archive").as_uri(), clock=clock)
    checkpoints = Checkpoints(archive, app.name, clock=clock)
    stream, plans = _bundles(app)
    took_s = 0.0
    for plan in plans:
        for partition in range(PARTITIONS):
            of = BundleId(app=app.name, stream=stream, partition=partition, bundle=plan.digest)
            source = bundle_dir(app.state_dir / INSTANCE, stream, partition, plan.digest)
            original = _open(source, plan, of)
            aside = checkpoints.set_aside(original, of, app.directory / "staging")
            checkpoints.upload(aside, Facts(reason="benchmark"))
            target = app.directory / "restored" / str(partition) / plan.digest
            begin_s = clock.monotonic_s()
            found = restore_newest(checkpoints, of, target)
            restored = _open(target, plan, of)
            took_s += clock.monotonic_s() - begin_s
            same = found.manifest is not None and not found.damages and _same(original, restored)
            original.close()
            restored.close()
            if not same:
                raise RewindowError(f"{of} came back from its checkpoint as something else")
    return took_s * 1000


def _bundles(app: App) -> tuple[str, list[BundlePlan]]:
    """The app's stream, and the bundles of its set's first version."""
    settings = load_settings(app.config)
    topic = SourceTopic(partitions=PARTITIONS, retention_ms="-1")
    book = StreamBook(settings, read_definitions(settings), {app.topic: topic})
    stream = book.stream(app.topic)
    plan = stream.version(app.feature_set, stream.first(app.feature_set)).plan
    return stream.name, list(plan.bundles)


def _open(path: Path, plan: BundlePlan, of: BundleId) -> Bundle:
    layout = RowLayout(plan.columns)
    return Bundle.open(path, layout, identity=of.identity, resources=Resources())


def _same(one: Bundle, other: Bundle) -> bool:
    """Whether two bundles have the same meta, the same panes, and in each the same rows."""
    every = (-(1 << 62), 1 << 62)
    panes = one.panes(*every)
    return (
        one.meta == other.meta
        and panes == other.panes(*every)
        and all(one.scan(at, at + 1).equals(other.scan(at, at + 1)) for at in panes)
    )
