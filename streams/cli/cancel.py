"""`rewindow cancel`: take a request back before it has switched anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.options import CommonOptions, Json, takes_options
from streams.cli.requests import Asking, Deadline, DryRun, Wait, Why, ask
from streams.errors import InvalidInputError
from streams.schema.registry import Registry
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from streams.settings import Settings

DEADLINE = "30s"

RequestId = Annotated[
    str,
    typer.Argument(
        metavar="REQUEST_ID",
        help="The request, as `rewindow audit show` and its answers name it.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(cancel)


@takes_options
def cancel(
    common: CommonOptions,
    request_id: RequestId,
    reason: Why = "",
    dry_run: DryRun = False,
    wait: Wait = True,
    deadline: Deadline = DEADLINE,
    json: Json = False,
) -> None:
    """Take back a request whose version is being prepared; the one that serves goes on.

    Once the switch is decided there is only forward, and it is refused (exit code 3).
    """
    settings = common.settings()
    fields = {
        "action": "cancel",
        "feature_set": _set_of(settings, request_id),
        "cancels": request_id,
        "reason": reason,
    }
    ask(settings, fields, Asking(dry_run=dry_run, wait=wait, deadline=deadline, json=json))


def _set_of(settings: Settings, request_id: str) -> str:
    """The set that a request is about. Raises InvalidInputError if nobody has judged it."""
    from streams.cli.control_topics import Values, need_topics, read_control
    from streams.control.state import fold

    need_topics(settings, settings.names.control_topic)
    with Registry.from_settings(settings.registry_options()) as registry:
        records = read_control(settings, Values(registry))
    state = fold(record for _, record in records)
    found = state.requests.get(request_id)
    if found is None or found.request is None:
        hint = did_you_mean(request_id, state.in_flight.values())
        raise InvalidInputError(f"no request {request_id!r} has been judged: {hint}")
    return found.request.feature_set
