"""`rewindow toggle`, `pin` and `unpin`: change what goes out, and leave alone who serves."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.options import CommonOptions, Json, takes_common_options
from streams.cli.requests import (
    DEADLINE,
    Deadline,
    DryRun,
    IfServing,
    SetName,
    SetVersion,
    Wait,
    Why,
    ask,
    parse_version,
)

if TYPE_CHECKING:
    from streams.config import Settings


class Switch(StrEnum):
    """What a feature is switched to."""

    ON = "on"
    OFF = "off"


class StandIn(StrEnum):
    """What may stand in for a feature that is off."""

    PREVIOUS = "previous"


Feature = Annotated[
    str, typer.Argument(metavar="FEATURE", help="Name of the feature.", show_default=False)
]
OnOff = Annotated[Switch, typer.Argument(metavar="on|off", show_default=False)]
Fallback = Annotated[
    StandIn | None,
    typer.Option(
        "--fallback",
        metavar="previous",
        help="With off: the value that the version before gives. Default: null.",
        show_default=False,
    ),
]
OfVersion = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="VERSION",
        help="The version whose feature it is. Default: the one that serves.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(toggle)
    app.command()(pin)
    app.command()(unpin)


@takes_common_options
def toggle(
    common: CommonOptions,
    feature_set: SetName,
    feature: Feature,
    state: OnOff,
    fallback: Fallback = None,
    version: OfVersion = None,
    if_serving: IfServing = None,
    reason: Why = "",
    dry_run: DryRun = False,
    wait: Wait = True,
    deadline: Deadline = DEADLINE,
    json: Json = False,
) -> None:
    """Switch one feature off, or on again: off, it is null, and its windows go on.

    It belongs to a version, and stays off if that one is left and comes back. Exits with 3 if a
    rule refuses it.
    """
    ask(
        common.settings(),
        {
            "action": "toggle",
            "feature_set": feature_set,
            "target": version,
            "feature": feature,
            "enabled": state is Switch.ON,
            "fallback": fallback,
            "if_serving": if_serving,
            "reason": reason,
            "dry_run": dry_run,
        },
        deadline=deadline,
        wait=wait,
        json=json,
    )


@takes_common_options
def pin(
    common: CommonOptions,
    version: SetVersion,
    if_serving: IfServing = None,
    reason: Why = "",
    dry_run: DryRun = False,
    wait: Wait = True,
    deadline: Deadline = DEADLINE,
    json: Json = False,
) -> None:
    """Give a live version a topic of its own, features.SET.vVERSION, whoever serves.

    For consumers that have to stay with it. Exits with 3 if a rule refuses it.
    """
    asked = {"if_serving": if_serving, "reason": reason, "dry_run": dry_run}
    _ask(common.settings(), "pin", version, asked, deadline=deadline, wait=wait, json=json)


@takes_common_options
def unpin(
    common: CommonOptions,
    version: SetVersion,
    if_serving: IfServing = None,
    reason: Why = "",
    dry_run: DryRun = False,
    wait: Wait = True,
    deadline: Deadline = DEADLINE,
    json: Json = False,
) -> None:
    """Write no more to the topic of a pinned version; what is there stays."""
    asked = {"if_serving": if_serving, "reason": reason, "dry_run": dry_run}
    _ask(common.settings(), "unpin", version, asked, deadline=deadline, wait=wait, json=json)


def _ask(
    settings: Settings,
    action: str,
    version: str,
    asked: dict[str, Any],
    *,
    deadline: str,
    wait: bool,
    json: bool,
) -> None:
    name, target = parse_version(version)
    fields = {"action": action, "feature_set": name, "target": target, **asked}
    ask(settings, fields, deadline=deadline, wait=wait, json=json)
