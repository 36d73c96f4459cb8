"""All that is decided about one feature set, as the control topic keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from streams.definitions.exclusions import Exclusion
from streams.names import variant


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveVersion:
    """A version whose bundles follow the stream, or are being brought there.

    `generation` numbers the attempt: an ack counts for the attempt that it names. `excluding` is
    the number of the latest exclusion that it is planned with, 0 for none. The attempt starts
    from `checkpoint` where a request has asked for that.
    """

    version: str
    generation: int = 0
    ready: bool = False
    excluding: int = 0
    checkpoint: str | None = None

    @property
    def name(self) -> str:
        """What it goes by where it is run."""
        return variant(self.version, self.excluding)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """A switch forward that has not been undone."""

    version: str
    from_version: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Toggle:
    """A feature of a version that is switched off, and the version that stands in for it."""

    version: str
    feature: str
    fallback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A version whose vectors go to a topic of its own, by these schemas of that topic."""

    version: str
    key_schema_id: int
    value_schema_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What holds by an epoch of a set: who serves, what is switched off, what is pinned, and up
    to which exclusion events are left out.

    `corrects` is what a version goes by whose vectors the one that serves says again where it
    takes over.
    """

    serving: str
    corrects: str | None = None
    toggles: tuple[Toggle, ...] = ()
    pinned: tuple[Pin, ...] = ()
    excluding: int = 0

    def name(self, version: str) -> str:
        """What a version goes by where it is run."""
        return variant(version, self.excluding)

    @property
    def speaker(self) -> str:
        """What the version that serves goes by."""
        return self.name(self.serving)

    def off(self, version: str) -> dict[str, str | None]:
        """The features of a version that are switched off, and what stands in for each."""
        return {it.feature: it.fallback for it in self.toggles if it.version == version}

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that have to follow the stream: those that speak, and stand-ins."""
        speak = (self.serving, *(pin.version for pin in self.pinned))
        stand_in = (it for one in speak for it in self.off(one).values() if it is not None)
        return tuple(dict.fromkeys((*speak, *stand_in)))

    @property
    def needed(self) -> tuple[str, ...]:
        """What these go by where they are run."""
        return tuple(map(self.name, self.versions))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRecord:
    """All that is decided about one set. The newest one of a set says everything.

    `epoch` numbers what partitions fence: who serves, what it `corrects`, `toggles`, `pinned`,
    `excluding`. `live` is in order of publication; `served` are the versions that serve or have
    served, the latest last; `generation` is the last one given out. Events of `exclusions` are
    left out up to the one numbered `excluding`; a later one is being prepared. Owners read the
    definitions at least up to `definitions_offset` before they obey.
    """

    feature_set: str
    serving: str
    epoch: int = 0
    live: tuple[LiveVersion, ...] = ()
    generation: int = 0
    served: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    pinned: tuple[Pin, ...] = ()
    toggles: tuple[Toggle, ...] = ()
    corrects: str | None = None
    activations: tuple[Activation, ...] = ()
    definitions_offset: int = 0
    request_id: str | None = None
    exclusions: tuple[Exclusion, ...] = ()
    excluding: int = 0

    def live_version(self, version: str | None) -> LiveVersion | None:
        """The version as it is live by what is left out now."""
        now = (self.excluding, version)
        return next((one for one in self.live if (one.excluding, one.version) == now), None)

    @property
    def pending(self) -> Exclusion | None:
        """The exclusion that is being prepared."""
        last = self.exclusions[-1] if self.exclusions else None
        return last if last is not None and last.number > self.excluding else None

    @property
    def in_force(self) -> tuple[Exclusion, ...]:
        """What is left out now."""
        return tuple(one for one in self.exclusions if one.number <= self.excluding)

    def preparing(self, target: str) -> tuple[LiveVersion, ...]:
        """What has to be ready before `target` can take over as is being prepared: with it what
        stands in for features that it has switched off."""
        pending = self.pending
        if pending is not None:
            return tuple(one for one in self.live if one.excluding == pending.number)
        stand_ins = (it for it in self.held.off(target).values() if it is not None)
        found = map(self.live_version, dict.fromkeys((target, *stand_ins)))
        return tuple(one for one in found if one is not None)

    @property
    def pins(self) -> tuple[str, ...]:
        """The pinned versions."""
        return tuple(pin.version for pin in self.pinned)

    @property
    def held(self) -> Held:
        """What its epoch is about."""
        return Held(
            serving=self.serving,
            corrects=self.corrects,
            toggles=self.toggles,
            pinned=self.pinned,
            excluding=self.excluding,
        )
