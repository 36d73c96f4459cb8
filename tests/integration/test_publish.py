"""Publishing definitions to a real Kafka and registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from streams.cli import publish as command
from streams.cli.main import main
from streams.config import load_settings
from streams.definitions.decide import Change
from streams.definitions.publish import PublishOutcome, publish
from streams.definitions.store import read_definitions
from streams.errors import InvalidInputError, RefusedError, RewindowError, UnreachableError
from streams.kafka import (
    TopicSpec,
    confluent_config,
    ensure_topics,
    topic_config,
    topic_partitions,
)
from streams.schema.output import owner
from streams.schema.registry import Registry
from streams.settings import Settings
from tests.integration.kafka_tools import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.devstack import Addresses
    from tests.integration.kafka_tools import KafkaTools

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "flight",
    "fields": [
        {"name": "origin", "type": "string"},
        {"name": "carrier", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "delay", "type": ["null", "int"], "default": None},
    ],
}
COUNT = "n: {count: '*', window: 1h}"
WIDER = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "seats", "type": "int", "default": 0}]}


class Project:
    """One user's app with its files, source topic and schema."""

    def __init__(self, directory: Path, addresses: Addresses, prefix: str) -> None:
        self.directory = directory
        self.addresses = addresses
        self.prefix = prefix
        self.topic = f"{prefix}_flights"
        self.subject = f"{self.topic}-value"
        self.set_name = f"{prefix}_departures"

    def settings(self, app: str | None = None) -> Settings:
        return load_settings(
            bootstrap_servers=self.addresses.bootstrap_servers,
            registry_url=self.addresses.registry_url,
            app=app or self.prefix,
            environ={"HOME": str(self.directory)},
        )

    def source(self, **changes: str) -> Path:
        """A file with the source; `changes` replace or add keys."""
        keys = {
            "kind": "source",
            "name": "flights",
            "topic": self.topic,
            "schema": self.subject,
            "event_time": "at",
            "key": "[origin]",
            **changes,
        }
        return self._write("source.yaml", keys)

    def feature_set(self, *features: str, **changes: str) -> Path:
        """A file with a version of the set."""
        keys = {
            "kind": "feature_set",
            "name": self.set_name,
            "version": "1.0.0",
            "source": "flights",
            "entity": "[origin]",
            "every": "10m",
            **changes,
            "features": "".join(
                f"\n  {line}" for line in features or ("n: {count: '*', window: 1h}",)
            ),
        }
        return self._write("set.yaml", keys)

    def _write(self, name: str, keys: dict[str, str]) -> Path:
        file = self.directory / name
        file.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
        return file

    def publish(
        self, *files: Path, app: str | None = None, dry_run: bool = False
    ) -> list[PublishOutcome]:
        settings = self.settings(app)
        with Registry.from_settings(settings.registry_options()) as registry:
            return publish(settings, files, registry, dry_run=dry_run)

    def changes(self, *files: Path) -> list[Change]:
        return [outcome.change for outcome in self.publish(*files)]


@pytest.fixture
def project(tmp_path: Path, stack: Addresses, kafka: KafkaTools, prefix: str) -> Project:
    """A source topic of three partitions with its schema, nothing published."""
    made = Project(tmp_path, stack, prefix)
    kafka.create_topic(made.topic, partitions=3)
    kafka.register(made.subject, SCHEMA)
    return made


@pytest.fixture
def registry(stack: Addresses) -> Iterator[Registry]:
    with Registry(stack.registry_url) as client:
        yield client


def test_a_source_and_a_set_are_published_and_read_back(
    project: Project, registry: Registry
) -> None:
    outcomes = project.publish(project.source(), project.feature_set())
    assert [outcome.change for outcome in outcomes] == [Change.PUBLISHED, Change.PUBLISHED]
    assert outcomes[1].serves
    definitions = read_definitions(project.settings())
    source = definitions.sources["flights"]
    assert source.schema["name"] == "flight"
    serving = definitions.first(project.set_name)
    assert serving is not None
    assert serving.digest == outcomes[1].digest
    topic = f"features.{project.set_name}"
    value = registry.latest(f"{topic}-value")
    assert serving.value_schema_id == value.schema_id
    assert owner(value.schema) == project.prefix
    for subject in (f"{topic}-key", f"{topic}-value"):
        assert registry.compatibility(subject) == "FULL_TRANSITIVE"


def test_the_topics_are_as_they_have_to_be(project: Project) -> None:
    project.publish(project.source(), project.feature_set())
    settings = project.settings()
    features = settings.names.features_topic(project.set_name)
    assert topic_partitions(settings, features) == 3
    config = topic_config(settings, features)
    assert config["message.timestamp.type"] == "LogAppendTime"
    assert config["retention.ms"] == str(7 * 86_400_000)
    assert topic_partitions(settings, settings.names.definitions_topic) == 1
    assert topic_config(settings, settings.names.definitions_topic)["cleanup.policy"] == "compact"


def test_publishing_twice_changes_nothing(project: Project) -> None:
    files = project.source(), project.feature_set()
    project.publish(*files)
    before = read_definitions(project.settings())
    assert project.changes(*files) == [Change.UNCHANGED, Change.UNCHANGED]
    assert read_definitions(project.settings()) == before


def test_a_dry_run_changes_nothing(project: Project, registry: Registry) -> None:
    outcomes = project.publish(project.source(), project.feature_set(), dry_run=True)
    assert [outcome.change for outcome in outcomes] == [Change.PUBLISHED, Change.PUBLISHED]
    settings = project.settings()
    assert topic_partitions(settings, settings.names.definitions_topic) is None
    assert registry.versions(f"features.{project.set_name}-value") == []


def told(project: Project, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """How a command ends with --json, and what it prints."""
    addresses = project.addresses
    servers = ["--bootstrap-servers", addresses.bootstrap_servers]
    registry = ["--registry-url", addresses.registry_url]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--app", project.prefix, "--json", *servers, *registry])
    assert isinstance(ended.value.code, int)
    printed = capsys.readouterr().out
    return ended.value.code, json.loads(printed) if printed else None


def test_a_plan_tells_what_publishing_comes_to_and_does_nothing(
    project: Project, kafka: KafkaTools, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka.produce(project.topic, [Outgoing(value=b"x", partition=1)] * 3)
    project.publish(project.source(), project.feature_set(COUNT))
    delays = project.feature_set(
        COUNT, "n4: {count: '*', window: 4h}", "d: {sum: delay, window: 1h}", version="1.1.0"
    )
    before = read_definitions(project.settings()).next_offset
    exit_code, printed = told(project, capsys, "plan", str(delays))
    assert (exit_code, printed["refused"]) == (0, False)
    source, version = printed["definitions"]
    assert (source["change"], version["change"]) == ("unchanged", "published")
    plan = version["plan"]
    takes = {one["name"]: (one["takes"], one["shared_with"]) for one in plan["features"]}
    assert takes == {
        "n": ("shared", ["1.0.0"]),
        "n4": ("panes", ["1.0.0"]),
        "d": ("replay", []),
    }
    offsets = [(one["from_offset"], one["to_offset"]) for one in plan["replay"]["partitions"]]
    assert offsets == [(0, 0), (0, 3), (0, 0)]
    assert plan["live_after"] == ["1.0.0", "1.1.0"]
    other = project.feature_set("n: {count: delay, window: 1h}")
    exit_code, printed = told(project, capsys, "plan", str(other))
    assert (exit_code, printed["definitions"][1]["change"]) == (3, "refused")
    assert "other content" in printed["definitions"][1]["reasons"][0]
    wrong_type = project.feature_set("n: {mean: delay, window: 1h}", version="1.1.0")
    exit_code, printed = told(project, capsys, "plan", str(wrong_type))
    assert exit_code == 3
    assert "another type needs another name" in printed["definitions"][1]["reasons"][0]
    assert read_definitions(project.settings()).next_offset == before


def test_values_of_two_versions_are_compared_where_both_were_computed(
    project: Project, kafka: KafkaTools, capsys: pytest.CaptureFixture[str]
) -> None:
    project.publish(project.source(), project.feature_set(COUNT, "gone: {count: '*', window: 1h}"))
    second = project.feature_set("n: {count: delay, window: 1h}", version="1.1.0")
    project.publish(second)
    name = project.set_name
    one, other = (f"{name}@1.0.0", f"{name}@1.1.0")
    exit_code, printed = told(project, capsys, "diff", one, other)
    assert exit_code == 0
    assert printed["definitions"]["features"]["removed"] == ["gone"]
    assert printed["values"]["pairs"] == 0
    assert f"rewindow pin {name}@1.0.0" in printed["values"]["remarks"][0]

    first_set, second_set = read_definitions(project.settings()).sets[name]

    def vector(version: str, origin: str, as_of_ms: int, **features: int) -> Outgoing:
        published = first_set if version == "1.0.0" else second_set
        fields = {"origin": origin, "as_of": as_of_ms, "rewindow_kind": "final"}
        value = {**fields, "rewindow_version": version, **features}
        encoded = kafka.encode(published.value_schema_id, value)
        return Outgoing(value=encoded, partition=1, headers={"rewindow.version": version.encode()})

    topic = project.settings().names.features_topic(name)
    served = [vector("1.0.0", origin, 600_000, n=5, gone=1) for origin in ("a", "b", "c")]
    kafka.produce(topic, [*served, vector("1.0.0", "a", 1_200_000, n=9, gone=1)])
    pinned = project.settings().names.pinned_topic(name, "1.1.0")
    kafka.create_topic(pinned, partitions=3)
    kafka.produce(pinned, [vector("1.1.0", "a", 600_000, n=5), vector("1.1.0", "b", 600_000, n=3)])
    values = told(project, capsys, "diff", one, other)[1]["values"]
    assert values["topics"] == [topic, pinned]
    assert values["vectors"] == {"a": 4, "b": 2}
    assert (values["pairs"], values["only_a"], values["only_b"]) == (2, 1, 0)
    (found,) = values["features"]
    assert (found["name"], found["compared"], found["equal"]) == ("n", 2, 1)
    assert found["examples"] == [{"entity": "b", "as_of_ms": 600_000, "a": 5, "b": 3}]
    later = told(project, capsys, "diff", one, other, "--since", "1970-01-01T00:11")[1]
    assert later["values"]["pairs"] == 0
    unknown = told(project, capsys, "diff", one, f"{name}@9.9.9")
    assert unknown == (2, None)


def test_other_content_under_a_published_version_is_refused(project: Project) -> None:
    project.publish(project.source(), project.feature_set())
    with pytest.raises(RefusedError, match=r"published with other content \(every\)"):
        project.publish(project.feature_set(every="5m"))


def test_a_later_version_waits_to_be_activated(project: Project) -> None:
    project.publish(project.source(), project.feature_set())
    later = project.feature_set("n: {count: '*', window: 2h}", version="1.1.0")
    (_, outcome) = project.publish(later)
    assert outcome.change is Change.PUBLISHED
    assert not outcome.serves
    assert f"rewindow activate {project.set_name}@1.1.0" in outcome.notes[0]
    serving = read_definitions(project.settings()).first(project.set_name)
    assert serving is not None
    assert serving.feature_set.version == "1.0.0"


def test_a_description_may_change_and_the_first_version_still_serves(project: Project) -> None:
    project.publish(project.source(), project.feature_set())
    project.publish(project.feature_set(version="1.1.0"))
    assert project.changes(project.feature_set(description="more"))[-1] is Change.UPDATED
    definitions = read_definitions(project.settings())
    serving = definitions.first(project.set_name)
    assert serving is not None
    assert (serving.feature_set.version, serving.feature_set.description) == ("1.0.0", "more")


def test_a_new_version_reads_a_field_that_came_later(project: Project, kafka: KafkaTools) -> None:
    project.publish(project.source(), project.feature_set())
    seats = project.feature_set("seats: {sum: seats, window: 1h}", version="1.1.0")
    with pytest.raises(InvalidInputError, match=r"set\.yaml:\d+: features\.seats\.sum: unknown"):
        project.publish(seats)
    kafka.register(project.subject, WIDER)
    assert project.changes(seats) == [Change.UPDATED, Change.PUBLISHED]
    fields = read_definitions(project.settings()).sources["flights"].schema["fields"]
    assert fields[-1]["name"] == "seats"


def test_an_incompatible_output_is_refused_before_anything_is_written(
    project: Project, registry: Registry
) -> None:
    project.publish(project.source(), project.feature_set("n: {max: delay, window: 1h}"))
    before = read_definitions(project.settings())
    with pytest.raises(RefusedError, match="FULL_TRANSITIVE"):
        project.publish(project.feature_set("n: {max: carrier, window: 1h}", version="1.1.0"))
    assert read_definitions(project.settings()) == before
    assert registry.versions(f"features.{project.set_name}-value") == [1]


def test_a_level_that_somebody_has_set_on_the_output_holds_and_is_told(
    project: Project, registry: Registry
) -> None:
    subject = f"features.{project.set_name}-value"
    project.publish(project.source(), project.feature_set("n: {max: delay, window: 1h}"))
    other = project.feature_set("n: {max: carrier, window: 1h}", version="1.1.0")
    registry.set_compatibility(subject, "NONE")
    *_, outcome = project.publish(other)
    assert outcome.change is Change.PUBLISHED
    assert f"subject '{subject}' has level NONE" in outcome.notes[0]
    assert "field 'n' changes from" in outcome.notes[0]
    assert registry.compatibility(subject) == "NONE"
    registry.set_compatibility(subject, "FULL_TRANSITIVE")
    again = project.feature_set("n: {max: delay, window: 1h}", version="1.2.0", every="5m")
    *_, outcome = project.publish(again)
    assert not any("level" in note for note in outcome.notes)
    with pytest.raises(RefusedError, match="FULL_TRANSITIVE"):
        project.publish(project.feature_set("n: {max: carrier, window: 1h}", version="1.3.0"))


def test_another_app_can_not_take_the_feature_topic(project: Project) -> None:
    files = project.source(), project.feature_set()
    project.publish(*files)
    with pytest.raises(RefusedError, match=f"belongs to app '{project.prefix}'"):
        project.publish(*files, app=f"{project.prefix}-other")


def test_a_subject_that_is_missing_says_what_to_do(project: Project) -> None:
    with pytest.raises(InvalidInputError, match=r"source\.yaml:4: schema: .* no subject 'none'"):
        project.publish(project.source(schema="none"))


def test_a_topic_that_is_missing_is_a_warning(project: Project) -> None:
    (outcome,) = project.publish(project.source(topic=f"{project.prefix}_none"))
    assert "does not exist" in outcome.notes[0]


def test_a_retention_shorter_than_the_windows_is_a_warning(
    project: Project, kafka: KafkaTools
) -> None:
    topic = f"{project.prefix}_short"
    kafka.create_topic(topic, retention_ms="3600000")
    feature_set = project.feature_set(allowed_lateness="1h")
    source, _ = project.publish(project.source(topic=topic), feature_set)
    assert f"topic {topic} keeps records for 1h" in source.notes[0]
    assert "need 2h" in source.notes[0]


def test_of_two_publishers_the_one_that_was_overtaken_writes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second starts and finishes while the first has read but not yet written."""
    source = project.source()
    project.publish(source)
    slow = project.feature_set(every="5m").rename(project.directory / "slow.yaml")
    fast = project.feature_set(every="10m")
    real = Registry.schema
    overtaken: list[PublishOutcome] = []

    def interrupted(registry: Registry, subject: str, version: int | str) -> Any:
        if not overtaken:
            monkeypatch.setattr(Registry, "schema", real)
            overtaken.extend(project.publish(fast))
        return real(registry, subject, version)

    monkeypatch.setattr(Registry, "schema", interrupted)
    with pytest.raises(RefusedError, match="another publish of this app ran at the same time"):
        project.publish(slow)
    serving = read_definitions(project.settings()).first(project.set_name)
    assert serving is not None
    assert serving.feature_set.every_ms == 600_000


def test_definitions_that_were_in_use_and_are_gone_are_noticed(project: Project) -> None:
    with pytest.raises(RewindowError, match="ends at offset 0, but definitions up to 5"):
        read_definitions(project.settings(), at_least_offset=5)


def test_topics_of_another_shape_are_refused(project: Project) -> None:
    settings = project.settings()
    with pytest.raises(RefusedError, match="has 3 partitions and needs 4"):
        ensure_topics(settings, [TopicSpec(name=project.topic, partitions=4)])


def test_topics_are_not_made_where_that_is_forbidden(project: Project) -> None:
    file = project.directory / "rewindow.toml"
    file.write_text("[topics]\ncreate = false\n")
    settings = load_settings(
        file,
        bootstrap_servers=project.addresses.bootstrap_servers,
        registry_url=project.addresses.registry_url,
        environ={},
    )
    name = f"{project.prefix}_none"
    with pytest.raises(RefusedError, match=f"--create --topic {name} --partitions 2"):
        ensure_topics(settings, [TopicSpec(name=name, partitions=2)])


def test_a_kafka_that_is_not_there_is_said_so(tmp_path: Path, project: Project) -> None:
    settings = load_settings(
        bootstrap_servers="127.0.0.1:1", registry_url="http://127.0.0.1:1", environ={}
    )
    assert "log_level" in confluent_config(settings)
    with (
        Registry(project.addresses.registry_url) as registry,
        pytest.raises(UnreachableError, match=r"Kafka at 127\.0\.0\.1:1 does not answer"),
    ):
        publish(settings, [project.source()], registry)
    assert tmp_path.exists()


def test_the_command_prints_json(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    command.publish(
        files=[project.source(), project.feature_set()],
        json=True,
        bootstrap_servers=project.addresses.bootstrap_servers,
        registry_url=project.addresses.registry_url,
        app=project.prefix,
    )
    printed = json.loads(capsys.readouterr().out)
    assert [one["change"] for one in printed["definitions"]] == ["published", "published"]
    assert printed["definitions"][1]["version"] == "1.0.0"
