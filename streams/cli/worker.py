"""`rewindow worker`: run one worker, and show what it does."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from streams.cli.options import CommonOptions, Json, flag, say, say_error, takes_options
from streams.clock import SystemClock
from streams.errors import InvalidInputError, NotStoppedError

if TYPE_CHECKING:
    from streams.runtime.stats import PartitionStats, SnapshotStats, Stats
    from streams.runtime.streams import SetOutput

REFRESH_S = 1.0
LINES_AROUND = 10
"""Lines of the terminal that are not for partitions: what was said before, totals, titles."""

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
Verbose = Annotated[bool, flag("--verbose", "-v", help="Log what happens inside.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(worker)


@takes_options
def worker(
    common: CommonOptions,
    instance: Instance = None,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Compute the features of all serving versions, until Ctrl-C.

    One process; start more for more: partitions are shared between them. It runs what is
    published when it starts, and shows throughput, lag, watermark delay, open windows, late
    and dead records; with --json one object a second. Ctrl-C stops cleanly: it finishes the
    batch, commits, flushes and leaves the group.
    """
    check_instance(instance)
    settings = common.settings()
    # One for all that goes to stderr, or log lines would run into the live table.
    console = Console(stderr=True)
    _log_to(console, verbose=verbose)
    _one_thread_in_frames()
    gc.disable()  # what is imported stays, and has no cycles to look for
    from streams.runtime.worker import Worker

    _spare_the_collector()
    faulthandler.enable(2)  # stderr: a crash in native code says where it was

    asyncio.run(_run(Worker(settings, instance=instance), settings.app, console, as_json=json))
    say("stopped")


def _one_thread_in_frames() -> None:
    """Partitions are worked on side by side; threads within a frame's operations cost more than
    they bring. polars settles it when it is imported, so this comes before."""
    os.environ.setdefault("POLARS_MAX_THREADS", "1")


def _spare_the_collector() -> None:
    """Batches are many objects that live for a moment: look for cycles less often."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


async def _run(running: Any, app: str, console: Console, *, as_json: bool) -> None:
    shows: list[asyncio.Task[None]] = []

    def ready(sets: list[SetOutput]) -> None:
        names = ", ".join(f"{one.topic} ({one.version})" for one in sets)
        say(f"app {app} runs {names}")
        shows.append(asyncio.create_task(_show(running.stats, console, as_json=as_json)))

    try:
        await running.run(on_ready=ready)
    except NotStoppedError as error:
        # Tasks and threads of Faust's go on, and are waited for at every other way out.
        say_error(str(error))
        os._exit(error.exit_code)
    finally:
        for show in shows:
            show.cancel()
        await asyncio.gather(*shows, return_exceptions=True)


async def _show(stats: Stats, console: Console, *, as_json: bool) -> None:
    clock = SystemClock()
    events, at_s = 0, clock.monotonic_s()
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
            live.update(screen(stats, rate, clock.now_ms(), console.height), refresh=True)


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
            "restored": stats.restored,
            "checkpoints": {
                "enabled": stats.snapshots.enabled,
                "taken": stats.snapshots.taken,
                "pending": stats.snapshots.pending,
                "last_id": stats.snapshots.last_id or None,
                "last_at_ms": stats.snapshots.last_ms,
                "error": stats.snapshots.error or None,
            },
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


def screen(stats: Stats, rate: float, now_ms: int, height: int) -> Group:
    """What the terminal shows: totals, then a line per partition as far as lines go."""
    totals = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=True)
    for title, number in (
        ("events/s", rate),
        ("events", stats.events),
        ("vectors", stats.vectors),
        ("late", stats.late),
        ("dead letters", stats.dead),
        ("transactions", stats.transactions),
    ):
        totals.add_column(title, justify="right", footer=f"{number:,.0f}")
    totals.add_row(
        *(str(column.footer) for column in totals.columns),
        style="bold",
    )
    partitions = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("stream", "partition", "state", "lag", "watermark", "delay", "open windows"):
        left = title in ("stream", "state")
        partitions.add_column(
            title,
            justify="left" if left else "right",
            no_wrap=True,
            overflow="ellipsis",
            # The stream's name is what gives way where a terminal is narrow.
            min_width=None if title == "stream" else len(title),
        )
    rows = [one for _, one in sorted(stats.partitions.items())]
    room = max(1, height - LINES_AROUND)
    shown = rows if len(rows) <= room else _most_behind(rows, room)
    for one in shown:
        partitions.add_row(*_row(one, now_ms))
    parts: list[Table | Text] = [totals, Text(), partitions]
    if len(shown) < len(rows):
        parts.append(Text(f"… and {len(rows) - len(shown)} partitions with less lag"))
    if stats.snapshots.enabled:
        told = checkpoints(stats.snapshots, now_ms)
        parts[1:1] = [Text(), Text(told, overflow="ellipsis", no_wrap=True)]
    if not rows:
        parts = [totals, Text(), Text("no partitions yet: joining the group")]
    return Group(*parts)


def checkpoints(stats: SnapshotStats, now_ms: int) -> str:
    """When the last checkpoint was taken, or why it was not."""
    if stats.error:
        return f"the last checkpoint failed: {stats.error}"
    if stats.last_ms is None:
        return "no checkpoint taken yet"
    return f"last checkpoint {stats.last_id}, {_age(max(0, now_ms - stats.last_ms))} ago"


def _most_behind(rows: list[PartitionStats], number: int) -> list[PartitionStats]:
    """The partitions with the most lag, in their usual order."""
    chosen = sorted(rows, key=lambda one: one.lag, reverse=True)[:number]
    return [one for one in rows if one in chosen]


def _row(one: PartitionStats, now_ms: int) -> list[str]:
    watermark, delay = "-", "-"
    if one.watermark_ms is not None:
        watermark = datetime.fromtimestamp(one.watermark_ms / 1000, UTC).strftime("%F %T")
        delay = _age(max(0, now_ms - one.watermark_ms))
    return [
        one.stream,
        str(one.partition),
        one.state,
        f"{one.lag:,}",
        watermark,
        delay,
        f"{one.open_windows:,}",
    ]


def _age(value_ms: int) -> str:
    """A length of time in the two largest units that say something."""
    seconds = value_ms // 1000
    minutes, hours, days = seconds // 60, seconds // 3_600, seconds // 86_400
    if days:
        return f"{days:,} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} m"
    return f"{minutes} m {seconds % 60} s" if minutes else f"{seconds} s"


def _log_to(console: Console, *, verbose: bool) -> None:
    handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        handlers=[handler],
        format="%(message)s",
        force=True,
    )
    if not verbose:
        # Clients say much while brokers come and go; what matters comes as an error of ours.
        handler.addFilter(logging.Filter("streams"))


def check_instance(name: str | None) -> None:
    """Raise `InvalidInputError` for a name that can't be part of a path or a member id."""
    if name is not None and not name.replace("-", "").replace("_", "").isalnum():
        raise InvalidInputError(f"--instance {name!r}: use letters, digits, - and _")
