"""`rewindow tail`: print the vectors of a feature topic."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from confluent_kafka import Consumer, KafkaException, TopicPartition
from rich.console import Console
from rich.table import Table

from streams.cli.options import App, BootstrapServers, Config, Json, RegistryUrl, say
from streams.config import Settings, load_settings
from streams.errors import InvalidInputError, RewindowError
from streams.kafka import Admin, confluent_config, explain
from streams.names import AS_OF, KIND_FIELD, VERSION_FIELD
from streams.schema.registry import Registry
from streams.schema.values import ValueReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

POLL_S = 0.5
ROWS_PER_TABLE = 20

FeatureSetName = Annotated[str, typer.Argument(metavar="SET", show_default=False)]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, help="Stop after so many vectors.")
]
FromStart = Annotated[
    bool, typer.Option("--from-beginning", help="Start with the oldest vector, not the newest.")
]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(tail)


def tail(
    feature_set: FeatureSetName,
    follow: Follow = False,
    limit: Limit = None,
    from_beginning: FromStart = False,
    json: Json = False,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    app: App = None,
    config: Config = None,
) -> None:
    """Print a feature topic as a table, the newest vectors of each partition first.

    Only committed vectors are shown. With --json one object a line.
    """
    settings = load_settings(
        config, bootstrap_servers=bootstrap_servers, registry_url=registry_url, app=app
    )
    topic = settings.names.features_topic(feature_set)
    partitions = Admin(settings).partitions().get(topic)
    if partitions is None:
        raise InvalidInputError(
            f"there is no topic {topic}: publish the feature set {feature_set} first, or check "
            "its name with --app and [topics].prefix"
        )
    with Registry.from_settings(settings.registry_options()) as registry:
        rows = _vectors(
            settings,
            topic,
            partitions,
            registry,
            follow=follow,
            newest=None if from_beginning else limit or ROWS_PER_TABLE,
        )
        _print(rows, limit, as_json=json)


def _vectors(
    settings: Settings,
    topic: str,
    partitions: int,
    registry: Registry,
    *,
    follow: bool,
    newest: int | None,
) -> Iterator[Mapping[str, Any]]:
    """Vectors up to today's ends, or for ever; `newest` a partition back from its end."""
    consumer = Consumer(
        confluent_config(
            settings,
            **{
                "group.id": f"{settings.app}.tail",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            },
        )
    )
    reader = ValueReader(registry)
    try:
        assigned, waiting = _assign(consumer, topic, partitions, newest)
        consumer.assign(assigned)
        while follow or waiting:
            message = consumer.poll(POLL_S)
            if message is None:
                continue
            if message.error():
                # The end of a partition comes as an error; others mend themselves or time out.
                waiting.discard(message.partition())
                continue
            if (value := message.value()) is not None:
                yield reader.read(value)
    except KafkaException as error:
        raise explain(settings, error, f"reading {topic}") from None
    finally:
        consumer.close()


def _assign(
    consumer: Consumer, topic: str, partitions: int, newest: int | None
) -> tuple[list[TopicPartition], set[int]]:
    assigned = []
    for partition in range(partitions):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        # Transaction markers take offsets too: go back further than asked for.
        start = low if newest is None else max(low, high - 2 * newest - 2)
        assigned.append(TopicPartition(topic, partition, start))
    return assigned, set(range(partitions))


def _print(rows: Iterator[Mapping[str, Any]], limit: int | None, *, as_json: bool) -> None:
    console = Console()
    shown = 0
    page: list[Mapping[str, Any]] = []
    for row in rows:
        shown += 1
        if as_json:
            typer.echo(_json(row))
        else:
            page.append(row)
            if len(page) == ROWS_PER_TABLE:
                console.print(_table(page))
                page = []
        if limit is not None and shown >= limit:
            break
    if page:
        console.print(_table(page))
    if not shown:
        say("no vectors yet")


def _table(rows: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    columns = list(rows[-1])
    for column in columns:
        if column != VERSION_FIELD:
            table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(c)) for c in columns if c != VERSION_FIELD))
    return table


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return value.astimezone(UTC).strftime("%F %T")
        case float():
            return f"{value:.6g}"
        case list():
            return ", ".join(
                f"{one['value']}:{one['count']}" if isinstance(one, dict) else str(one)
                for one in value
            )
        case _:
            return str(value)


def _json(row: Mapping[str, Any]) -> str:
    import json

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return str(value)

    if AS_OF not in row or KIND_FIELD not in row:
        raise RewindowError("the topic holds records that are no vectors of rewindow")
    return json.dumps(row, default=plain, ensure_ascii=False)
