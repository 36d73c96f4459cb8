"""The peer: a plain Faust app that counts events in a tumbling table. A process of its own.

    faust_app BOOTSTRAP_SERVERS APP TOPIC DIRECTORY

As its documentation shows it, with its defaults: JSON events, the table in memory, its
changelog on Kafka, at least once. Windows go by record timestamps, which are the event times.
Without `expires`, since Faust would compare the windows of old events with the time of day.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import faust

TABLE = "counts"


def changelog(app: str) -> str:
    """Topic with the table's values."""
    return f"{app}-{TABLE}-changelog"


def main() -> None:
    """Run the worker until it gets a signal."""
    servers, name, topic, directory, partitions = sys.argv[1:]
    app = faust.App(
        name,
        broker=f"kafka://{servers}",
        datadir=directory,
        topic_partitions=int(partitions),
        topic_replication_factor=1,
        web_enabled=False,
    )
    measurements = app.topic(topic, value_serializer="json")
    counts = app.Table(TABLE, default=int).tumbling(timedelta(hours=1))

    @app.agent(measurements)
    async def count(events: faust.StreamT[Any]) -> None:
        async for event in events:
            counts[event["sensor"]] += 1

    app.finalize()
    faust.Worker(app, loglevel="WARNING").execute_from_commandline()
