"""Where a demo runs: a Kafka and registry, names that nothing else uses, a configuration."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import tomllib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import yaml
from confluent_kafka.admin import AdminClient

from streams import devstack
from streams.config import load_settings
from streams.devstack import Addresses, DevStack
from streams.names import Names
from streams.schema.registry import Registry
from streams.settings import reveal

if TYPE_CHECKING:
    from collections.abc import Iterator

FLIGHTS = Path(__file__).parents[1]
SCHEMAS = Path(__file__).parents[3] / "schemas"
KEPT = Path(".rewindow/demo")
FEATURES = (
    FLIGHTS / "features" / "origin_departures.yaml",
    FLIGHTS / "features" / "carrier_delays.yaml",
)
LIFECYCLE: Mapping[str, str | None] = {"idle_after": "2s", "close_after": "5s"}
"""Shorter than an application would have it, as here nothing comes after the last flight."""

REQUEST_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Addresses, names and files of one demo; `prefix` begins the names of its topics."""

    addresses: Addresses
    directory: Path
    app: str
    prefix: str
    features: tuple[Path, ...] = FEATURES
    lifecycle: Mapping[str, str | None] = field(default_factory=lambda: LIFECYCLE)
    """Changes to the source's settings; None takes one away."""

    @property
    def names(self) -> Names:
        return Names(app=self.app, prefix=self.prefix)

    @property
    def flights_topic(self) -> str:
        return f"{self.prefix}flights"

    @property
    def config(self) -> Path:
        """The `rewindow.toml` for commands that work on this demo."""
        return self.directory / "rewindow.toml"

    @property
    def definitions(self) -> tuple[Path, ...]:
        """Files to publish: the source under this demo's names, and the feature sets."""
        return (self.directory / "flights.yaml", *self.features)

    @property
    def client(self) -> dict[str, str]:
        """librdkafka settings of a client of this Kafka; what goes wrong is raised, not logged."""
        return {"log_level": "2", **reveal(load_settings(self.config).kafka)}

    def write(self) -> None:
        """Make the directory, with the configuration and the source's definition in it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            f'app = "{self.app}"\n\n'
            f'[kafka]\n"bootstrap.servers" = "{self.addresses.bootstrap_servers}"\n\n'
            f'[registry]\nurl = "{self.addresses.registry_url}"\n\n'
            f'[topics]\nprefix = "{self.prefix}"\n\n'
            '[state]\ndir = "state"\n',
            encoding="utf-8",
        )
        source = yaml.safe_load((FLIGHTS / "sources" / "flights.yaml").read_text(encoding="utf-8"))
        source.update(
            self.lifecycle, topic=self.flights_topic, schema=f"{self.flights_topic}-value"
        )
        kept = {name: value for name, value in source.items() if value is not None}
        text = yaml.safe_dump(kept, sort_keys=False)
        (self.directory / "flights.yaml").write_text(text, encoding="utf-8")

    def register_schemas(self) -> list[str]:
        """Register all versions of what `schemas/` has, oldest first; the subjects.

        Raises `RewindowError` if the registry refuses one or does not answer.
        """
        rules = tomllib.loads((SCHEMAS / "compatibility.toml").read_text(encoding="utf-8"))
        subjects = []
        with Registry.from_settings(load_settings(self.config).registry_options()) as registry:
            for file in sorted(SCHEMAS.glob("*/v*.avsc")):
                subject = f"{self.prefix}{file.parent.name}"
                if subject not in subjects:
                    subjects.append(subject)
                    level = rules["subjects"].get(file.parent.name, rules["default"])
                    registry.set_compatibility(subject, level)
                registry.register(subject, json.loads(file.read_text(encoding="utf-8")))
        return subjects


@contextlib.contextmanager
def site(
    *,
    given: Addresses | None,
    keep: bool,
    features: tuple[Path, ...] = FEATURES,
    lifecycle: Mapping[str, str | None] = LIFECYCLE,
) -> Iterator[Site]:
    """A site for one demo, started if none is `given`, and removed in the end unless kept.

    With `keep` and nothing given it is the stack of `rewindow up`. `features` and `lifecycle`
    are those of `Site`.
    """
    with contextlib.ExitStack() as stack:
        if keep:
            directory = KEPT
            shutil.rmtree(directory, ignore_errors=True)
        else:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rewindow-")))
        if given is None and not keep:
            own = stack.enter_context(DevStack(directory / "stack"))
            addresses, name, prefix = own.addresses, "demo", ""
        else:
            name = f"demo-{uuid.uuid4().hex[:8]}"
            addresses, prefix = given or devstack.up(), f"{name}."
        found = Site(
            addresses=addresses,
            directory=directory,
            app=name,
            prefix=prefix,
            features=features,
            lifecycle=lifecycle,
        )
        found.write()
        if given is not None and not keep:
            stack.callback(_remove, found)
        yield found


def _remove(done: Site) -> None:
    """Take what a demo left on somebody's servers away again."""
    admin = AdminClient({**done.client})
    topics = [
        topic
        for topic in admin.list_topics(timeout=REQUEST_S).topics
        if topic.startswith(done.prefix)
    ]
    found = admin.list_consumer_groups().result(REQUEST_S)
    groups = [one.group_id for one in found.valid if one.group_id.startswith(done.app)]
    for future in (
        *(admin.delete_topics(topics) if topics else {}).values(),
        *(admin.delete_consumer_groups(groups) if groups else {}).values(),
    ):
        with contextlib.suppress(Exception):  # what is gone already, or still has a member
            future.result(REQUEST_S)
    _remove_subjects(done.addresses.registry_url, done.prefix)


def _remove_subjects(registry_url: str, prefix: str) -> None:
    options: Mapping[str, str] = {"permanent": "true"}
    with httpx.Client(base_url=registry_url, timeout=REQUEST_S) as registry:
        for subject in registry.get("/subjects").json():
            if subject.startswith(prefix):
                registry.delete(f"/subjects/{subject}")
                registry.delete(f"/subjects/{subject}", params=options)
