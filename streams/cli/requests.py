"""`rewindow activate`, `rollback` and `retire`: ask for a change of versions, and wait for it."""

from __future__ import annotations

import getpass
import os
import re
import socket
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from streams.cli.options import (
    CommonOptions,
    Json,
    Options,
    flag,
    print_json,
    say,
    takes_options,
)
from streams.clock import SystemClock
from streams.durations import parse_duration
from streams.errors import InvalidInputError
from streams.schema.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.control.records import Reply, Request
    from streams.definitions.exclusions import Exclude, OffsetRange
    from streams.settings import Settings

DEADLINE = "10m"
"""No request is without one: until it is over, or done, the set takes no other."""

_RANGE = re.compile(r"(\d+):(\d+)-(\d+)\Z")

SetVersion = Annotated[
    str,
    typer.Argument(
        metavar="SET@VERSION", help="Feature set and version, such as a@1.2.0.", show_default=False
    ),
]
SetName = Annotated[
    str, typer.Argument(metavar="SET", help="Name of the feature set.", show_default=False)
]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="VERSION",
        help="Version to go to. Default: the one before the latest activation.",
        show_default=False,
    ),
]
IfServing = Annotated[
    str | None,
    typer.Option(
        "--if-serving",
        metavar="VERSION",
        help="Refuse if another version serves by then. Default: the one that serves now.",
        show_default=False,
    ),
]
Excluded = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="SQL|PARTITION:FROM-TO",
        help="Leave events out, from now on and for good: those that an SQL condition over the "
        "source's fields selects, or offsets of a partition of its topic up to and without TO. "
        "May be given more than once. Without --to, the version that serves stays; what was "
        "emitted with these events is emitted again.",
        show_default=False,
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        metavar="ID",
        help="Start from this checkpoint, and not from the newest: see `rewindow snapshots list`. "
        "A version that is live needs none.",
        show_default=False,
    ),
]
Why = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="Why; it goes into the audit trail."),
]
Repair = Annotated[
    bool, flag("--repair", help="Emit again what the withdrawn version has emitted.")
]
DryRun = Annotated[bool, flag("--dry-run", help="Ask what would be done, and do nothing.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait until it is done, or only send it.")
]
Deadline = Annotated[
    str,
    typer.Option(
        "--deadline",
        metavar="TIME",
        help="Give up if the switch is not decided by then, such as 30s or 2h: a version that is "
        "not live has its windows filled before.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking(Options):
    """How a request is asked, and its answers awaited."""

    dry_run: DryRun = False
    wait: Wait = True
    deadline: Deadline = DEADLINE
    json: Json = False


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(activate)
    app.command()(rollback)
    app.command()(retire)


@takes_options
def activate(
    common: CommonOptions,
    asking: Asking,
    version: SetVersion,
    if_serving: IfServing = None,
    checkpoint: Checkpoint = None,
    reason: Why = "",
    repair: Repair = False,
) -> None:
    """Let a published version serve, with its windows as full as they are.

    At once if it is live; else its windows are filled first, beside what serves. Exits with 3
    if a rule refuses it, with 5 if the deadline passes.
    """
    asked = {
        "if_serving": if_serving,
        "checkpoint": checkpoint,
        "reason": reason,
        "repair": repair,
    }
    ask_about(common.settings(), "activate", version, asking, asked)


@takes_options
def rollback(
    common: CommonOptions,
    asking: Asking,
    feature_set: SetName,
    reason: Why,
    to: To = None,
    if_serving: IfServing = None,
    exclude: Excluded = None,
    checkpoint: Checkpoint = None,
    repair: Repair = False,
) -> None:
    """Take the latest activation back, or go back to a version.

    Windows stay as full as they are, and no vector is lost or computed twice. Exits with 3 if
    a rule refuses it, with 5 if the deadline passes.
    """
    fields = {
        "action": "rollback",
        "feature_set": feature_set,
        "target": to,
        "if_serving": if_serving,
        "exclude": parse_exclude(exclude or []),
        "checkpoint": checkpoint,
        "reason": reason,
        "repair": repair,
    }
    ask(common.settings(), fields, asking)


@takes_options
def retire(
    common: CommonOptions,
    asking: Asking,
    version: SetVersion,
    if_serving: IfServing = None,
    reason: Why = "",
) -> None:
    """Say that a version is never to serve again; what only it needs is dropped."""
    asked = {"if_serving": if_serving, "reason": reason}
    ask_about(common.settings(), "retire", version, asking, asked)


def parse_version(text: str) -> tuple[str, str]:
    """Set and version of `SET@VERSION`. Raises InvalidInputError."""
    name, at, version = text.partition("@")
    if not (name and at and version):
        raise InvalidInputError(f"{text!r}: write SET@VERSION, such as departures@1.1.0")
    return name, version


def parse_exclude(given: list[str]) -> Exclude | None:
    """What `--exclude` says, each being a condition or a range. Raises InvalidInputError."""
    from streams.definitions.exclusions import Exclude, OffsetRange

    if not given:
        return None
    ranges: list[OffsetRange] = []
    conditions = []
    for text in given:
        found = _RANGE.match(text)
        if found is None:
            conditions.append(text)
            continue
        partition, start, end = (int(number) for number in found.groups())
        if start >= end:
            raise InvalidInputError(
                f"--exclude {text}: the range is empty, TO is the first offset that stays"
            )
        ranges.append(OffsetRange(partition=partition, start=start, end=end))
    where = " OR ".join(f"({one})" for one in conditions) if len(conditions) > 1 else None
    return Exclude(where=where or next(iter(conditions), None), offsets=tuple(ranges))


def parse_deadline(text: str, now_ms: int) -> int:
    """The moment that `--deadline` means, in ms since the epoch. Raises InvalidInputError."""
    try:
        return now_ms + parse_duration(text)
    except ValueError as error:
        raise InvalidInputError(f"--deadline: {error}") from None


# -- asking ---------------------------------------------------------------------------------------


def ask_about(
    settings: Settings, action: str, version: str, asking: Asking, fields: Mapping[str, Any]
) -> None:
    """As `ask`, for a request about `version`, written SET@VERSION."""
    name, target = parse_version(version)
    ask(settings, {"action": action, "feature_set": name, "target": target, **fields}, asking)


def ask(settings: Settings, given: Mapping[str, Any], asking: Asking) -> None:
    """Send the request with the fields `given`; wait for its end, show it, and fail as it fails.

    Where `if_serving` is among them and null it becomes what serves as far as can be seen.
    """
    from streams.cli.answers import print_answer, progress
    from streams.cli.conversation import Conversation, failure, follow, is_last
    from streams.cli.versions import serving_now

    clock = SystemClock()
    deadline_ms = parse_deadline(asking.deadline, clock.now_ms())
    fields = {**given, "dry_run": asking.dry_run}
    with (
        Registry.from_settings(settings.registry_options()) as registry,
        Conversation(settings, registry, clock) as conversation,
    ):
        if fields.get("if_serving", "") is None:
            fields["if_serving"] = serving_now(settings, registry, fields["feature_set"])
        request = make_request(fields, deadline_ms)
        origin = conversation.send(request)
        if not asking.wait:
            sent = {"request_id": request.request_id, "state": "sent", "topic": origin.topic}
            sent_at = {"partition": origin.partition, "offset": origin.offset}
            if asking.json:
                print_json({**sent, **sent_at})
            else:
                say(f"sent as {request.request_id} ({origin.topic} offset {origin.offset})")
            return
        console = Console(stderr=True, highlight=False)
        status = console.status("waiting for an answer") if console.is_terminal else None
        seen: list[str] = []

        def show(reply: Reply) -> None:
            seen.append(reply.state)
            if is_last(reply):
                return
            if status is not None:
                status.update(progress(reply))
            elif not asking.json:
                say(progress(reply))

        try:
            with status or nullcontext():
                last = follow(conversation.answers(request), show)
        except KeyboardInterrupt:
            say(f"request {request.request_id} goes on without you")
            raise
    print_answer(last, seen, json=asking.json)
    error = failure(last)
    if error is not None:
        raise error


def make_request(fields: dict[str, Any], deadline_ms: int | None) -> Request:
    """The request with these fields, an id of its own and who asks. Raises InvalidInputError."""
    from streams.control.records import Action, Request
    from streams.control.requests import Unreadable, parse_fields, request_fields

    made = Request(
        **{**fields, "action": Action(fields["action"])},
        request_id=str(uuid.uuid4()),
        requested_by=_who(),
        deadline_ms=deadline_ms,
    )
    checked = parse_fields(request_fields(made))
    if isinstance(checked, Unreadable):
        raise InvalidInputError("\n".join(reason.message for reason in checked.reasons))
    return checked


def _who() -> str:
    """User and machine, for the audit trail."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
