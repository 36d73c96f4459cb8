"""`rewindow worker`: run one worker, and show what it does."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from streams.cli.options import App, BootstrapServers, Config, Json, RegistryUrl, say
from streams.clock import SystemClock
from streams.config import load_settings
from streams.errors import InvalidInputError

if TYPE_CHECKING:
    from streams.runtime.stats import PartitionStats, Stats
    from streams.runtime.streams import Stream

REFRESH_S = 1.0

Instance = Annotated[
    str | None,
    typer.Option(
        "--instance",
        metavar="NAME",
        help="Name of this worker, stable over restarts: it takes its partitions back at once. "
        "Default: the first free slot of the state directory.",
        show_default=False,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(worker)


def worker(
    instance: Instance = None,
    verbose: Verbose = False,
    json: Json = False,
    bootstrap_servers: BootstrapServers = None,
    registry_url: RegistryUrl = None,
    app: App = None,
    config: Config = None,
) -> None:
    """Compute the features of all serving versions, until Ctrl-C.

    One process; start more for more: partitions are shared between them. Shows throughput,
    lag, watermark delay, open windows, late and dead records; with --json one object a second.
    Ctrl-C stops cleanly: it finishes the batch, commits, flushes and leaves the group.
    """
    settings = load_settings(
        config, bootstrap_servers=bootstrap_servers, registry_url=registry_url, app=app
    )
    _log_to_stderr(verbose=verbose)
    from streams.runtime.worker import Worker

    asyncio.run(_run(Worker(settings, instance=instance), settings.app, as_json=json))
    say("stopped")


async def _run(running: Any, app: str, *, as_json: bool) -> None:

    def ready(streams: list[Stream]) -> None:
        sets = [view for stream in streams for view in stream.outputs.values()]
        names = ", ".join(f"{one.topic} ({one.version})" for one in sets)
        say(f"app {app} runs {names}")

    show = asyncio.create_task(_show(running.stats, as_json=as_json))
    try:
        await running.run(on_ready=ready)
    finally:
        show.cancel()
        await asyncio.gather(show, return_exceptions=True)


async def _show(stats: Stats, *, as_json: bool) -> None:
    clock = SystemClock()
    events, at_s = 0, clock.monotonic_s()
    console = Console(stderr=True)
    if as_json:
        while True:
            await asyncio.sleep(REFRESH_S)
            now_s = clock.monotonic_s()
            rate, events, at_s = (stats.events - events) / (now_s - at_s), stats.events, now_s
            typer.echo(_as_json(stats, rate))
            sys.stdout.flush()
    if not console.is_terminal:
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            await asyncio.sleep(REFRESH_S)
            now_s = clock.monotonic_s()
            rate, events, at_s = (stats.events - events) / (now_s - at_s), stats.events, now_s
            live.update(_screen(stats, rate, clock.now_ms()), refresh=True)


def _as_json(stats: Stats, rate: float) -> str:
    import json

    return json.dumps(
        {
            "events": stats.events,
            "events_per_s": round(rate, 1),
            "vectors": stats.vectors,
            "late": stats.late,
            "dead_letters": stats.dead,
            "transactions": stats.transactions,
            "flushes": stats.flushes,
            "claims": stats.claims,
            "replayed": stats.replayed,
            "overflowed_sums": stats.overflowed,
            "partitions": [
                {
                    "stream": one.stream,
                    "partition": one.partition,
                    "state": one.state,
                    "position": one.position,
                    "lag": one.lag,
                    "watermark_ms": one.watermark_ms,
                    "unflushed_rows": one.open_rows,
                    "open_windows": one.open_windows,
                    "closed_through_ms": one.closed,
                }
                for one in stats.partitions.values()
            ],
        }
    )


def _screen(stats: Stats, rate: float, now_ms: int) -> Group:
    totals = Text(
        f"{rate:,.0f} events/s   {stats.events:,} events   {stats.vectors:,} vectors   "
        f"{stats.late:,} late   {stats.dead:,} dead letters   "
        f"{stats.transactions:,} transactions",
        style="bold",
    )
    table = Table(box=None, pad_edge=False)
    for title in ("stream", "partition", "state", "lag", "watermark", "delay", "open windows"):
        table.add_column(title, justify="left" if title in ("stream", "state") else "right")
    for _, one in sorted(stats.partitions.items()):
        table.add_row(*_row(one, now_ms))
    return Group(totals, table)


def _row(one: PartitionStats, now_ms: int) -> list[str]:
    watermark, delay = "", ""
    if one.watermark_ms is not None:
        watermark = datetime.fromtimestamp(one.watermark_ms / 1000, UTC).strftime("%F %T")
        delay = f"{max(0, now_ms - one.watermark_ms) // 1000:,} s"
    return [
        one.stream,
        str(one.partition),
        one.state,
        f"{one.lag:,}",
        watermark,
        delay,
        f"{one.open_windows:,}",
    ]


def _log_to_stderr(*, verbose: bool) -> None:
    handler = RichHandler(console=Console(stderr=True), show_path=False, rich_tracebacks=False)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        handlers=[handler],
        format="%(message)s",
        force=True,
    )
    if not verbose:
        # A client says much while brokers come and go; what matters comes as an error of ours.
        for noisy in ("aiokafka", "faust", "mode"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)


def check_instance(name: str | None) -> None:
    """Raise `InvalidInputError` for a name that can't be part of a path or a member id."""
    if name is not None and not name.replace("-", "").replace("_", "").isalnum():
        raise InvalidInputError(f"--instance {name!r}: use letters, digits, - and _")
