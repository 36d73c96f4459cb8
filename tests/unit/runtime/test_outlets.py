"""Where the vectors of sets and of pinned versions go."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streams.control.set_record import Held, Pin
from streams.datapath.progress import Progress
from streams.datapath.step import Step
from streams.names import Names
from streams.runtime.outlets import Outlets
from streams.runtime.streams import SetOutput
from tests.unit.datapath.rig import Rig
from tests.unit.datapath.test_pins import V2, held
from tests.unit.datapath.test_switch import V1

NAMES = Names(app="app", prefix="p.")
SERVING = cast("SetOutput", SimpleNamespace(digest="d"))


def outlets(rig: Rig, decided: dict[int, Held]) -> Outlets:
    version = SimpleNamespace(plan=rig.pipeline.paths[0].live, output=SERVING)
    stream: Any = SimpleNamespace(version=lambda *_: version)
    known: Any = SimpleNamespace(held_at=lambda _, epoch: decided.get(epoch))
    return Outlets(NAMES, lambda: stream, known)


def step(epoch: int, *names: str) -> Step:
    vectors: Any = dict.fromkeys(names)
    return Step(position=1, progress=Progress(epochs={"a": epoch}), vectors=vectors)


def test_a_pinned_version_has_a_topic_and_schemas_of_its_own() -> None:
    rig = Rig(V1, V2)
    rig.hold("a", held("1.0.0", "1.0.0"))
    both = outlets(rig, {1: held("1.0.0", "1.0.0")})
    found = both.of(step(1, "a", "a@1.0.0"), rig.pipeline.paths)
    assert found["a"] is SERVING
    pinned = found["a@1.0.0"]
    assert (pinned.topic, pinned.version, pinned.digest) == ("p.features.a.v1.0.0", "1.0.0", "d")
    # It is made once, and looked for only where it is needed.
    assert both.of(step(1, "a@1.0.0"), rig.pipeline.paths) == {"a@1.0.0": pinned}
    assert both.of(step(0, "a"), rig.pipeline.paths) == {"a": SERVING}


def test_another_pin_of_the_same_version_may_have_other_schemas() -> None:
    rig = Rig(V1, V2)
    rig.hold("a", held("1.0.0", "1.0.0"))
    again = replace(
        held("1.0.0"), pinned=(Pin(version="1.0.0", key_schema_id=7, value_schema_id=8),)
    )
    both = outlets(rig, {1: held("1.0.0", "1.0.0"), 3: again})
    first = both.of(step(1, "a@1.0.0"), rig.pipeline.paths)
    assert both.of(step(3, "a@1.0.0"), rig.pipeline.paths) != first


def test_an_epoch_that_does_not_know_the_pin_is_a_broken_promise() -> None:
    rig = Rig(V1, V2)
    rig.hold("a", held("1.0.0", "1.0.0"))
    with pytest.raises(LookupError, match=r"a@1\.0\.0 is not pinned by epoch 2"):
        outlets(rig, {2: held("1.0.0")}).of(step(2, "a@1.0.0"), rig.pipeline.paths)
