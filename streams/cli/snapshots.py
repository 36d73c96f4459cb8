"""`rewindow snapshots`: checkpoints of the workers' state, in the archive of `[snapshots]`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from streams.cli.options import (
    CommonOptions,
    Json,
    flag,
    print_json,
    say,
    takes_options,
)
from streams.clock import SystemClock
from streams.errors import InvalidInputError, RefusedError, RewindowError

if TYPE_CHECKING:
    from streams.state.checkpoint import Checkpoints
    from streams.state.overview import Overview

MANUAL = "manual"
"""The pin's name of what somebody keeps by hand."""

RETRY_FOR_S = 10.0

CheckpointId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Checkpoint, such as 20260131T235959123Z-0a1b2c3d.",
        show_default=False,
    ),
]
MaybeId = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="Checkpoint. Default: all.", show_default=False),
]
To = Annotated[
    Path,
    typer.Option(
        "--to",
        metavar="DIR",
        help="Directory to fill: a new one, or that of a stopped worker (its instance's in the "
        "state directory) where these bundles are not.",
        show_default=False,
    ),
]
MaybeSet = Annotated[
    str | None,
    typer.Argument(metavar="[SET]", help="Feature set. Default: all.", show_default=False),
]
Reason = Annotated[
    str,
    typer.Option(
        "--reason",
        metavar="TEXT",
        help="Why; it goes into the audit trail, and `snapshots list` shows it.",
        show_default=False,
    ),
]
Why = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; `snapshots list` shows it.")
]
PinName = Annotated[
    str | None,
    typer.Option(
        "--pin",
        metavar="NAME",
        help="Only this one of what keeps it. Default: all.",
        show_default=False,
    ),
]
Keep = Annotated[
    int | None,
    typer.Option(
        "--keep",
        metavar="N",
        min=1,
        help="How many of each bundle stay. Default: [snapshots].keep.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, flag("--dry-run", help="Say what would be removed, and remove nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    commands = typer.Typer(
        no_args_is_help=True,
        help="Checkpoints of the workers' state: see, check, keep and restore them.",
    )
    commands.command("take")(take)
    commands.command("list")(list_all)
    commands.command("show")(show)
    commands.command("verify")(verify)
    commands.command("restore")(restore)
    commands.command("keep")(keep)
    commands.command("release")(release)
    commands.command("prune")(prune)
    app.add_typer(commands, name="snapshots")


@takes_options
def take(
    common: CommonOptions, feature_set: MaybeSet = None, reason: Reason = "", json: Json = False
) -> None:
    """Ask the running workers for a checkpoint of what they have now, and wait for it.

    Of one set's state in every partition, or of all sets', under one id. It is kept until
    `release`. The request goes through the rollback topic and into the audit trail. Exits with 3
    if it is refused, with 1 if a partition could not store it, with 5 if no worker answers.
    """
    from streams.cli.take_command import take_checkpoint

    console = Console(stderr=True, highlight=False)
    status = console.status("asking") if console.is_terminal else None
    with status or nullcontext():
        taken = take_checkpoint(
            common.settings(),
            feature_set,
            reason,
            lambda told: None if status is None else status.update(told),
        )
    if json:
        print_json(
            {
                "checkpoint": taken.checkpoint,
                "feature_sets": [reply.feature_set for reply in taken.replies],
                "request_ids": [reply.request_id for reply in taken.replies],
                "problems": taken.problems,
            }
        )
    elif not taken.problems:
        say(f"{taken.checkpoint}: {', '.join(str(one.feature_set) for one in taken.replies)}")
    if taken.problems:
        raise RewindowError("\n".join(taken.problems))


@takes_options
def list_all(common: CommonOptions, json: Json = False) -> None:
    """List checkpoints: when, why, up to which offsets, how large, kept or not, whole or not.

    Whether one is whole is told by names, sizes and times of its files; `verify` reads them.
    """
    from streams.cli.snapshot_views import list_as_json, print_list
    from streams.state.overview import overviews
    from streams.state.prune import sizes

    checkpoints = _opened(common)
    found, stored = overviews(checkpoints), sizes(checkpoints)
    if json:
        print_json(list_as_json(checkpoints, found, stored))
    elif not found:
        say(f"no checkpoint of {checkpoints.app} in {checkpoints.archive.url} yet")
    else:
        print_list(checkpoints, found, stored)


@takes_options
def show(common: CommonOptions, checkpoint: CheckpointId, json: Json = False) -> None:
    """Show one checkpoint: its bundles, their offsets and watermarks, files, and who keeps it."""
    from streams.cli.snapshot_views import overview_as_json, print_overview

    found = _one(_opened(common), checkpoint)
    if json:
        print_json(overview_as_json(found, files=True))
    else:
        print_overview(found)


@takes_options
def verify(common: CommonOptions, checkpoint: MaybeId = None, json: Json = False) -> None:
    """Read every byte of a checkpoint, or of all, and name what is damaged.

    Exits with 1 if anything is. A worker uses the whole one before a damaged one by itself.
    """
    from streams.cli.snapshot_views import damage_as_json, size
    from streams.state.overview import overviews

    checkpoints = _opened(common)
    found = overviews(checkpoints) if checkpoint is None else [_one(checkpoints, checkpoint)]
    console = Console(stderr=True, highlight=False)
    status = console.status("reading") if console.is_terminal else None
    read = [0]

    def advance(more_bytes: int) -> None:
        read[0] += more_bytes
        if status is not None:
            status.update(f"reading: {size(read[0])}")

    with status or nullcontext():
        damages = [
            one
            for overview in found
            for bundle in overview.found
            for one in checkpoints.verify(bundle, advance)
        ]
    if json:
        print_json(
            {
                "checkpoints": [one.checkpoint for one in found],
                "bytes": read[0],
                "whole": not damages,
                "damages": [damage_as_json(one) for one in damages],
            }
        )
    elif not damages:
        say(f"whole: {len(found)} checkpoints, {size(read[0])} read")
    if damages:
        raise RewindowError("\n".join(str(one) for one in damages))


@takes_options
def restore(common: CommonOptions, checkpoint: CheckpointId, to: To, json: Json = False) -> None:
    """Put the files of a checkpoint into a directory, laid out as a worker's state.

    All of it, or nothing: every file is compared with its hash on the way. A worker that starts
    there replays the stream from the checkpoint's offsets; one that has lost its state does all
    of this by itself. Exits with 3 if a worker uses the directory or state is in it already, with
    1 if the checkpoint is damaged.
    """
    from streams.cli.restore_command import restore_into
    from streams.cli.snapshot_views import size

    checkpoints = _opened(common)
    found = _one(checkpoints, checkpoint)
    paths = restore_into(checkpoints, found, to)
    if json:
        print_json(
            {
                "checkpoint": checkpoint,
                "directory": str(to),
                "bundles": [str(path) for path in paths],
                "bytes": found.size_bytes,
            }
        )
    else:
        say(f"{len(paths)} bundles of {checkpoint} ({size(found.size_bytes)}) are in {to}")


@takes_options
def keep(common: CommonOptions, checkpoint: CheckpointId, reason: Why, json: Json = False) -> None:
    """Keep a checkpoint until it is released, however many come after it."""
    from streams.state.manifest import check_id

    check_id(checkpoint)
    bundles = _opened(common).keep(checkpoint, MANUAL, reason)
    if json:
        print_json({"checkpoint": checkpoint, "bundles": len(bundles), "reason": reason})
    else:
        say(f"{checkpoint} is kept: {len(bundles)} bundles")


@takes_options
def release(
    common: CommonOptions, checkpoint: CheckpointId, pin: PinName = None, json: Json = False
) -> None:
    """Let a checkpoint go that was kept: it is removed when it is old enough.

    What a switch keeps has its request's id as name, what was kept by hand `manual`.
    """
    checkpoints = _opened(common)
    found = _one(checkpoints, checkpoint)
    names = sorted({one.name for one in found.kept if pin in (None, one.name)})
    if pin is not None and not names:
        kept = ", ".join(one.name for one in found.kept) or "nothing"
        raise RefusedError(f"{checkpoint} is not kept by {pin!r}, but by {kept}")
    checkpoints.release(checkpoint, pin)
    if json:
        print_json({"checkpoint": checkpoint, "released": names})
    elif names:
        say(f"{checkpoint} is released: {', '.join(names)}")
    else:
        say(f"{checkpoint} was not kept")


@takes_options
def prune(
    common: CommonOptions, keep: Keep = None, dry_run: DryRun = False, json: Json = False
) -> None:
    """Remove what is neither among the newest of its bundle nor kept, and files of nobody's.

    Workers do so after each checkpoint; this is for an archive that no worker uses, or a smaller
    number. Files that an upload may be about to use, those of the last day, stay.
    """
    from streams.cli.snapshot_views import size
    from streams.state.prune import prune as remove

    settings = common.settings()
    checkpoints = _opened(common)
    wanted = settings.needed_snapshots().keep if keep is None else keep
    done = remove(checkpoints, keep=wanted, dry_run=dry_run)
    held = [str(of) for of in done.held]
    if json:
        print_json(
            {
                "dry_run": dry_run,
                "removed": [
                    {
                        "checkpoint": checkpoint,
                        "stream": of.stream,
                        "partition": of.partition,
                        "bundle": of.bundle,
                    }
                    for of, checkpoint in done.removed
                ],
                "orphans": done.orphans,
                "freed_bytes": done.freed_bytes,
                "held": held,
            }
        )
        return
    would = "would be removed" if dry_run else "removed"
    say(
        f"{len(done.removed)} checkpoints of bundles and {done.orphans} files of nobody's {would}:"
        f" {size(done.freed_bytes)}"
    )
    for one in held:
        say(f"no file of {one} is touched while a manifest there can't be read: see verify")


def _opened(common: CommonOptions) -> Checkpoints:
    from streams.runtime.snapshots import opened_checkpoints

    return opened_checkpoints(common.settings(), SystemClock(), retry_for_s=RETRY_FOR_S)


def _one(checkpoints: Checkpoints, checkpoint: str) -> Overview:
    """Raises InvalidInputError for what is no id, or that of no checkpoint."""
    from streams.state.manifest import check_id
    from streams.state.overview import overviews

    check_id(checkpoint)
    found = overviews(checkpoints, checkpoint)
    if not found:
        raise InvalidInputError(
            f"there is no checkpoint {checkpoint} of {checkpoints.app} in"
            f" {checkpoints.archive.url}: see rewindow snapshots list"
        )
    return found[0]
