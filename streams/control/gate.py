"""Whether a request may be done: facts in, `Accept` or `Reject` out, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.control.effects import effect
from streams.control.facts import ready_to_speak, target_of
from streams.control.machine import FINAL
from streams.control.records import Action, Code, How, Plan, Reason, State
from streams.control.routes import prepared, undone, version_before
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.control.facts import Facts, PublishedSet, PublishedVersion
    from streams.control.records import Request
    from streams.control.set_record import SetRecord
    from streams.definitions.exclusions import Exclude

_SWITCHES = (Action.ROLLBACK, Action.ACTIVATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """It may be done, and so."""

    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """It may not, for all of these reasons."""

    reasons: tuple[Reason, ...]


def decide(request: Request, facts: Facts) -> Accept | Reject:
    """The verdict. The same request and facts always have the same one."""
    reasons = [*_too_late(request, facts)]
    published, route = facts.published, facts.route
    if published is None or route is None:
        name = request.feature_set
        reasons.append(
            _reason(
                Code.UNKNOWN_SET,
                f"there is no feature set {name!r}: {did_you_mean(name, facts.sets)}",
                name,
            )
        )
        return Reject(reasons=tuple(reasons))
    checks = _Checks(request, facts, published, route)
    reasons += checks.all()
    return Reject(reasons=tuple(reasons)) if reasons else Accept(plan=checks.plan())


class _Checks:
    """The rules about a set that there is; each yields its reasons."""

    def __init__(
        self, request: Request, facts: Facts, published: PublishedSet, route: SetRecord
    ) -> None:
        self.request = request
        self.facts = facts
        self.published = published
        self.route = route
        self.target = target_of(request, route)
        self.ready = request.exclude is None and ready_to_speak(route, self.target)

    def all(self) -> Iterator[Reason]:
        yield from self.still_true()
        if self.request.action is Action.CANCEL:
            yield from self.cancel()
            return
        yield from self.known_target()
        match self.request.action:
            case Action.ROLLBACK | Action.ACTIVATE:
                yield from self.switch()
            case Action.RETIRE:
                yield from self.retire()
            case Action.PIN | Action.UNPIN:
                yield from self.stream()
                yield from self.pin()
            case Action.TOGGLE:
                yield from self.stream()
                yield from self.toggle()
            case Action.SNAPSHOT:
                yield from self.snapshot()

    def still_true(self) -> Iterator[Reason]:
        expected, serving = self.request.if_serving, self.route.serving
        if expected is not None and expected != serving:
            message = f"{serving} serves, and not {expected}: look again before you ask again"
            yield _reason(Code.IF_SERVING_DIFFERS, message, serving)
        other = self.facts.in_flight
        if other is not None and self.request.action not in (Action.CANCEL, Action.SNAPSHOT):
            message = f"request {other!r} is under way for {self.route.feature_set}: wait for it"
            yield _reason(Code.IN_FLIGHT, message, other)

    def known_target(self) -> Iterator[Reason]:
        name, target = self.route.feature_set, self.target
        if target is None:
            yield _reason(
                Code.NOTHING_TO_UNDO,
                f"no activation of {name} is left to undo: name the version to go to",
                name,
            )
        elif self.published.version(target) is None:
            hint = did_you_mean(target, (one.version for one in self.published.versions))
            message = f"there is no version {target} of {name}: {hint}"
            yield _reason(Code.UNKNOWN_VERSION, message, target)
        elif target in self.route.retired:
            live = dict.fromkeys(one.version for one in self.route.live)
            others = ", ".join(one for one in live if one != self.route.serving)
            instead = f"name one that is live ({others}), or " if others else ""
            message = f"{name}@{target} is retired: {instead}publish its content as a new version"
            yield _reason(Code.RETIRED_VERSION, message, target)

    def switch(self) -> Iterator[Reason]:
        target = self.target
        if target == self.route.serving and self.request.exclude is None:
            message = f"{target} serves already"
            yield _reason(Code.ALREADY_SERVING, message, target)
        yield from self.schema()
        yield from self.stream()
        if self.request.exclude is not None:
            yield from self.exclude(self.request.exclude)
        if self.request.checkpoint is not None:
            yield from self.checkpoint(self.request.checkpoint)
        if not self.ready:
            yield from self.source_gone()

    def checkpoint(self, checkpoint: str) -> Iterator[Reason]:
        yield from self.keeps_checkpoints()
        for why in self.facts.outside.checkpoint_missing:
            yield _reason(Code.CHECKPOINT_UNKNOWN, f"checkpoint {checkpoint}: {why}", checkpoint)
        for why in self.facts.outside.checkpoint_unusable:
            yield _reason(Code.CHECKPOINT_UNUSABLE, f"checkpoint {checkpoint}: {why}", checkpoint)

    def keeps_checkpoints(self) -> Iterator[Reason]:
        if not self.facts.checkpoints:
            message = 'no checkpoints are kept: [snapshots].url of the workers is "none"'
            yield _reason(Code.NO_CHECKPOINTS, message, "snapshots")

    def schema(self) -> Iterator[Reason]:
        for why in self.facts.outside.schema_reasons:
            message = f"the output schema of {self.target} is refused: {why}"
            yield _reason(Code.SCHEMA_REFUSED, message, self.target or "")

    def exclude(self, exclude: Exclude) -> Iterator[Reason]:
        for why in self.facts.outside.exclude_reasons:
            yield _reason(Code.EXCLUDE_REFUSED, f"exclude: {why}", "exclude.where")
        partitions = self.published.source_partitions
        for one in exclude.offsets:
            if one.partition >= partitions:
                message = f"exclude: the source has partitions 0 to {partitions - 1}, and no "
                message += f"{one.partition}: partitions and offsets are those of its topic"
                yield _reason(Code.EXCLUDE_REFUSED, message, "exclude.offsets")
        known = [(it.where, it.offsets) for it in self.route.in_force]
        if (exclude.where, exclude.offsets) in known:
            message = f"exclude: {self.route.feature_set} leaves these events out already"
            yield _reason(Code.EXCLUDE_REFUSED, message, "exclude")

    def stream(self) -> Iterator[Reason]:
        if not self.published.partitions:
            message = f"topic {self.published.topic} does not exist: nothing reads or writes yet"
            yield _reason(Code.NO_STREAM, message, self.published.topic)

    def source_gone(self) -> Iterator[Reason]:
        for replay in self.facts.outside.replays:
            if replay.needs_offset is not None and replay.needs_offset < replay.log_start:
                where = f"{replay.topic}[{replay.partition}]"
                yield _reason(
                    Code.SOURCE_GONE,
                    f"{self.target} needs {where} from offset {replay.needs_offset}, and the "
                    f"topic begins at {replay.log_start}: its windows can't be whole",
                    where,
                )

    def cancel(self) -> Iterator[Reason]:
        known, named = self.facts.cancelled, self.request.cancels or ""
        if known is None or known.request is None or not self.same_set(known.request):
            message = f"no request {named!r} for {self.route.feature_set} has been judged"
            yield _reason(Code.UNKNOWN_REQUEST, message, named)
        elif known.state in FINAL:
            message = f"request {named!r} is over, it is {known.state}: there is nothing to cancel"
            yield _reason(Code.REQUEST_OVER, message, named)
        elif known.state is State.CHECKPOINTING:
            message = f"request {named!r} holds, only its checkpoint is waited for: roll back"
            yield _reason(Code.ONLY_FORWARD, message, named)
        elif known.state is State.SWITCHING:
            message = (
                f"request {named!r} is decided (epoch {known.epoch}), and there is only forward: "
                "roll back when it is completed"
            )
            yield _reason(Code.ONLY_FORWARD, message, named)

    def same_set(self, other: Request) -> bool:
        return other.feature_set == self.request.feature_set

    def retire(self) -> Iterator[Reason]:
        target = self.target or ""
        if target == self.route.serving:
            message = f"{target} serves: activate another version first"
            yield _reason(Code.SERVING, message, target)
        if target in self.route.pins:
            message = f"{target} is pinned, so someone reads it: unpin it first"
            yield _reason(Code.PINNED, message, target)
        for toggle in self.route.toggles:
            if toggle.fallback == target:
                message = f"{toggle.feature} of {toggle.version} falls back to {target}"
                yield _reason(Code.FALLBACK_IN_USE, message, toggle.feature)

    def snapshot(self) -> Iterator[Reason]:
        yield from self.keeps_checkpoints()
        if not self.published.partitions:
            message = f"topic {self.published.topic} does not exist: there is no state yet"
            yield _reason(Code.NO_STREAM, message, self.published.topic)

    def pin(self) -> Iterator[Reason]:
        target = self.target or ""
        if self.request.action is Action.UNPIN:
            if target not in self.route.pins:
                yield _reason(Code.NOT_PINNED, f"{target} is not pinned", target)
            return
        yield from self.schema()
        if target in self.route.pins:
            yield _reason(Code.ALREADY_PINNED, f"{target} is pinned already", target)
        elif not self.ready:
            message = (
                f"{target} is not ready on every partition ({self.facts.partitions_ready} of "
                f"{self.published.partitions}): activate it, or wait until it is"
            )
            yield _reason(Code.NOT_READY, message, target)

    def toggle(self) -> Iterator[Reason]:
        feature = self.request.feature or ""
        owner = self.published.version(self.target)
        if owner is not None and feature not in owner.features:
            message = f"{owner.version} has no feature {feature!r}: "
            message += did_you_mean(feature, owner.features)
            yield _reason(Code.UNKNOWN_FEATURE, message, feature)
        yield from self.as_it_is(feature)
        if self.request.fallback is not None and owner is not None:
            why = self.unusable(owner, feature)
            if why:
                yield _reason(Code.FALLBACK_UNUSABLE, f"no value to fall back to: {why}", feature)

    def as_it_is(self, feature: str) -> Iterator[Reason]:
        """Nothing is switched to what it is already; another stand-in is something else."""
        target = self.target or ""
        off = self.route.held.off(target)
        if self.request.enabled:
            if feature not in off:
                message = f"{feature} of {target} is not switched off"
                yield _reason(Code.NOT_OFF, message, feature)
            return
        before = version_before(self.route, target) if self.request.fallback else None
        if feature in off and off[feature] == before:
            instead = f", and {before} stands in for it" if before else ""
            message = f"{feature} of {target} is switched off already{instead}"
            yield _reason(Code.ALREADY_OFF, message, feature)

    def unusable(self, owner: PublishedVersion, feature: str) -> str:
        """Why the version before can't stand in for the feature; empty if it can."""
        previous = version_before(self.route, owner.version)
        if previous is None:
            return "there is no version before"
        if previous in self.route.retired:
            return f"{previous} is retired"
        live = self.route.live_version(previous)
        found = self.published.version(previous)
        if found is None or live is None or not live.ready:
            return f"{previous} is not live on every partition"
        if feature not in found.features:
            return f"{previous} has no such feature"
        if found.every_ms != owner.every_ms:
            return f"{previous} has another interval"
        if found.features[feature] != owner.features.get(feature):
            return f"{previous} has it as {found.features[feature]}"
        if feature in self.route.held.off(previous):
            return f"it is switched off in {previous}, too"
        return ""

    def plan(self) -> Plan:
        """What is done; only for a request that there is nothing against."""
        action, route, rules = self.request.action, self.route, self.facts.rules
        target = self.target or route.serving
        if self.facts.cancelled is not None and self.facts.cancelled.plan is not None:
            target = self.facts.cancelled.plan.target
        how = How.HOT
        if action is Action.SNAPSHOT:
            how = How.CHECKPOINT
        elif action in (Action.RETIRE, Action.CANCEL):
            how = How.AT_ONCE
        elif action in _SWITCHES and not self.ready:
            how = How.COLD
        if action in _SWITCHES:
            route = prepared(route, target, rules, again=False, exclude=self.request.exclude)
        after = effect(self.request, route, target, rules, self.facts.outside.pin)
        lost = {one.version for one in self.route.live} - {one.version for one in after.live}
        back = action is Action.ROLLBACK and target != self.route.serving
        undoes = undone(self.route, target) if back else ()
        return Plan(
            how=how,
            target=target,
            from_version=self.route.serving,
            topic=self.published.topic,
            partitions=self.published.partitions,
            partitions_ready=self.facts.partitions_ready,
            replays=self.facts.outside.replays if how is How.COLD else (),
            feature=self.request.feature,
            enabled=self.request.enabled,
            stand_in=after.held.off(target).get(self.request.feature or ""),
            undoes=tuple(one.version for one in reversed(undoes)),
            becomes_cold=tuple(one.version for one in self.route.live if one.version in lost),
            checkpoint=self.request.checkpoint if how is How.COLD else None,
        )


def _too_late(request: Request, facts: Facts) -> Iterator[Reason]:
    if request.deadline_ms is not None and request.deadline_ms <= facts.now_ms:
        late = facts.now_ms - request.deadline_ms
        message = (
            f"its deadline passed {late} ms before it was read: send it again with a later one"
        )
        yield _reason(Code.DEADLINE_PASSED, message, "deadline_ms")


def _reason(code: Code, message: str, subject: str) -> Reason:
    return Reason(code=code, message=message, subject=subject)
