"""`rewindow snapshots restore`: a checkpoint's bundles in a directory, all of them or none."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from streams.errors import RefusedError, RewindowError
from streams.names import bundle_dir
from streams.runtime.instance import in_use
from streams.state.restore import restore

if TYPE_CHECKING:
    from pathlib import Path

    from streams.state.checkpoint import Checkpoints
    from streams.state.overview import Overview
    from streams.state.verify import Damage


def restore_into(checkpoints: Checkpoints, found: Overview, to: Path) -> list[Path]:
    """Put all bundles of a checkpoint into `to`; their directories.

    Raises RefusedError if a worker uses the directory or a bundle is there already, and
    RewindowError if the checkpoint is damaged; then nothing is left of it.
    """
    user = in_use(to)
    if user is not None:
        raise RefusedError(f"a worker uses {user}: stop it first, or restore to another directory")
    places = [
        (one, bundle_dir(to, one.of.stream, one.of.partition, one.of.bundle))
        for one in found.manifests
    ]
    for _, path in places:
        if path.exists() and any(path.iterdir()):
            raise RefusedError(
                f"{path} has state in it already: move it away, or restore to another directory"
            )
    damages: list[Damage] = list(found.damages)
    done: list[Path] = []
    try:
        for manifest, path in places:
            if not damages:
                path.parent.mkdir(parents=True, exist_ok=True)
                damages += restore(checkpoints, manifest, path)
                done.append(path)
        if damages:
            raise RewindowError(
                "\n".join([*map(str, damages), "nothing was restored: use the one before"])
            )
    except BaseException:
        for path in done:
            shutil.rmtree(path, ignore_errors=True)
        raise
    return done
