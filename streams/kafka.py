"""Talking to Kafka outside of the data path: client settings, topics, reachability."""

from __future__ import annotations

import re
import ssl
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from streams.errors import InvalidInputError, RefusedError, RewindowError, UnreachableError
from streams.settings import Settings, reveal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REQUEST_TIMEOUT_S = 10.0
_VISIBLE_ATTEMPTS = 100
_VISIBLE_PAUSE_S = 0.05

# What librdkafka adds to its reasons, which says nothing to users.
_CLIENT_DETAIL = re.compile(r"^\S+/\w+: | \(after \d+ms in state .*\)$")

_UNREACHABLE = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
    }
)

_AIOKAFKA: Mapping[str, str] = {
    "bootstrap.servers": "bootstrap_servers",
    "client.id": "client_id",
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
}
_AIOKAFKA_NUMBERS: Mapping[str, str] = {
    "request.timeout.ms": "request_timeout_ms",
    "metadata.max.age.ms": "metadata_max_age_ms",
    "connections.max.idle.ms": "connections_max_idle_ms",
    "retry.backoff.ms": "retry_backoff_ms",
}
_SSL = frozenset(
    {
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
        "ssl.key.password",
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """A topic as it has to be; `config` counts when it is made, later changes are the user's."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


def confluent_config(settings: Settings, **extra: Any) -> dict[str, Any]:
    """Settings for a confluent-kafka client; `extra` goes on top, by librdkafka's names.

    librdkafka's own log lines are kept off the terminal: what matters comes as an error.
    """
    return {"log_level": 0, **reveal(settings.kafka), **extra}


def aiokafka_config(settings: Settings) -> dict[str, Any]:
    """The same settings as keyword arguments of aiokafka's clients.

    Raises InvalidInputError naming each setting that aiokafka has no counterpart for.
    """
    options = reveal(settings.kafka)
    config: dict[str, Any] = {}
    unknown = []
    for key, value in options.items():
        if key in _AIOKAFKA:
            config[_AIOKAFKA[key]] = value
        elif key in _AIOKAFKA_NUMBERS:
            config[_AIOKAFKA_NUMBERS[key]] = int(value)
        elif key not in _SSL:
            unknown.append(key)
    if unknown:
        known = sorted({*_AIOKAFKA, *_AIOKAFKA_NUMBERS, *_SSL})
        raise InvalidInputError(
            f"kafka.{', kafka.'.join(sorted(unknown))}: can't be used by workers; "
            f"known are {', '.join(known)}"
        )
    config["security_protocol"] = config.get("security_protocol", "PLAINTEXT").upper()
    if config["security_protocol"] in ("SSL", "SASL_SSL"):
        config["ssl_context"] = _ssl_context(options)
    return config


def _ssl_context(options: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if "ssl.certificate.location" in options:
            context.load_cert_chain(
                options["ssl.certificate.location"],
                options.get("ssl.key.location"),
                options.get("ssl.key.password"),
            )
    except OSError as error:
        raise InvalidInputError(f"a certificate of [kafka] can't be read: {error}") from None
    if options.get("ssl.endpoint.identification.algorithm", "https") == "none":
        context.check_hostname = False
    if options.get("enable.ssl.certificate.verification", "true") == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def unreachable(settings: Settings, reason: str = "") -> UnreachableError:
    """The error for a Kafka that can't be asked, with what to check."""
    reason = _CLIENT_DETAIL.sub("", reason)
    detail = f" ({reason})" if reason else ""
    return UnreachableError(
        f"Kafka at {settings.bootstrap_servers} does not answer{detail}: start one with "
        "`rewindow up`, or give the right address with --bootstrap-servers"
    )


@contextmanager
def kafka_errors(settings: Settings, doing: str) -> Iterator[None]:
    """Turn a client's exceptions into ours: unreachable, not allowed, or plainly failed."""
    try:
        yield
    except KafkaException as error:
        raise explain(settings, error, doing) from None
    except (ValueError, TypeError) as error:
        # What confluent-kafka raises for values of [kafka] that it can't take.
        raise InvalidInputError(f"Kafka settings: {error}") from None


def explain(settings: Settings, error: KafkaException, doing: str) -> RewindowError:
    """Our error for a client's, saying what was being done."""
    cause = error.args[0] if error.args else None
    if not isinstance(cause, KafkaError):
        return RewindowError(f"{doing}: {error}")
    if cause.code() in _UNREACHABLE:
        return unreachable(settings, cause.str())
    if cause.code() == KafkaError._INVALID_ARG:
        return InvalidInputError(f"Kafka settings: {cause.str()}")
    return RewindowError(f"{doing}: Kafka says {cause.name()}: {cause.str()}")


class Admin:
    """Looks at topics and makes them. Each method raises UnreachableError within
    `REQUEST_TIMEOUT_S` or so if Kafka does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._errors: deque[KafkaError] = deque(maxlen=8)
        with kafka_errors(settings, "connecting"):
            # No method of this object: a client must not be part of a reference cycle. The
            # garbage collector runs in any thread, the client's own ones included, and a
            # client that is ended in one of those takes the process with it.
            self._client = AdminClient(confluent_config(settings, error_cb=self._errors.append))

    @property
    def _last_error(self) -> str:
        """The reason for a time-out, such as refused credentials, which comes this way only."""
        told = [one for one in self._errors if one.code() != KafkaError._ALL_BROKERS_DOWN]
        return told[-1].str() if told else ""

    def partitions(self) -> dict[str, int]:
        """Number of partitions of each topic that there is."""
        try:
            metadata = self._client.list_topics(timeout=REQUEST_TIMEOUT_S)
        except KafkaException as error:
            found = explain(self._settings, error, "listing topics")
            if isinstance(found, UnreachableError):
                self._client.poll(0)
                found = unreachable(self._settings, self._last_error)
            raise found from None
        return {
            name: len(topic.partitions)
            for name, topic in metadata.topics.items()
            if topic.error is None
        }

    def config(self, topic: str) -> dict[str, str]:
        """Settings of a topic, defaults included; empty if there is no such topic."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        answers = self._client.describe_configs([resource], request_timeout=REQUEST_TIMEOUT_S)
        try:
            entries = answers[resource].result(REQUEST_TIMEOUT_S + 1)
        except KafkaException as error:
            if _code(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return {}
            raise explain(self._settings, error, f"reading settings of topic {topic}") from None
        except TimeoutError:
            raise unreachable(self._settings, self._last_error) from None
        return {name: str(entry.value) for name, entry in entries.items()}

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Make topics and wait until they can be used; one made meanwhile by others is fine."""
        replication = self._settings.topics.replication_factor or -1
        new = [
            NewTopic(
                spec.name,
                num_partitions=spec.partitions,
                replication_factor=replication,
                config=dict(spec.config),
            )
            for spec in specs
        ]
        if not new:
            return
        for name, made in self._client.create_topics(
            new, operation_timeout=REQUEST_TIMEOUT_S, request_timeout=REQUEST_TIMEOUT_S
        ).items():
            try:
                made.result(REQUEST_TIMEOUT_S + 1)
            except KafkaException as error:
                if _code(error) != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise explain(self._settings, error, f"creating topic {name}") from None
            except TimeoutError:
                raise unreachable(self._settings, self._last_error) from None
        self._wait_for({spec.name for spec in specs})

    def _wait_for(self, names: set[str]) -> None:
        # A broker may answer before it knows what its controller has made.
        pause = Event()
        for _ in range(_VISIBLE_ATTEMPTS):
            if names <= self.partitions().keys():
                return
            pause.wait(_VISIBLE_PAUSE_S)
        raise RewindowError(f"topics {', '.join(sorted(names))} were made but don't show up")


def _code(error: KafkaException) -> int | None:
    cause = error.args[0] if error.args else None
    return cause.code() if isinstance(cause, KafkaError) else None


def ensure_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """Make the topics that are missing; returns their names.

    Raises RefusedError if one has another number of partitions, or if topics are missing and
    `topics.create` is false; UnreachableError if Kafka does not answer.
    """
    admin = Admin(settings)
    existing = admin.partitions()
    missing = [spec for spec in specs if spec.name not in existing]
    if missing and not settings.topics.create:
        raise RefusedError(_how_to_create(missing))
    admin.create(missing)
    existing = admin.partitions() if missing else existing
    wrong = [spec for spec in specs if existing.get(spec.name) != spec.partitions]
    if wrong:
        raise RefusedError(
            "\n".join(
                f"topic {spec.name} has {existing.get(spec.name)} partitions and needs "
                f"{spec.partitions}: delete it, or bring the source back to the number it had"
                for spec in wrong
            )
        )
    return [spec.name for spec in missing]


def _how_to_create(missing: Sequence[TopicSpec]) -> str:
    lines = ["topics are missing, and `topics.create` is false; create them with"]
    for spec in missing:
        options = "".join(f" --config {key}={value}" for key, value in spec.config.items())
        lines.append(
            f"  kafka-topics.sh --create --topic {spec.name} "
            f"--partitions {spec.partitions}{options}"
        )
    return "\n".join(lines)


def topic_partitions(settings: Settings, topic: str) -> int | None:
    """Number of partitions of a topic; None if there is no such topic."""
    return Admin(settings).partitions().get(topic)


def topic_config(settings: Settings, topic: str) -> dict[str, str]:
    """Settings of a topic, defaults included; empty if there is no such topic."""
    return Admin(settings).config(topic)
