"""What differs between two versions of a feature set, field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streams.durations import format_duration

if TYPE_CHECKING:
    from streams.definitions.model import Feature, FeatureSet

_SET_FIELDS = (
    "source",
    "entity",
    "every_ms",
    "allowed_lateness_ms",
    "retention_ms",
    "emit",
    "where",
    "description",
    "owner",
)
_FEATURE_FIELDS = ("function", "expression", "window_ms", "where", "q", "k")

UNVALUED = frozenset({"description", "owner"})
"""Fields that change no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field, as users name it, before and after; None where it is not given."""

    field: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureChange:
    """A feature that is in both versions and differs."""

    name: str
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """All that differs: the set's own fields, and features by name."""

    fields: tuple[FieldChange, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[FeatureChange, ...]
    same: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what differs and changes values, such as `every` and `features.n`."""
        own = [one.field for one in self.fields if one.field not in UNVALUED]
        named = sorted((*self.added, *self.removed, *(one.name for one in self.changed)))
        return (*own, *(f"features.{name}" for name in named))


def differences(before: FeatureSet, after: FeatureSet) -> Differences:
    """What differs between two versions."""
    was = {feature.name: feature for feature in before.features}
    now = {feature.name: feature for feature in after.features}
    both = sorted(was.keys() & now.keys())
    changed = [
        FeatureChange(name=name, fields=fields)
        for name in both
        if (fields := _fields(was[name], now[name], _FEATURE_FIELDS))
    ]
    different = {one.name for one in changed}
    return Differences(
        fields=_fields(before, after, _SET_FIELDS),
        added=tuple(sorted(now.keys() - was.keys())),
        removed=tuple(sorted(was.keys() - now.keys())),
        changed=tuple(changed),
        same=tuple(name for name in both if name not in different),
    )


def _fields(
    before: FeatureSet | Feature, after: FeatureSet | Feature, names: tuple[str, ...]
) -> tuple[FieldChange, ...]:
    return tuple(
        FieldChange(field=name.removesuffix("_ms"), before=_text(name, was), after=_text(name, now))
        for name in names
        if (was := getattr(before, name)) != (now := getattr(after, name))
    )


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if name.endswith("_ms"):
        return format_duration(value)
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return str(value)
