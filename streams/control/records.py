"""What travels on the control topics, as values.

| topic | values |
|---|---|
| `<app>.rollback` | `Request` |
| `<app>.replies` | `Reply` |
| `<app>.control` | `ControlRecord`: a `SetRecord` or a `RequestRecord` |
| `<app>.acks` | `Ready`, `Failed`, `Fenced`, `Checkpointed` |
| `<app>.audit` | `AuditRecord` |

Times are milliseconds since the epoch in UTC. An offset is the first one that is *not* yet
done, as everywhere; a cut maps a stream partition to the offset from which an epoch holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from streams.control.set_record import SetRecord
from streams.definitions.exclusions import Exclude

GENESIS = "0" * 64
"""Stands where the hash of the record before the first one would."""


class Action(StrEnum):
    """What a request asks for."""

    ROLLBACK = "rollback"
    ACTIVATE = "activate"
    TOGGLE = "toggle"
    RETIRE = "retire"
    PIN = "pin"
    UNPIN = "unpin"
    CANCEL = "cancel"
    SNAPSHOT = "snapshot"


class State(StrEnum):
    """Where a request is in its life; `machine` says how it gets from one to the next."""

    RECEIVED = "received"
    REJECTED = "rejected"
    PREPARING = "preparing"
    SWITCHING = "switching"
    CHECKPOINTING = "checkpointing"
    COMPLETED = "completed"
    FAILED = "failed"


class ReplyState(StrEnum):
    """What a reply says about its request."""

    REJECTED = "rejected"
    ACCEPTED = "accepted"
    PREPARING = "preparing"
    SWITCHED = "switched"
    COMPLETED = "completed"
    FAILED = "failed"


class AuditEvent(StrEnum):
    """What an audit record tells of."""

    LIVE = "live"
    READY = "ready"
    COLD = "cold"
    REJECTED = "rejected"
    DRY_RUN = "dry_run"
    ACCEPTED = "accepted"
    PREPARING = "preparing"
    SWITCHING = "switching"
    SWITCHED = "switched"
    COMPLETED = "completed"
    FAILED = "failed"
    REPEATED = "repeated"
    RESUMED = "resumed"


class Code(StrEnum):
    """Why a request was rejected or failed, for programs."""

    UNREADABLE = "unreadable"
    MISSING_REQUEST_ID = "missing_request_id"
    UNKNOWN_SET = "unknown_set"
    UNKNOWN_VERSION = "unknown_version"
    UNKNOWN_FEATURE = "unknown_feature"
    RETIRED_VERSION = "retired_version"
    ALREADY_SERVING = "already_serving"
    IF_SERVING_DIFFERS = "if_serving_differs"
    IN_FLIGHT = "in_flight"
    DEADLINE_PASSED = "deadline_passed"
    NOTHING_TO_UNDO = "nothing_to_undo"
    SCHEMA_REFUSED = "schema_refused"
    SOURCE_GONE = "source_gone"
    NO_STREAM = "no_stream"
    NOT_READY = "not_ready"
    SERVING = "serving"
    PINNED = "pinned"
    NOT_PINNED = "not_pinned"
    ALREADY_PINNED = "already_pinned"
    ALREADY_OFF = "already_off"
    NOT_OFF = "not_off"
    FALLBACK_UNUSABLE = "fallback_unusable"
    FALLBACK_IN_USE = "fallback_in_use"
    EXCLUDE_REFUSED = "exclude_refused"
    NOT_PREPARED = "not_prepared"
    NO_CHECKPOINTS = "no_checkpoints"
    CHECKPOINT_UNKNOWN = "checkpoint_unknown"
    CHECKPOINT_UNUSABLE = "checkpoint_unusable"
    NOTHING_RESTORED = "nothing_restored"
    NOT_CHECKPOINTED = "not_checkpointed"
    REPEATED = "repeated"
    UNKNOWN_REQUEST = "unknown_request"
    REQUEST_OVER = "request_over"
    ONLY_FORWARD = "only_forward"
    CANCELLED = "cancelled"


class How(StrEnum):
    """What an accepted request takes.

    `hot`: a fence. `cold`: the target has to be prepared, then a fence. `at_once`: neither.
    `checkpoint`: a checkpoint in each partition, and nothing changes.
    """

    HOT = "hot"
    COLD = "cold"
    AT_ONCE = "at_once"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why not: `code` for programs, `message` for people, `subject` is what it is about."""

    code: str
    message: str
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What someone asks for. A null `target` of a rollback is the version before; `cancels` is
    the id of the request that a cancel takes back. A `checkpoint` is the one to start from, of a
    snapshot the id that it is to have."""

    request_id: str
    feature_set: str
    action: Action = Action.ROLLBACK
    target: str | None = None
    if_serving: str | None = None
    checkpoint: str | None = None
    exclude: Exclude | None = None
    repair: bool = False
    dry_run: bool = False
    feature: str | None = None
    enabled: bool | None = None
    fallback: str | None = None
    reason: str = ""
    requested_by: str = ""
    deadline_ms: int | None = None
    cancels: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The record that a request was read from."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a cold version needs of one partition's log, and where that log begins.

    `needs_offset` is None if it needs no replay there.
    """

    topic: str
    partition: int
    needs_offset: int | None
    log_start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an accepted request does.

    `topic` is the stream's, `partitions` how many of its partitions are waited for, `undoes`
    the versions whose activations are undone, latest first. A toggle names its `feature` and,
    where another version stands in for it, that one. What is prepared starts from `checkpoint`
    where one was asked for.
    """

    how: How
    target: str
    from_version: str
    topic: str
    partitions: int
    partitions_ready: int = 0
    replays: tuple[Replay, ...] = ()
    undoes: tuple[str, ...] = ()
    becomes_cold: tuple[str, ...] = ()
    feature: str | None = None
    enabled: bool | None = None
    stand_in: str | None = None
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of the audit chain: the next record's number, and the hash of the last one."""

    next_seq: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What every control record says of the decision that it belongs to.

    A coordinator that takes over after it reads requests from `requests_offset` and acks from
    `acks_offset`, and goes on with the audit chain at `audit`.
    """

    at_ms: int
    requests_offset: int
    acks_offset: int
    audit: Head


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """How far one request has come. `request` is None for one that could not be read.

    `times` maps "received" and each state that it was in to when that began. `checkpoint` is the
    id of the checkpoint that owners take as soon as they have obeyed `epoch`, `kept` are those
    from before it that were kept for it.
    """

    request_id: str | None
    state: State
    origin: Origin
    request: Request | None = None
    plan: Plan | None = None
    epoch: int | None = None
    cut: Mapping[int, int] = field(default_factory=dict)
    checkpoint: str | None = None
    kept: tuple[str, ...] = ()
    corrections: int | None = None
    reasons: tuple[Reason, ...] = ()
    times: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRecord:
    """One record of the control topic."""

    stamp: Stamp
    body: SetRecord | RequestRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer. `origin` is the record that it answers, also where that could not be read."""

    request_id: str | None
    state: ReplyState
    origin: Origin
    action: Action | None = None
    feature_set: str | None = None
    target: str | None = None
    dry_run: bool = False
    reasons: tuple[Reason, ...] = ()
    plan: Plan | None = None
    cut_topic: str | None = None
    cut: Mapping[int, int] = field(default_factory=dict)
    checkpoint: str | None = None
    epoch: int | None = None
    corrections: int | None = None
    at_ms: int = 0
    times: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Of one partition: the version's bundles follow the stream, and can be had by others.

    At stream offset `offset`; panes from `floor_ms` on are whole, all of them if it is None.
    """

    feature_set: str
    version: str
    generation: int
    stream: str
    partition: int
    offset: int
    floor_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """One partition can't bring the version's bundles to the stream; `reason` says why."""

    feature_set: str
    version: str
    generation: int
    stream: str
    partition: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
    """In one partition the epoch holds from `offset` on, and so do all before it.

    `closed_through_ms` is the highest as-of time closed there; None if there is none.
    `corrections` says how many were made; None: they are being made, and it is said again when
    all are there.
    """

    feature_set: str
    epoch: int
    version: str
    stream: str
    partition: int
    offset: int
    closed_through_ms: int | None = None
    corrections: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointed:
    """One partition has stored the checkpoint that a request asks for; or not, `reason` says why.

    It was taken at stream offset `offset`; `kept` are those from before it that are kept now.
    """

    request_id: str
    feature_set: str
    version: str
    stream: str
    partition: int
    checkpoint: str
    offset: int
    kept: tuple[str, ...] = ()
    reason: str | None = None


Ack = Ready | Failed | Fenced | Checkpointed


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One link of the audit chain: `hash` covers `previous` and all the other fields."""

    seq: int
    previous: str
    at_ms: int
    event: AuditEvent
    request_id: str | None = None
    feature_set: str | None = None
    version: str | None = None
    epoch: int | None = None
    requested_by: str = ""
    reason: str = ""
    cut: Mapping[int, int] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    checkpoints: tuple[str, ...] = ()
    duration_ms: int | None = None
    detail: str = ""
    hash: str = ""
