"""What one owner does when the control path asks for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from streams.control.records import Action, Checkpointed, Origin, Request, RequestRecord, State
from streams.errors import UnreachableError
from streams.runtime import replay, verdicts
from streams.runtime.asked import NO_CHECKPOINTS, Asked
from streams.runtime.snapshots import new_checkpoint, pin_name
from tests.unit.runtime.checkpoint_rig import Rig
from tests.unit.runtime.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from streams.control.records import Ack

ID = "20260101T000500000Z-0a1b2c3d"
SLASHES = "night/shift 1"


def wanted(action: Action = Action.ROLLBACK, *, epoch: int = 0, id: str = "r1") -> RequestRecord:
    return RequestRecord(
        request_id=id,
        state=State.SWITCHING,
        origin=Origin(topic="app.rollback", partition=0, offset=0),
        request=Request(request_id=id, feature_set="a", action=action, reason="it is wrong"),
        epoch=epoch,
        checkpoint=ID,
    )


class Owner:
    """What an owner is to the one who is asked."""

    def __init__(self, rig: Rig, *, takes: bool = True) -> None:
        self.rig = rig
        self.records: list[RequestRecord] = []
        self.acks: list[Ack] = []
        self.told = 0
        assert rig.world.pipeline is not None
        self.asked = Asked(
            cast("Any", SimpleNamespace(checkpoints_asked=lambda: self.records)),
            rig.taking() if takes else None,
            rig.world.pipeline,
            stream="clicks",
            partition=0,
            commit_acks=self._commit,
            tell=self._tell,
        )

    async def _commit(self, acks: Sequence[Ack]) -> None:
        self.acks += acks

    def _tell(self) -> None:
        self.told += 1

    async def done(self) -> list[Checkpointed]:
        """Look twice: what is asked, and once it is stored."""
        await self.asked.obey()
        await self.rig.snapshots.finish(60)
        await self.asked.obey()
        return [one for one in self.acks if isinstance(one, Checkpointed)]


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    world = World(tmp_path / "state", timestamps={0: 3})
    monkeypatch.setattr(replay, "read_log", world.read_log)
    monkeypatch.setattr(verdicts, "read_log", world.read_log)
    made = Rig(world, tmp_path)
    await world.claim()
    await world.take(("ann", 3, 1))
    return made


async def test_it_is_taken_where_the_owner_stands_kept_and_answered(rig: Rig) -> None:
    [before] = await rig.take()
    await rig.world.take(("ann", 4, 1))
    owner = Owner(rig)
    owner.records = [wanted()]
    await owner.asked.obey()
    assert owner.acks == []  # it is on its way, and the owner goes on
    await rig.world.take(("ann", 5, 1))
    [ack] = await owner.done()
    assert (ack.checkpoint, ack.offset, ack.kept, ack.reason) == (
        ID,
        2,
        (before.checkpoint,),
        None,
    )
    assert owner.told == 1
    made = rig.manifests()[-1]
    assert (made.checkpoint, made.next_offset) == (ID, 2)
    assert made.reason == "rollback of a: it is wrong"
    assert made.notes["request_id"] == "r1"
    pins = rig.snapshots.checkpoints.pins()
    assert {checkpoint for _, checkpoint in pins} == {ID, before.checkpoint}


async def test_it_waits_for_the_fence(rig: Rig) -> None:
    owner = Owner(rig)
    owner.records = [wanted(epoch=1)]
    assert await owner.done() == []
    assert rig.manifests() == []


async def test_what_is_asked_for_by_hand_keeps_nothing_else(rig: Rig) -> None:
    await rig.take()
    await rig.world.take(("ann", 4, 1))
    owner = Owner(rig)
    owner.records = [wanted(Action.SNAPSHOT)]
    [ack] = await owner.done()
    assert ack.kept == ()
    assert {checkpoint for _, checkpoint in rig.snapshots.checkpoints.pins()} == {ID}


async def test_it_is_answered_once_in_a_claim_and_again_in_the_next(rig: Rig) -> None:
    owner = Owner(rig)
    owner.records = [wanted()]
    assert len(await owner.done()) == len(await owner.done()) == 1
    [first] = rig.manifests()
    await rig.world.take(("ann", 4, 1))
    heir = Owner(rig)
    heir.records = [wanted()]
    [ack] = await heir.done()
    assert ack.reason is None
    assert rig.manifests() == [first]  # as it was at the fence


async def test_sets_that_share_a_bundle_and_an_id_share_the_checkpoint(rig: Rig) -> None:
    owner = Owner(rig)
    owner.records = [wanted(id="r1"), wanted(id="r2")]
    assert [ack.reason for ack in await owner.done()] == [None, None]
    assert len(rig.manifests()) == 1
    [pins] = rig.snapshots.checkpoints.pins().values()
    assert {pin.name for pin in pins} == {"r1", "r2"}


async def test_an_archive_that_is_away_is_the_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise UnreachableError("the archive can't be reached")

    monkeypatch.setattr(type(rig.archive), "put_file", away)
    owner = Owner(rig)
    owner.records = [wanted()]
    [ack] = await owner.done()
    assert ack.reason == "the archive can't be reached"


async def test_a_worker_that_keeps_none_says_so_at_once(rig: Rig) -> None:
    owner = Owner(rig, takes=False)
    owner.records = [wanted()]
    await owner.asked.obey()
    [ack] = owner.acks
    assert isinstance(ack, Checkpointed)
    assert ack.reason == NO_CHECKPOINTS


def test_ids_of_requests_become_names_of_pins_whatever_is_in_them() -> None:
    assert pin_name("6a1f-2") == "6a1f-2"
    assert "/" not in pin_name(SLASHES)
    assert pin_name(SLASHES) == pin_name(SLASHES) != pin_name("night/shift 2")
    assert new_checkpoint(1_000, SLASHES) < new_checkpoint(2_000, SLASHES)
