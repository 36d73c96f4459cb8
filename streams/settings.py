"""Settings as data: what `streams.config` makes of options, variables and the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streams.durations import DAY_MS
from streams.errors import InvalidInputError
from streams.names import Names

if TYPE_CHECKING:
    from collections.abc import Mapping

KEEP = 2
NO_SNAPSHOTS = "none"


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that is never shown; `reveal` is for the client that needs it."""

    _value: str = field(repr=False)

    def reveal(self) -> str:
        return self._value

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSettings:
    """How topics are made. `partitions` None: as many as the source; `replication_factor`
    None: the broker's default. `retention_ms` is that of feature topics."""

    prefix: str = ""
    partitions: int | None = None
    replication_factor: int | None = None
    create: bool = True
    retention_ms: int = 7 * DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSettings:
    """Where checkpoints are kept, how often they are taken, and how many of each bundle stay.

    `options` go by the object store's names (`endpoint`, `region`, `access_key_id`, …).
    """

    url: str
    every_ms: int = 10 * 60_000
    keep: int = 6
    options: Mapping[str, str | Secret] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSettings:
    """How versions live. `keep` is how many of those that served before the serving one stay
    live."""

    keep: int = KEEP


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one app. `kafka` and `registry` go by librdkafka's names.

    Without `snapshots` there are no checkpoints.
    """

    app: str
    kafka: Mapping[str, str | Secret]
    registry: Mapping[str, str | Secret]
    topics: TopicSettings
    state_dir: Path
    versions: VersionSettings = VersionSettings()
    snapshots: SnapshotSettings | None = None

    @property
    def names(self) -> Names:
        return Names(app=self.app, prefix=self.topics.prefix)

    @property
    def bootstrap_servers(self) -> str:
        return str(self.kafka["bootstrap.servers"])

    def needed_snapshots(self) -> SnapshotSettings:
        """Raises InvalidInputError where there are to be no checkpoints."""
        if self.snapshots is None:
            raise InvalidInputError(
                'no checkpoints are kept: [snapshots].url is "none"; name a directory or a bucket'
            )
        return self.snapshots

    def registry_options(self) -> dict[str, str]:
        """`registry` with its secrets, for the client."""
        return reveal(self.registry)

    def public(self) -> dict[str, Any]:
        """The settings for people to see, in JSON types; secrets are masked."""
        topics = self.topics
        return {
            "app": self.app,
            "kafka": {key: str(value) for key, value in self.kafka.items()},
            "registry": {key: str(value) for key, value in self.registry.items()},
            "topics": {
                "prefix": topics.prefix,
                "partitions": topics.partitions,
                "replication_factor": topics.replication_factor,
                "create": topics.create,
                "retention_ms": topics.retention_ms,
            },
            "state": {"dir": str(self.state_dir)},
            "snapshots": _public(self.snapshots),
            "versions": {"keep": self.versions.keep},
        }


def _public(snapshots: SnapshotSettings | None) -> dict[str, Any]:
    if snapshots is None:
        return {"url": NO_SNAPSHOTS}
    return {
        "url": snapshots.url,
        "every_ms": snapshots.every_ms,
        "keep": snapshots.keep,
        **{key: str(value) for key, value in snapshots.options.items()},
    }


def reveal(options: Mapping[str, str | Secret]) -> dict[str, str]:
    """`options` with its secrets."""
    return {
        key: value.reveal() if isinstance(value, Secret) else value
        for key, value in options.items()
    }
