"""`rewindow toggle`, `pin` and `unpin`: change what goes out, and leave alone who serves."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from streams.cli.options import CommonOptions, takes_options
from streams.cli.requests import (
    Asking,
    IfServing,
    SetName,
    SetVersion,
    Why,
    ask,
    ask_about,
)


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


@takes_options
def toggle(
    common: CommonOptions,
    asking: Asking,
    feature_set: SetName,
    feature: Feature,
    state: OnOff,
    fallback: Fallback = None,
    version: OfVersion = None,
    if_serving: IfServing = None,
    reason: Why = "",
) -> None:
    """Switch one feature off, or on again: off, it is null, and its windows go on.

    It belongs to a version, and stays off if that one is left and comes back. Exits with 3 if a
    rule refuses it.
    """
    fields = {
        "action": "toggle",
        "feature_set": feature_set,
        "target": version,
        "feature": feature,
        "enabled": state is Switch.ON,
        "fallback": fallback,
        "if_serving": if_serving,
        "reason": reason,
    }
    ask(common.settings(), fields, asking)


@takes_options
def pin(
    common: CommonOptions,
    asking: Asking,
    version: SetVersion,
    if_serving: IfServing = None,
    reason: Why = "",
) -> None:
    """Give a live version a topic of its own, features.SET.vVERSION, whoever serves.

    For consumers that have to stay with it. Exits with 3 if a rule refuses it.
    """
    asked = {"if_serving": if_serving, "reason": reason}
    ask_about(common.settings(), "pin", version, asking, asked)


@takes_options
def unpin(
    common: CommonOptions,
    asking: Asking,
    version: SetVersion,
    if_serving: IfServing = None,
    reason: Why = "",
) -> None:
    """Write no more to the topic of a pinned version; what is there stays."""
    asked = {"if_serving": if_serving, "reason": reason}
    ask_about(common.settings(), "unpin", version, asking, asked)
