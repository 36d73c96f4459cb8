"""`rewindow tail`: print the vectors of a feature topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from rich.console import Console

from streams.cli.options import CommonOptions, Json, flag, say, takes_options
from streams.cli.vectors import Vector, as_json, shown
from streams.errors import InvalidInputError
from streams.kafka import Admin, confluent_config, explain, unreachable
from streams.schema.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.schema.values import ValueReader
    from streams.settings import Settings

POLL_S = 0.5
PATIENCE_POLLS = 30
ROWS = 20

FeatureSetName = Annotated[
    str, typer.Argument(metavar="SET", help="Name of the feature set.", show_default=False)
]
OfVersion = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="VERSION",
        help="The topic of this pinned version. Default: the set's, whichever version serves.",
        show_default=False,
    ),
]
Follow = Annotated[bool, flag("--follow", "-f", help="Go on with what comes, until Ctrl-C.")]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        "-n",
        min=1,
        metavar="NUMBER",
        help="How many: the newest, or with --from-beginning the oldest. Default: "
        f"{ROWS}, or with --from-beginning all.",
        show_default=False,
    ),
]
FromStart = Annotated[
    bool, flag("--from-beginning", help="Begin with the oldest vector, not the newest.")
]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(tail)


@takes_options
def tail(
    common: CommonOptions,
    feature_set: FeatureSetName,
    version: OfVersion = None,
    follow: Follow = False,
    limit: Limit = None,
    from_beginning: FromStart = False,
    json: Json = False,
) -> None:
    """Print the newest vectors of a feature set, or those of one of its pinned versions.

    Committed ones only, in the order in which they were written. A table where it fits the
    terminal, else a few lines for each vector; with --json one object a line.
    """
    settings = common.settings()
    from streams.schema.values import ValueReader  # takes a second, for polars

    names, first = settings.names, f"publish the feature set {feature_set}"
    topic = names.features_topic(feature_set)
    if version is not None:
        topic = names.pinned_topic(feature_set, version)
        first = f"pin the version (`rewindow pin {feature_set}@{version}`)"
    partitions = Admin(settings).partitions().get(topic)
    if partitions is None:
        raise InvalidInputError(
            f"there is no topic {topic}: {first} first, or check its name, --app and "
            "[topics].prefix"
        )
    with Registry.from_settings(settings.registry_options()) as registry:
        log = _Log(settings, topic, partitions, ValueReader(registry))
        try:
            pages = log.all() if from_beginning else log.newest(limit or ROWS)
            _print(pages, limit, json=json)
            if follow:
                _print(log.coming(), None, json=json)
        except KeyboardInterrupt:
            return
        finally:
            log.close()


class _Log:
    """The vectors of a feature topic, committed ones only, in pages."""

    def __init__(
        self, settings: Settings, topic: str, partitions: int, reader: ValueReader
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._partitions = range(partitions)
        self._reader = reader
        self._consumer = Consumer(
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

    def close(self) -> None:
        self._consumer.close()

    def newest(self, number: int) -> Iterator[list[Vector]]:
        """One page: the `number` vectors that were written last."""
        # Transaction markers take offsets too: go back further than asked for.
        self._assign(back=2 * number + 2)
        found = sorted(self._to_the_ends(), key=lambda one: one[0])
        yield [vector for _, vector in found[-number:]]

    def all(self) -> Iterator[list[Vector]]:
        """All vectors up to the ends of now."""
        self._assign(back=None)
        page = []
        for _, vector in self._to_the_ends():
            page.append(vector)
            if len(page) == ROWS:
                yield page
                page = []
        yield page

    def coming(self) -> Iterator[list[Vector]]:
        """What comes from here on, for ever, as it comes."""
        page: list[Vector] = []
        while True:
            found = self._poll(0.0 if page else POLL_S)
            if isinstance(found, tuple):
                page.append(found[1])
            if page and (found is None or len(page) == ROWS):
                yield page
                page = []

    def _assign(self, *, back: int | None) -> None:
        assigned = []
        try:
            for number in self._partitions:
                partition = TopicPartition(self._topic, number)
                low, high = self._consumer.get_watermark_offsets(partition, timeout=10)
                start = low if back is None else max(low, high - back)
                assigned.append(TopicPartition(self._topic, number, start))
        except KafkaException as error:
            raise explain(self._settings, error, f"reading {self._topic}") from None
        self._consumer.assign(assigned)

    def _to_the_ends(self) -> Iterator[tuple[int, Vector]]:
        """When each vector was written, and the vector, up to the ends of all partitions."""
        unread = set(self._partitions)
        patience = PATIENCE_POLLS
        while unread:
            found = self._poll(POLL_S)
            if isinstance(found, int):
                unread.discard(found)
            elif found is not None:
                yield found
            patience = PATIENCE_POLLS if found is not None else patience - 1
            if not patience:
                raise unreachable(self._settings, f"topic {self._topic} can't be read to its end")

    def _poll(self, seconds: float) -> tuple[int, Vector] | int | None:
        """The next vector, or the number of a partition that is read to its end, or nothing."""
        message = self._consumer.poll(seconds)
        if message is None:
            return None
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                return message.partition()
            if error.fatal() or (not error.retriable() and error.code() > 0):
                raise explain(self._settings, KafkaException(error), f"reading {self._topic}")
            return None  # the client goes on trying by itself
        value = message.value()
        return None if value is None else (message.timestamp()[1], self._reader.read(value))


def _print(pages: Iterator[list[Vector]], limit: int | None, *, json: bool) -> None:
    """Print up to `limit` vectors."""
    console = Console(highlight=False)
    printed = 0
    for page in pages:
        now = page if limit is None else page[: limit - printed]
        printed += len(now)
        if json:
            for vector in now:
                typer.echo(as_json(vector))
        elif now:
            console.print(shown(now, console.width))
        if printed == limit:
            break
    if not printed:
        say("no vectors yet")
