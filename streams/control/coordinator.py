"""The control path on one screen: what comes in, and what is decided.

A coordinator holds what the control topic says, what is published, and the acks that matter.
Each method takes what has come and the time, and returns a `Decision` for one transaction, or
None if nothing changes. The state changes only by `commit`, after that transaction: a decision
that could not be committed leaves nothing behind, and the same call makes it again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streams.control.acks import Acks
from streams.control.draft import Decision, Draft
from streams.control.facts import CHECKPOINT_WAIT_MS, Catalog, Known, NewCheckpoint, Outside, Target
from streams.control.gate import Accept, decide
from streams.control.machine import Event
from streams.control.records import Ack, Action, Code, Origin, Reason, RequestRecord, State
from streams.control.requests import RawRequest, Unreadable
from streams.control.routes import KEEP
from streams.control.steps import drive, judge, warm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.control.state import ControlState


class Coordinator:
    """Decides for one app. `keep` versions before the serving one stay live. Where checkpoints
    are kept `new_checkpoint` gives them their ids, and requests wait for them no longer than
    `checkpoint_wait_ms`.

    One that takes over starts from the `state` that the whole control topic gives, calls
    `resume`, and reads acks from its `acks_offset` and requests from its `requests_offset`.
    Times are milliseconds since the epoch in UTC.
    """

    def __init__(
        self,
        state: ControlState,
        catalog: Catalog,
        *,
        keep: int = KEEP,
        new_checkpoint: NewCheckpoint | None = None,
        checkpoint_wait_ms: int = CHECKPOINT_WAIT_MS,
    ) -> None:
        self._known = Known(
            state=state,
            acks=Acks(state.acks_offset),
            catalog=catalog,
            keep=keep,
            new_checkpoint=new_checkpoint,
            checkpoint_wait_ms=checkpoint_wait_ms,
        )

    @property
    def state(self) -> ControlState:
        """As of the last decision that was committed."""
        return self._known.state

    @property
    def acks_offset(self) -> int:
        """The first offset of the acks topic that has not come in."""
        return self._known.acks.position

    def target(self, raw: RawRequest) -> Target | None:
        """The version that `on_request` needs to know more of; None: an empty `Outside` does."""
        request = raw.content
        if isinstance(request, Unreadable) or request.request_id in self.state.requests:
            return None
        return self._known.target(request)

    def would_pin(self, raw: RawRequest, outside: Outside, now_ms: int) -> bool:
        """Whether this request pins a version, and all that it lacks is the topic for it."""
        request = raw.content
        if isinstance(request, Unreadable) or self.target(raw) is None:
            return False
        if request.action is not Action.PIN or request.dry_run or outside.pin is not None:
            return False
        verdict = decide(request, self._known.facts(request, outside, now_ms))
        return isinstance(verdict, Accept)

    def on_request(self, raw: RawRequest, outside: Outside, now_ms: int) -> Decision | None:
        """The next record of the rollback topic. One that is decided already changes nothing."""
        if raw.origin.offset < self.state.requests_offset:
            return None
        draft = self._draft(now_ms, requests_offset=raw.origin.offset + 1)
        content = raw.content
        received = RequestRecord(
            request_id=content.request_id,
            state=State.RECEIVED,
            origin=raw.origin,
            times={"received": raw.at_ms},
        )
        earlier = self.state.requests.get(content.request_id or "")
        if isinstance(content, Unreadable):
            # Under an id that is taken it would pass for the answer to the earlier request.
            named = received if earlier is None else replace(received, request_id=None)
            draft.move(named, Event.REJECT, reasons=content.reasons)
        elif earlier is None:
            judge(draft, self._known, replace(received, request=content), content, outside)
        else:
            remarks = () if earlier.request == content else (_taken(earlier.origin),)
            draft.move(earlier, Event.REPEATED, answers=raw.origin, remarks=remarks)
        return draft.finish()

    def on_acks(self, acks: Iterable[tuple[int, Ack]], now_ms: int) -> Decision | None:
        """Acks with their offsets on the acks topic; any of them may have come before."""
        for offset, ack in acks:
            self._known.acks.add(offset, ack)
        return self.on_time(now_ms)

    def on_published(self, catalog: Catalog, now_ms: int) -> Decision | None:
        """All that is published now; one that was read before the last one is left alone."""
        if catalog.definitions_offset >= self._known.catalog.definitions_offset:
            self._known.catalog = catalog
        return self.on_time(now_ms)

    def on_time(self, now_ms: int) -> Decision | None:
        """Whatever is due: versions that become live or ready, and the next steps of requests."""
        draft = self._draft(now_ms)
        self._advance(draft)
        return draft.finish()

    def resume(self, now_ms: int) -> Decision | None:
        """Go on with what another coordinator began."""
        draft = self._draft(now_ms)
        for record in draft.under_way():
            draft.move(record, Event.RESUMED)
        self._advance(draft)
        return draft.finish()

    def commit(self, decision: Decision) -> None:
        """The decision's transaction is committed: what it says holds.

        Raises ValueError if another one was committed after it was made.
        """
        if decision.base != self.state.audit:
            raise ValueError("another decision was committed since this one was made")
        for record in decision.control:
            self.state.apply(record)
        self._known.acks.forget(self.state)

    def _advance(self, draft: Draft) -> None:
        for name in sorted(self._known.catalog.sets):
            warm(draft, self._known, name)
        for record in draft.under_way():
            drive(draft, self._known, record)

    def _draft(self, now_ms: int, requests_offset: int | None = None) -> Draft:
        return Draft(
            self.state,
            now_ms,
            acks_offset=self._known.acks.lowest(),
            requests_offset=requests_offset,
        )


def _taken(origin: Origin) -> Reason:
    where = f"{origin.topic}[{origin.partition}]@{origin.offset}"
    message = (
        f"its id is that of another request ({where}), whose answer this is: "
        "send this one again under an id of its own"
    )
    return Reason(code=Code.REPEATED, message=message, subject="request_id")
