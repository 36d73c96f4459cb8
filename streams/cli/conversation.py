"""A request and its answers, over Kafka: what any client may do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.cli.control_topics import TopicReader, Values, need_topics
from streams.control.codec import Kind, encode
from streams.control.facts import CHECKPOINT_WAIT_MS
from streams.control.machine import FINAL
from streams.control.records import Code, Origin, Reply, ReplyState, Request
from streams.errors import DeadlinePassedError, RefusedError, RewindowError
from streams.kafka import confluent_config, explain, kafka_errors, unreachable
from streams.runtime.control.schemas import register_schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.clock import Clock
    from streams.schema.registry import Registry
    from streams.settings import Settings

SEND_S = 20.0
POLL_S = 0.2
FIRST_ANSWER_S = 30.0
GRACE_S = 3.0
"""How long after its deadline a request's last answer may still come."""

_FINAL = frozenset(state.value for state in FINAL)


class Conversation:
    """Sends a request, and follows its answers from before it was sent.

    Raises InvalidInputError if the topics do not exist, UnreachableError.
    """

    def __init__(self, settings: Settings, registry: Registry, clock: Clock) -> None:
        names = settings.names
        need_topics(settings, names.rollback_topic, names.replies_topic)
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._values = Values(registry)
        self._reader = TopicReader(settings, names.replies_topic, start=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def send(self, request: Request) -> Origin:
        """Write the request, as Avro; where it lies."""
        topic = self._settings.names.rollback_topic
        ids = register_schemas(self._settings.names, self._registry, [Kind.REQUEST])
        told: list[tuple[KafkaError | None, Message]] = []
        with kafka_errors(self._settings, "sending the request"):
            producer = Producer(confluent_config(self._settings, **{"enable.idempotence": True}))
            producer.produce(
                topic,
                key=request.request_id.encode(),
                value=encode(request, ids[Kind.REQUEST]),
                partition=0,
                on_delivery=lambda error, message: told.append((error, message)),
            )
            producer.flush(SEND_S)
        if not told:
            raise unreachable(self._settings, f"nothing is written to {topic}")
        error, message = told[0]
        if error is not None:
            raise explain(self._settings, KafkaException(error), f"writing to {topic}")
        return Origin(topic=topic, partition=0, offset=message.offset() or 0)

    def answers(self, request: Request) -> Iterator[Reply]:
        """The answers as they come; after the last one it ends.

        Raises DeadlinePassedError if they stay away: the first one for `FIRST_ANSWER_S`, or
        any until the request's deadline and `GRACE_S` more.
        """
        last: Reply | None = None
        clock = self._clock
        start_s, end_s = clock.monotonic_s(), math.inf
        if request.deadline_ms is not None:
            left_s = max(0, request.deadline_ms - clock.now_ms()) / 1000
            end_s = start_s + left_s + GRACE_S
        topic = self._settings.names.replies_topic
        while True:
            stored = self._reader.next(POLL_S)
            if stored is not None and stored.key == request.request_id.encode():
                last = self._values.reply(topic, stored)
                if last.state is ReplyState.SWITCHED:
                    # It holds; what is still waited for has a limit of its own.
                    limit_s = clock.monotonic_s() + CHECKPOINT_WAIT_MS / 1000 + GRACE_S
                    end_s = max(end_s, limit_s)
                yield last
                if is_last(last):
                    return
            until_s = min(end_s, start_s + FIRST_ANSWER_S) if last is None else end_s
            if clock.monotonic_s() >= until_s:
                raise DeadlinePassedError(unfinished(request, last))


def is_last(reply: Reply) -> bool:
    """Whether no answer comes after it."""
    return reply.state.value in _FINAL


def follow(answers: Iterator[Reply], show: Callable[[Reply], None]) -> Reply:
    """Show each answer; the last one."""
    last: Reply | None = None
    for last in answers:
        show(last)
    assert last is not None
    return last


def failure(reply: Reply) -> RewindowError | None:
    """What a final answer comes to for who has asked; None if it is done."""
    if reply.state is ReplyState.COMPLETED:
        return None
    message = "\n".join(reason.message for reason in reply.reasons) or f"{reply.state}"
    if {reason.code for reason in reply.reasons} == {Code.DEADLINE_PASSED}:
        return DeadlinePassedError(message)
    return RefusedError(message) if reply.state is ReplyState.REJECTED else RewindowError(message)


def unfinished(request: Request, last: Reply | None) -> str:
    """What to say when the time is over and the last answer has not come."""
    name = request.feature_set
    if last is None:
        return (
            f"no worker has answered request {request.request_id}: start one with `rewindow "
            "worker`, or look what holds it up. The request stays where it is: it is judged when "
            "it is read, and refused if its deadline is over by then"
        )
    if last.epoch is not None:
        return (
            f"{last.target} of {name} is decided (epoch {last.epoch}), and not all partitions "
            "have obeyed yet: they will, there is no way back. Look whether every worker runs; "
            f"`rewindow versions {name}` shows how it stands"
        )
    return (
        f"request {request.request_id} is {last.state} and has no end yet; "
        f"`rewindow versions {name}` shows how it stands"
    )
