"""Every topic, group, transactional id and path name is formatted here and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
"""What a source, feature set or feature may be called."""

RESERVED_PREFIX = "rewindow_"
AS_OF = "as_of"
VERSION_FIELD = "rewindow_version"
KIND_FIELD = "rewindow_kind"

HEADER_PREFIX = "rewindow."

SNAPSHOTS_DIR = "snapshots"
"""Directory of checkpoints in the state directory, where nothing else is configured."""


def is_reserved(name: str) -> bool:
    """Whether `name` is taken by the output record's own fields."""
    return name.startswith(RESERVED_PREFIX) or name == AS_OF


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Names of one app; `prefix` goes before every topic that the app owns."""

    app: str
    prefix: str = ""

    def _own(self, name: str) -> str:
        return f"{self.prefix}{self.app}.{name}"

    @property
    def definitions_topic(self) -> str:
        return self._own("definitions")

    @property
    def rollback_topic(self) -> str:
        """Where anyone may ask for a change of versions."""
        return self._own("rollback")

    @property
    def replies_topic(self) -> str:
        return self._own("replies")

    @property
    def control_topic(self) -> str:
        """Decisions, which only the coordinator writes."""
        return self._own("control")

    @property
    def acks_topic(self) -> str:
        return self._own("acks")

    @property
    def audit_topic(self) -> str:
        return self._own("audit")

    @property
    def index_topic(self) -> str:
        """How far event time had come at some offsets of the streams."""
        return self._own("index")

    @property
    def late_topic(self) -> str:
        return self._own("late")

    @property
    def dlq_topic(self) -> str:
        return self._own("dlq")

    def features_topic(self, feature_set: str) -> str:
        return f"{self.prefix}features.{feature_set}"

    def pinned_topic(self, feature_set: str, version: str) -> str:
        """Where the vectors of a pinned version go."""
        return f"{self.features_topic(feature_set)}.v{version}"

    def stream_topic(self, source: str, entity: tuple[str, ...]) -> str:
        """Repartition topic of `source` rekeyed by the `entity` fields."""
        return self._own(f"stream.{stream_name(source, entity)}")

    @property
    def worker_group(self) -> str:
        return self.app

    def rekey_group(self, stream: str) -> str:
        return f"{self.app}.rekey.{stream}"

    def transactional_id(self, stream: str, partition: int) -> str:
        return f"{self.app}:{stream}:{partition}"

    def rekey_transactional_id(self, stream: str, source_partition: int) -> str:
        return f"{self.app}:rekey:{stream}:{source_partition}"

    @property
    def coordinator_group(self) -> str:
        """Whoever has the rollback topic's partition in this group coordinates."""
        return f"{self.app}.coordinator"

    @property
    def coordinator_transactional_id(self) -> str:
        return f"{self.app}:coordinator"

    @property
    def publish_transactional_id(self) -> str:
        return f"{self.app}:publish"


def stream_name(source: str, entity: tuple[str, ...]) -> str:
    """Name of `source` rekeyed by `entity`."""
    return f"{source}.by.{'.'.join(entity)}"


def outlet(feature_set: str, version: str) -> str:
    """What a pinned version's vectors go by, where a set's go by its name."""
    return f"{feature_set}@{version}"


def variant(version: str, excluding: int) -> str:
    """What a version goes by while a set leaves events out: one that stores something else.

    `excluding` is the number of the latest exclusion that it plans with, 0 for none.
    """
    return f"{version}~{excluding}" if excluding else version


def set_of(outlet: str) -> str:
    """The set whose vectors go by this."""
    return outlet.partition("@")[0]


def subjects(topic: str) -> tuple[str, str]:
    """Registry subjects of a topic's key and value (TopicNameStrategy)."""
    return f"{topic}-key", f"{topic}-value"


def bundle_dir(state_dir: Path, stream: str, partition: int, bundle: str) -> Path:
    """Where the RocksDB of one bundle of one stream partition lives."""
    return state_dir / stream / str(partition) / bundle


def staging_dir(state_dir: Path) -> Path:
    """Where checkpoints wait for their upload, or are brought together; no stream's name."""
    return state_dir / ".staging"
