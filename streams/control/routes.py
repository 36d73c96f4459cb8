"""What is decided about one set, and what each decision makes of it.

Every function here takes a `SetRecord` and gives the next one; none of them asks whether that
is allowed, which is the gate's part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from streams.control.set_record import Activation, LiveVersion, Pin, SetRecord, Toggle
from streams.definitions.exclusions import Exclusion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.definitions.exclusions import Exclude

KEEP = 2
"""How many versions before the serving one stay live unless the settings say otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the live versions depend on besides the record: versions in order of publication,
    and how many of those before the serving one are kept."""

    published: Sequence[str]
    keep: int = KEEP
    definitions_offset: int = 0


def default_route(feature_set: str, rules: Rules) -> SetRecord:
    """What holds for a set before the first record about it: its first version serves."""
    first = rules.published[0]
    return SetRecord(
        feature_set=feature_set,
        serving=first,
        live=(LiveVersion(version=first),),
        served=(first,),
        definitions_offset=rules.definitions_offset,
    )


def undo_target(record: SetRecord) -> str | None:
    """Where undoing the latest activation leads; None if none is left to undo."""
    return record.activations[-1].from_version if record.activations else None


def version_before(record: SetRecord, version: str) -> str | None:
    """The version that served before the latest activation of this one that stands."""
    found = (one.from_version for one in record.activations if one.version == version)
    return next(reversed(tuple(found)), None)


def undone(record: SetRecord, target: str) -> tuple[Activation, ...]:
    """The activations that a rollback to `target` undoes, in their order.

    Those since `target` last served by that chain; else only the latest.
    """
    for at in reversed(range(len(record.activations))):
        if record.activations[at].from_version == target:
            return record.activations[at:]
    return record.activations[-1:]


def kept(record: SetRecord, rules: Rules) -> set[str]:
    """The versions that stay live: the serving one, those that served last before it, whichever
    way they were left, those that never served yet, pinned ones, and those that stand in for a
    feature."""
    others = [one for one in record.served if one not in (record.serving, *record.retired)]
    before = others[max(0, len(others) - rules.keep) :]
    waiting = set(rules.published) - set(record.served) - set(record.retired)
    fallbacks = {toggle.fallback for toggle in record.toggles if toggle.fallback}
    return {record.serving, *before, *waiting, *record.pins, *fallbacks}


def settled(record: SetRecord, rules: Rules, *, preparing: str | None = None) -> SetRecord:
    """The record with the live versions that it should have.

    Versions that become live get a new generation; `preparing` is kept live besides. While an
    exclusion is prepared with it, that is what speaks once it serves, and what stands in there,
    as it is without these events; nobody prepares one without `preparing`, nor from a checkpoint
    that was asked for.
    """
    wanted = {(record.excluding, one) for one in kept(record, rules)}
    if preparing is None:
        record = replace(record, exclusions=record.in_force)
    elif record.pending is None:
        wanted.add((record.excluding, preparing))
    else:
        then = replace(record, serving=preparing).held.versions
        wanted |= {(record.pending.number, one) for one in then}
    known = {
        (one.excluding, one.version): one
        for one in record.live
        if preparing is not None or one.ready or one.checkpoint is None
    }
    versions = dict.fromkeys((*rules.published, *(one.version for one in record.live)))
    order = [
        (number, one)
        for number in sorted({number for number, _ in wanted})
        for one in versions
        if (number, one) in wanted
    ]
    if all(one in known for one in order):
        return replace(record, live=tuple(known[one] for one in order))
    generation = record.generation + 1
    made = {
        (number, one): LiveVersion(version=one, generation=generation, excluding=number)
        for number, one in order
    }
    return replace(
        record,
        live=tuple(known.get(one, made[one]) for one in order),
        generation=generation,
        definitions_offset=max(record.definitions_offset, rules.definitions_offset),
    )


def prepared(
    record: SetRecord,
    target: str,
    rules: Rules,
    *,
    again: bool,
    exclude: Exclude | None = None,
    checkpoint: str | None = None,
) -> SetRecord:
    """`target` is brought to the stream; `again`: also where an attempt is under way.

    With `exclude` it is brought there without these events, and so is all that speaks with it.
    What is not on its way yet starts from `checkpoint`, if one is given.
    """
    if exclude is not None:
        # The number of the attempt is given to nothing else, whatever becomes of it.
        number = record.generation + 1
        made = Exclusion(number=number, where=exclude.where, offsets=exclude.offsets)
        record = replace(record, exclusions=(*record.exclusions, made))
    if again:
        begun = record.preparing(target)
        anew = [it for it in begun if it.version == target or not it.ready]
        record = replace(record, live=tuple(it for it in record.live if it not in anew))
    after = settled(record, rules, preparing=target)
    if checkpoint is None:
        return after
    news = (one for one in after.preparing(target) if one not in record.live)
    named = {one: replace(one, checkpoint=checkpoint) for one in news}
    return replace(after, live=tuple(named.get(one, one) for one in after.live))


def marked_ready(record: SetRecord, ready: LiveVersion) -> SetRecord:
    """Every partition has this one ready."""
    live = (replace(one, ready=True) if one == ready else one for one in record.live)
    return replace(record, live=tuple(live))


def activated(record: SetRecord, target: str, rules: Rules, *, repair: bool = False) -> SetRecord:
    """`target` serves from the next epoch on, and that can be undone."""
    pushed = Activation(version=target, from_version=record.serving, epoch=record.epoch + 1)
    return _serve(record, target, (*record.activations, pushed), rules, repair=repair)


def rolled_back(record: SetRecord, target: str, rules: Rules, *, repair: bool = False) -> SetRecord:
    """`target` serves from the next epoch on, and the activations since then are undone."""
    left = len(record.activations) - len(undone(record, target))
    return _serve(record, target, record.activations[:left], rules, repair=repair)


def left_out(record: SetRecord, target: str, rules: Rules) -> SetRecord:
    """From the next epoch on the events that were prepared for that are left out, and `target`
    serves: by a rollback where that is another version. What was said with them is corrected."""
    assert record.pending is not None
    withdrawn, number = record.held.speaker, record.pending.number
    if target != record.serving:
        after = rolled_back(replace(record, excluding=number), target, rules)
    else:
        after = settled(replace(record, excluding=number, epoch=record.epoch + 1), rules)
    return replace(after, corrects=withdrawn)


def retired(record: SetRecord, version: str, rules: Rules) -> SetRecord:
    """`version` is never to be live again; what it has switched off is forgotten."""
    toggles = tuple(one for one in record.toggles if one.version != version)
    return settled(replace(record, retired=(*record.retired, version), toggles=toggles), rules)


def switched_off(record: SetRecord, toggle: Toggle, rules: Rules) -> SetRecord:
    """From the next epoch on a feature is off, with this or no stand-in."""
    others = _without(record, toggle.version, toggle.feature)
    return settled(replace(record, toggles=(*others, toggle), epoch=record.epoch + 1), rules)


def switched_on(record: SetRecord, version: str, feature: str, rules: Rules) -> SetRecord:
    """From the next epoch on a feature is itself again."""
    others = _without(record, version, feature)
    return settled(replace(record, toggles=others, epoch=record.epoch + 1), rules)


def pinned(record: SetRecord, pin: Pin, rules: Rules) -> SetRecord:
    """From the next epoch on a version has a topic of its own."""
    pins = (*record.pinned, pin)
    return settled(replace(record, pinned=pins, epoch=record.epoch + 1), rules)


def unpinned(record: SetRecord, version: str, rules: Rules) -> SetRecord:
    """From the next epoch on a version has no topic of its own any more."""
    pins = tuple(one for one in record.pinned if one.version != version)
    return settled(replace(record, pinned=pins, epoch=record.epoch + 1), rules)


def _without(record: SetRecord, version: str, feature: str) -> tuple[Toggle, ...]:
    return tuple(one for one in record.toggles if (one.version, one.feature) != (version, feature))


def given_up(record: SetRecord, rules: Rules) -> SetRecord:
    """A version is not prepared any more: it stays live only if it would be without that."""
    return settled(record, rules)


def _serve(
    record: SetRecord,
    target: str,
    activations: tuple[Activation, ...],
    rules: Rules,
    *,
    repair: bool,
) -> SetRecord:
    served = (*(one for one in record.served if one != target), target)
    after = replace(
        record,
        serving=target,
        corrects=record.held.speaker if repair else None,
        epoch=record.epoch + 1,
        activations=activations,
        served=served,
    )
    return settled(after, rules)
