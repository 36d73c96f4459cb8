"""Checkpoints that the control path asks one partition's owner for, and its answers.

1. A request whose epoch is fenced here is begun once in each claim: its set's bundles are set
   aside as they are, at the fence or as soon after it as this owner can. They are kept, and so is
   the newest whole checkpoint from before a switch.
2. When they are stored, or can't be, the answer is committed with the position, as acks are.

After a crash the next claim begins anew, and finds what is stored already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from streams.control.records import Action, Checkpointed
from streams.runtime.snapshots import Stored, pin_name
from streams.state.checkpoint import Facts

if TYPE_CHECKING:
    from streams.control.records import Ack, RequestRecord
    from streams.datapath.pipeline import Pipeline
    from streams.runtime.roster import Decided
    from streams.runtime.taking import Taking

NO_CHECKPOINTS = "this worker keeps no checkpoints: its [snapshots].url is none"


class Asked:
    """For as long as one claim. `tell` wants `obey` to be called, with the owner's turn in hand."""

    def __init__(
        self,
        decided: Decided,
        taking: Taking | None,
        pipeline: Pipeline,
        *,
        stream: str,
        partition: int,
        commit_acks: Callable[[Sequence[Ack]], Awaitable[None]],
        tell: Callable[[], None],
    ) -> None:
        self._decided = decided
        self._taking = taking
        self._pipeline = pipeline
        self._stream = stream
        self._partition = partition
        self._commit_acks = commit_acks
        self._tell = tell
        self._begun: set[str] = set()
        self._answers: list[Checkpointed] = []

    async def obey(self) -> None:
        """Begin what is asked, and say what has come of it."""
        asked = self._decided.checkpoints_asked()
        self._begun &= {one.request_id for one in asked if one.request_id is not None}
        for record in asked:
            new = record.request_id not in self._begun
            if new and self._pipeline.may_flush and self._is_due(record):
                assert record.request_id is not None
                self._begun.add(record.request_id)
                await self._begin(record)
        if self._answers:
            answers, self._answers = self._answers, []
            await self._commit_acks(answers)

    def _is_due(self, record: RequestRecord) -> bool:
        """Whether its set is here, by an epoch that is not before its own."""
        request = record.request
        if request is None:
            return False
        name = request.feature_set
        here = {path.view.feature_set for path in self._pipeline.paths}
        return name in here and self._pipeline.progress.epochs.get(name, 0) >= (record.epoch or 0)

    async def _begin(self, record: RequestRecord) -> None:
        answer = partial(self._answer, record, self._pipeline.position)
        request, checkpoint = record.request, record.checkpoint
        assert request is not None
        assert checkpoint is not None
        if self._taking is None:
            answer(Stored(checkpoint=checkpoint, error=NO_CHECKPOINTS))
            return
        await self._taking.asked(
            Facts(
                reason=_reason(record),
                checkpoint=checkpoint,
                pin=pin_name(request.request_id),
                notes={"request_id": request.request_id},
            ),
            self._bundles(request.feature_set),
            keeps_before=request.action is not Action.SNAPSHOT,
            on_end=answer,
        )

    def _bundles(self, feature_set: str) -> set[str]:
        """Those of the set's versions that are here."""
        views = (*(path.live for path in self._pipeline.paths), *self._pipeline.followers)
        return {
            state.bundle.digest
            for one in views
            if one.view.feature_set == feature_set
            for state in one.bundles
        }

    def _answer(self, record: RequestRecord, offset: int, stored: Stored) -> None:
        assert record.request is not None
        self._answers.append(
            Checkpointed(
                request_id=record.request.request_id,
                feature_set=record.request.feature_set,
                version="" if record.plan is None else record.plan.target,
                stream=self._stream,
                partition=self._partition,
                checkpoint=stored.checkpoint,
                offset=offset,
                kept=stored.kept,
                reason=stored.error or None,
            )
        )
        self._tell()


def _reason(record: RequestRecord) -> str:
    """For people: what was done, and why."""
    request, plan = record.request, record.plan
    assert request is not None
    if request.action is Action.SNAPSHOT:
        return request.reason or f"asked for by {request.requested_by or 'somebody'}"
    target = "" if plan is None else f" to {plan.target}"
    said = f"{request.action} of {request.feature_set}{target}"
    return f"{said}: {request.reason}" if request.reason else said
