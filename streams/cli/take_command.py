"""`rewindow snapshots take`: ask the running workers for a checkpoint, and wait for it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.cli.conversation import Conversation, failure, follow
from streams.cli.requests import make_request
from streams.clock import SystemClock
from streams.control.records import Code
from streams.definitions.store import read_definitions
from streams.errors import InvalidInputError
from streams.schema.registry import Registry
from streams.state.manifest import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streams.control.records import Reply
    from streams.settings import Settings

DEADLINE_MS = 60_000
"""By then the coordinator has to have read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The checkpoint's id, the last answer for each set, and what was not stored."""

    checkpoint: str
    replies: Sequence[Reply]

    @property
    def problems(self) -> list[str]:
        """Why some of it is missing, a line for each partition."""
        return [
            reason.message
            for reply in self.replies
            for reason in reply.reasons
            if reason.code == Code.NOT_CHECKPOINTED
        ]


def take_checkpoint(
    settings: Settings, feature_set: str | None, reason: str, show: Callable[[str], None]
) -> Taken:
    """A checkpoint of one set's bundles in every partition, or of all sets', under one id.

    Raises RefusedError if the gate refuses it, DeadlinePassedError if no worker answers, and
    UnreachableError.
    """
    settings.needed_snapshots()
    names = [feature_set] if feature_set is not None else sorted(read_definitions(settings).sets)
    if not names:
        raise InvalidInputError(f"app {settings.app} has published no feature set yet")
    clock = SystemClock()
    checkpoint = new_id(clock.now_ms(), secrets.token_hex(4))
    replies = []
    with (
        Registry.from_settings(settings.registry_options()) as registry,
        Conversation(settings, registry, clock) as conversation,
    ):
        for name in names:
            request = make_request(
                {
                    "action": "snapshot",
                    "feature_set": name,
                    "checkpoint": checkpoint,
                    "reason": reason,
                },
                clock.now_ms() + DEADLINE_MS,
            )
            show(f"asking for a checkpoint of {name}")
            conversation.send(request)
            last = follow(conversation.answers(request), lambda _: None)
            error = failure(last)
            if error is not None:
                raise error
            replies.append(last)
    return Taken(checkpoint=checkpoint, replies=replies)
