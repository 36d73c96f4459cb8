"""Features that are switched off and versions that are pinned, under load, on real servers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from tests.integration.load import Load
from tests.integration.pipeline_check import TUMBLING, Cut
from tests.integration.test_switch import Rig, cut_of
from tests.integration.test_switch import rig as rig
from tests.reference import Pin, Toggle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.worker_process import WorkerProcess

NEXT = TUMBLING.replace("1.0.0", "1.1.0").replace(
    'n: {{count: "*", window: 30s}}', 'n: {{count: "*", window: 1m}}'
)


def done(rig: Rig, worker: WorkerProcess, asked: Callable[[str], Any], decided: Any) -> Cut:
    """Wait for a request; the cut from which on this is decided."""
    worker.until(lambda: asked("completed"), f"done with {decided}")
    return replace(cut_of(rig, asked("completed")), decided=decided)


def test_a_feature_is_off_and_on_again_under_load(rig: Rig) -> None:
    schema_id = rig.check.prepare(TUMBLING)
    events = Load(seed=31, events=12_000, entities=300, schema_id=schema_id)
    records = events.records()

    def toggle(feature: str, *, off: bool, stand_in: str | None = None) -> Toggle:
        return Toggle(
            feature_set=rig.feature_set,
            version="1.1.0",
            feature=feature,
            off=off,
            stand_in=stand_in,
        )

    def ask(feature: str, *, enabled: bool, **fields: Any) -> Callable[[str], Any]:
        return rig.ask(action="toggle", feature=feature, enabled=enabled, **fields)

    rig.produce(islice(records, 2_000))
    with rig.worker() as worker:
        worker.until(rig.finished, "done with the first events")
        rig.check.publish(TUMBLING, NEXT)
        activated = rig.ask(action="activate", target="1.1.0")
        cuts = [done(rig, worker, activated, None)]
        rig.produce(islice(records, 2_000))
        asked = ask("n", enabled=False, fallback="previous")
        cuts.append(done(rig, worker, asked, toggle("n", off=True, stand_in="1.0.0")))
        rig.produce(islice(records, 2_000))
        asked = ask("total", enabled=False)
        cuts.append(done(rig, worker, asked, toggle("total", off=True)))
        rig.produce(islice(records, 2_000))
        worker.kill()
    rig.produce(islice(records, 2_000))
    with rig.worker() as worker:
        worker.until(rig.finished, "done with what came meanwhile")
        cuts.append(done(rig, worker, ask("n", enabled=True), toggle("n", off=False)))
        rig.produce(records)
        rig.produce(events.closing())
        worker.until(rig.finished, "done with all events")
        assert worker.stop() == 0, worker.messages
    verdict = rig.check.verdict(cuts)
    assert verdict.clean, verdict
    rows = list(rig.kafka.consume_all(rig.check.settings.names.features_topic(rig.feature_set)))
    values = [rig.kafka.decode(row.value) for row in rows if row.value is not None]
    assert {value["total"] is None for value in values if value["rewindow_kind"] == "final"} == {
        True,
        False,
    }


def test_a_pinned_version_goes_on_while_another_one_serves(rig: Rig) -> None:
    schema_id = rig.check.prepare(TUMBLING)
    events = Load(seed=32, events=10_000, entities=300, schema_id=schema_id)
    records = events.records()

    def pin(*, pinned: bool) -> Pin:
        return Pin(feature_set=rig.feature_set, version="1.0.0", pinned=pinned)

    rig.produce(islice(records, 1_500))
    with rig.worker() as worker:
        worker.until(rig.finished, "done with the first events")
        asked = rig.ask(action="pin", target="1.0.0")
        cuts = [done(rig, worker, asked, pin(pinned=True))]
        rig.check.publish(TUMBLING, NEXT)
        rig.produce(islice(records, 4_000))
        worker.until(rig.finished, "done with what both topics have")
        activated = rig.ask(action="activate", target="1.1.0")
        cuts.append(done(rig, worker, activated, None))
        rig.produce(islice(records, 3_000))
        worker.kill()
    with rig.worker() as worker:
        worker.until(rig.finished, "done with what 1.1.0 serves")
        asked = rig.ask(action="unpin", target="1.0.0")
        cuts.append(done(rig, worker, asked, pin(pinned=False)))
        rig.produce(records)
        rig.produce(events.closing())
        worker.until(rig.finished, "done with all events")
        assert worker.stop() == 0, worker.messages
    verdict = rig.check.verdict(cuts)
    assert verdict.clean, verdict
    topic = rig.check.settings.names.pinned_topic(rig.feature_set, "1.0.0")
    said = Counter(
        (it.headers["rewindow.version"], it.headers["rewindow.epoch"])
        for it in rig.kafka.consume_all(topic)
    )
    assert min(said[b"1.0.0", b"1"], said[b"1.0.0", b"2"]) > 0
    assert set(said) == {(b"1.0.0", b"1"), (b"1.0.0", b"2")}
