"""Answers to a request, shown to who has asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from streams.cli.options import print_json
from streams.control.codec import reply_fields
from streams.control.records import Action, How, ReplyState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.control.records import Plan, Reply

SWITCHES = (Action.ROLLBACK, Action.ACTIVATE)

_WHEN = {How.HOT: "at once", How.COLD: "once its windows are filled", How.AT_ONCE: "at once"}


def progress(reply: Reply) -> str:
    """One line about an answer that is not the last one."""
    plan = reply.plan
    if plan is None:
        return f"{reply.state}"
    match reply.state:
        case ReplyState.ACCEPTED if reply.action not in SWITCHES:
            if reply.dry_run:
                return f"would be accepted: {_what(reply, plan, 'would be')}"
            return f"accepted: {_what(reply, plan, 'will be')}"
        case ReplyState.SWITCHED if reply.action not in SWITCHES:
            return f"done on every partition, epoch {reply.epoch}"
        case ReplyState.ACCEPTED if reply.dry_run:
            return f"would be accepted: {_switch(plan)}"
        case ReplyState.ACCEPTED if plan.how is How.HOT:
            return f"accepted: {plan.target} is live, switching from {plan.from_version}"
        case ReplyState.PREPARING:
            begun = "" if plan.checkpoint is None else f" from checkpoint {plan.checkpoint}"
            return (
                f"preparing {plan.target}{begun}: ready on {plan.partitions_ready} of "
                f"{plan.partitions} partitions when it began"
            )
        case ReplyState.SWITCHED:
            return f"switched to {_target(plan)}, epoch {reply.epoch}"
    return f"{reply.state}: {plan.target}"


def print_answer(reply: Reply, seen: Sequence[str], *, json: bool) -> None:
    """Print the last answer on stdout; `seen` are the states of all. Without `json`, nothing
    but what was done: why it was not is an error's message."""
    if json:
        print_json({**reply_fields(reply), "states": list(seen), "took_ms": _took_ms(reply)})
    elif reply.state is ReplyState.COMPLETED:
        console = Console(highlight=False)
        for line in (*summary(reply), *(reason.message for reason in reply.reasons)):
            console.print(line, soft_wrap=True, markup=False)
        if reply.cut:
            table = Table(f"partition of {reply.cut_topic}", "from offset", box=None)
            for partition, offset in sorted(reply.cut.items()):
                table.add_row(str(partition), str(offset))
            console.print(table)


def summary(reply: Reply) -> list[str]:
    """What a completed request did, or would do, in lines for people."""
    plan = reply.plan
    if plan is None:
        return [f"{reply.feature_set}: done"]
    name = reply.feature_set
    if reply.action not in SWITCHES:
        fenced = "" if reply.epoch is None else f", epoch {reply.epoch}"
        becomes = "would be" if reply.dry_run else "is"
        lines = [f"{name}: {_what(reply, plan, becomes)}{fenced}"]
    elif reply.dry_run:
        when = _WHEN[plan.how]
        lines = [f"{name}: {plan.target} would serve {_instead(plan)}, {when}"]
    else:
        lines = [
            f"{name}: {plan.target} serves {_instead(plan)}, epoch {reply.epoch}, "
            f"{_took_ms(reply)} ms after the request"
        ]
    if plan.checkpoint is not None:
        begun = "would start" if reply.dry_run else "started"
        lines.append(f"its state {begun} from checkpoint {plan.checkpoint}")
    if reply.corrections is not None:
        lines.append(
            f"what {plan.from_version} has said was corrected: {reply.corrections} vectors"
        )
    if plan.undoes:
        lines.append(f"takes back the activation of {', '.join(plan.undoes)}")
    if plan.becomes_cold:
        lines.append(f"no longer kept live: {', '.join(plan.becomes_cold)}")
    return lines


def _same(plan: Plan) -> bool:
    """Whether it is the version that served already: then events are left out."""
    return plan.target == plan.from_version


def _switch(plan: Plan) -> str:
    return _target(plan) if _same(plan) else f"{plan.from_version} to {plan.target}"


def _target(plan: Plan) -> str:
    return f"{plan.target} without the events" if _same(plan) else plan.target


def _instead(plan: Plan) -> str:
    return "without the events" if _same(plan) else f"instead of {plan.from_version}"


def _what(reply: Reply, plan: Plan, becomes: str) -> str:
    """What becomes of the target of a request that leaves alone who serves."""
    match reply.action:
        case Action.PIN:
            return f"{plan.target} {becomes} pinned to a topic of its own"
        case Action.CANCEL:
            would = "would not be" if reply.dry_run else "is not"
            return f"{plan.target} {would} prepared any more, {plan.from_version} serves"
        case Action.UNPIN:
            return f"{plan.target} {becomes} pinned no more"
        case Action.TOGGLE:
            instead = f"{plan.stand_in} stands in for it" if plan.stand_in else "null goes out"
            state = "on" if plan.enabled else f"off: {instead}"
            return f"{plan.feature} of {plan.target} {becomes} switched {state}"
    return f"{plan.target} {becomes} retired"


def _took_ms(reply: Reply) -> int:
    return max(0, reply.at_ms - reply.times.get("received", reply.at_ms))
