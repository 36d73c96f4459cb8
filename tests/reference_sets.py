"""The reference model's feature sets: rules 3 to 13 of `tests.reference`, for one set at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.reference_versions import Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streams.definitions.model import FeatureSet
    from tests.reference_records import Event
    from tests.reference_versions import Entity, Vector, VectorKey


class SetModel:
    """One feature set over one stream partition, by the version that serves."""

    def __init__(self, versions: Sequence[FeatureSet], fields: Sequence[str]) -> None:
        self.name = versions[0].name
        self.closed_through_ms: int | None = None
        self.vectors: dict[VectorKey, Vector] = {}
        self.pins: dict[str, PinModel] = {}
        self.all_pins: list[PinModel] = []
        """Former ones, too."""
        self.corrections: dict[VectorKey, list[Vector]] = {}
        self.doubtful: set[VectorKey] = set()
        """Corrections over panes that only the version that took over retains. They come if it was
        live early enough."""
        self._took_over_ms: int | None = None
        """What was closed when the version that serves took over."""
        self._versions = {one.version: Version(one, fields) for one in versions}
        self._serving = self._versions[versions[0].version]
        self._closed_by = self._serving
        """Who serves, or who did until it, if that one has closed nothing yet."""

    @property
    def definition(self) -> FeatureSet:
        """Of the version that serves."""
        return self._serving.definition

    def missing_entity(self, event: Event) -> bool:
        """Whether it lacks its entity, and the set wants it."""
        missing = any(event.fields.get(name) is None for name in self.definition.entity)
        return missing and self._serving.wants(event)

    def apply(self, event: Event, event_time_ms: int, floor_ms: int | None) -> bool:
        """Add the event; True if it is late."""
        ours = {one: one.apply(event, event_time_ms, floor_ms) for one in self._versions.values()}
        for pin in self.pins.values():
            pin.apply(event, event_time_ms, floor_ms)
        if not ours[self._serving] or self.closed_through_ms is None:
            return False
        return self._serving.last_as_of(event_time_ms) <= self.closed_through_ms

    def repair(self, version: str, floor_ms: int | None) -> None:
        """What the version that serves has said is said again by the one that will serve."""
        before, after = self._serving, self._versions[version]
        if after is before or self.closed_through_ms is None:
            return
        pair = (before.definition, after.definition)
        windows = [(one.longest_window_ms, one.retention_ms) for one in pair]
        for name, other in after.off.items():
            if other is not None:
                window = next(it.window_ms for it in other.definition.features if it.name == name)
                windows.append((window, other.definition.retention_ms))
        first = self.closed_through_ms - min(retention for _, retention in windows)
        if floor_ms is not None:
            first = max(first, floor_ms + max(longest for longest, _ in windows))
        if self._took_over_ms is not None:
            first = max(first, self._took_over_ms + 1)
        every = before.definition.every_ms
        longest, retained = after.definition.longest_window_ms, before.definition.retention_ms
        sure = self.closed_through_ms - before.definition.longest_window_ms - retained
        for as_of in range(-(-first // every) * every, self.closed_through_ms + 1, every):
            for entity, vector in after.correct(before, as_of).items():
                key = (self.name, entity, as_of)
                self.corrections.setdefault(key, []).append(vector)
                if as_of - longest < sure:
                    self.doubtful.add(key)

    def switch(self, version: str, watermark_ms: int | None, floor_ms: int | None) -> None:
        """Another version serves, and closes what it has to close at this watermark."""
        if _published(self._serving.definition.version) != _published(version):
            self._took_over_ms = self.closed_through_ms
        self._serving = self._versions[version]
        if self.closed_through_ms is None:
            self._closed_by = self._serving
        if floor_ms is not None:
            self.raise_floor(floor_ms)
        if watermark_ms is not None:
            self.close_through(watermark_ms - self.definition.allowed_lateness_ms, floor_ms)

    def toggle(self, version: str, feature: str, off: bool, stand_in: str | None) -> None:
        """A feature is off or on wherever its version speaks."""
        found = self._versions[version].off
        found.pop(feature, None)
        if off:
            found[feature] = None if stand_in is None else self._versions[stand_in]

    def pin(self, version: str, watermark_ms: int | None, floor_ms: int | None) -> PinModel:
        """A version closes for itself, too, from here on; one that does goes on without some
        events."""
        published = _published(version)
        if published in self.pins:
            self.pins[published].go_on_as(self._versions[version])
            return self.pins[published]
        made = PinModel(
            f"{self.name}@{published}",
            self._versions[version],
            watermark_ms,
            self.closed_through_ms,
        )
        if floor_ms is not None:
            made.raise_floor(floor_ms)
        self.pins[published] = made
        self.all_pins.append(made)
        return made

    def unpin(self, version: str) -> None:
        del self.pins[_published(version)]

    def raise_floor(self, floor_ms: int) -> None:
        """Nothing goes out for windows that begin before the floor."""
        before = self._serving.last_before(floor_ms)
        if self.closed_through_ms is None or before > self.closed_through_ms:
            self.closed_through_ms = before
            self._closed_by = self._serving

    def close_through(self, limit_ms: int, floor_ms: int | None) -> None:
        """Close every T up to `limit_ms` that is not closed yet."""
        every = self.definition.every_ms
        target = limit_ms // every * every
        if self._closed_by is not self._serving:
            assert self.closed_through_ms is not None
            first = self.closed_through_ms // every * every + every
            if first > target:
                return
            vectors = self._serving.close_after(
                self._closed_by, self.closed_through_ms, first, floor_ms
            )
            self._say(first, vectors)
            self.closed_through_ms = first
            self._closed_by = self._serving
        for as_of, vectors in _closing(self._serving, self.closed_through_ms, target, floor_ms):
            self._say(as_of, vectors)
        if self.closed_through_ms is None or target > self.closed_through_ms:
            self.closed_through_ms = target

    def _say(self, as_of: int, vectors: Mapping[Entity, Vector]) -> None:
        for entity, vector in vectors.items():
            said = self._serving.said(entity, as_of, vector)
            self.vectors[(self.name, entity, as_of)] = said


class PinModel:
    """One pinned version over one stream partition."""

    def __init__(
        self, name: str, version: Version, watermark_ms: int | None, closed_ms: int | None
    ) -> None:
        """`closed_ms` is what is closed for the set."""
        self.name = name
        self.definition = version.definition
        self.vectors: dict[VectorKey, Vector] = {}
        self.closed_through_ms: int | None = None
        self.doubtful: set[VectorKey] = set()
        """Each `empty` as of its first T: it comes if panes before that window are still there."""
        self._version = self._closed_by = version.copied()
        if watermark_ms is not None:
            every = self.definition.every_ms
            limit_ms = watermark_ms - self.definition.allowed_lateness_ms
            if closed_ms is not None:
                limit_ms = max(limit_ms, closed_ms)
            self.closed_through_ms = limit_ms // every * every
        self._began_ms = self.closed_through_ms

    def apply(self, event: Event, event_time_ms: int, floor_ms: int | None) -> None:
        self._version.apply(event, event_time_ms, floor_ms)
        if self._closed_by is not self._version:
            self._closed_by.apply(event, event_time_ms, floor_ms)

    def go_on_as(self, version: Version) -> None:
        """The same version, with other events."""
        self._version = version.copied()
        if self.closed_through_ms is None:
            self._closed_by = self._version

    def raise_floor(self, floor_ms: int) -> None:
        before = self._version.last_before(floor_ms)
        if self.closed_through_ms is None or before > self.closed_through_ms:
            self.closed_through_ms = before
            self._closed_by = self._version

    def close_through(self, limit_ms: int, floor_ms: int | None) -> None:
        """Close every T up to `limit_ms` that is not closed yet."""
        every = self.definition.every_ms
        target = limit_ms // every * every
        if self._closed_by is not self._version:
            assert self.closed_through_ms is not None
            first = self.closed_through_ms + every
            if first > target:
                return
            before, self._closed_by = self._closed_by, self._version
            self._say(
                first, self._version.close_after(before, self.closed_through_ms, first, floor_ms)
            )
            self.closed_through_ms = first
        for as_of, vectors in _closing(self._version, self.closed_through_ms, target, floor_ms):
            self._say(as_of, vectors)
        if self.closed_through_ms is None or target > self.closed_through_ms:
            self.closed_through_ms = target

    def _say(self, as_of: int, vectors: Mapping[Entity, Vector]) -> None:
        for entity, vector in vectors.items():
            key = (self.name, entity, as_of)
            self.vectors[key] = self._version.said(entity, as_of, vector)
            if vector.kind == "empty" and as_of - self.definition.every_ms == self._began_ms:
                self.doubtful.add(key)


def _published(version: str) -> str:
    """The version that this one is without some events, or it itself."""
    return version.partition("~")[0]


def _closing(
    version: Version, closed_ms: int | None, target_ms: int, floor_ms: int | None
) -> Iterator[tuple[int, dict[Entity, Vector]]]:
    """Each T in `(closed, target]` that may have something to say, with its vectors."""
    every = version.definition.every_ms
    as_of = version.next_with_event(None) if closed_ms is None else closed_ms + every
    while as_of is not None and as_of <= target_ms:
        spoke, vectors = version.close(as_of, floor_ms)
        yield as_of, vectors
        # Nothing in reach of this T: on to the first T that has an event.
        as_of = as_of + every if spoke else version.next_with_event(as_of)
