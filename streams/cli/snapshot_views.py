"""Checkpoints, shown: as tables for people, as JSON for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from streams.state.manifest import Manifest
from streams.state.overview import versions_of
from streams.state.prune import sizes_of_versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.state.checkpoint import Checkpoints, Pin
    from streams.state.manifest import BundleId, Unreadable
    from streams.state.overview import Overview
    from streams.state.prune import Size
    from streams.state.verify import Damage

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(size_bytes: float) -> str:
    """Bytes in the largest unit that leaves a digit before the point."""
    unit = _UNITS[0]
    for unit in _UNITS:
        if size_bytes < 1024 or unit == _UNITS[-1]:
            break
        size_bytes /= 1024
    return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"


def list_as_json(
    checkpoints: Checkpoints, found: Sequence[Overview], stored: Mapping[BundleId, Size]
) -> dict[str, Any]:
    """All checkpoints and what they take."""
    versions = versions_of(one for overview in found for one in overview.found)
    by_version = sizes_of_versions(stored, versions)
    return {
        "archive": checkpoints.archive.url,
        "app": checkpoints.app,
        "stored_bytes": sum(one.stored_bytes for one in stored.values()),
        "orphan_bytes": sum(one.orphan_bytes for one in stored.values()),
        "checkpoints": [overview_as_json(one) for one in found],
        "bundles": [
            {
                **_bundle(of),
                "versions": sorted(name for name, some in versions.items() if of.bundle in some),
                "checkpoints": one.checkpoints,
                "newest_bytes": one.newest_bytes,
                "stored_bytes": one.stored_bytes,
                "orphan_bytes": one.orphan_bytes,
            }
            for of, one in sorted(stored.items())
        ],
        "versions": {
            name: {"stored_bytes": all_bytes, "alone_bytes": alone_bytes}
            for name, (all_bytes, alone_bytes) in sorted(by_version.items())
        },
    }


def overview_as_json(one: Overview, *, files: bool = False) -> dict[str, Any]:
    """One checkpoint, with its bundles; with `files`, their files too."""
    return {
        "checkpoint": one.checkpoint,
        "created_ms": one.created_ms,
        "reason": "; ".join(one.reasons),
        "state": one.state,
        "bytes": one.size_bytes,
        "kept": [_pin(pin) for pin in one.kept],
        "offsets": {
            stream: {str(partition): offset for partition, offset in sorted(offsets.items())}
            for stream, offsets in one.offsets().items()
        },
        "damages": [damage_as_json(damage) for damage in (*one.damages, *one.touched)],
        "bundles": [_manifest(found, files=files) for found in one.found],
    }


def damage_as_json(one: Damage) -> dict[str, Any]:
    """What is wrong with one file."""
    return {
        **_bundle(one.of),
        "checkpoint": one.checkpoint,
        "file": one.subject,
        "problem": one.problem,
    }


def print_list(
    checkpoints: Checkpoints, found: Sequence[Overview], stored: Mapping[BundleId, Size]
) -> None:
    """Tables: checkpoints, then what versions and bundles take."""
    console = Console(highlight=False)
    table = Table(box=None)
    table.add_column("checkpoint", no_wrap=True)
    for title in ("taken", "why", "up to offset", "size", "state", "kept"):
        table.add_column(title)
    for one in found:
        kept = ", ".join(
            f"{pin.name}: {pin.reason}" if pin.reason else pin.name for pin in one.kept
        )
        table.add_row(
            one.checkpoint,
            _time(one.created_ms),
            "; ".join(one.reasons),
            _offsets(one),
            size(one.size_bytes),
            one.state,
            kept,
        )
    console.print(table)
    console.print()
    shown = list_as_json(checkpoints, found, stored)
    takes = Table("version", "stored", "needed by it alone", box=None)
    for name, both in shown["versions"].items():
        takes.add_row(name, size(both["stored_bytes"]), size(both["alone_bytes"]))
    if shown["versions"]:
        console.print(takes)
        console.print()
    bundles = Table("bundle", "checkpoints", "newest", "stored", "of nobody's", box=None)
    for of, each in sorted(stored.items()):
        bundles.add_row(
            f"{of.stream}/{of.partition}/{of.bundle[:12]}",
            str(each.checkpoints),
            size(each.newest_bytes),
            size(each.stored_bytes),
            size(each.orphan_bytes),
        )
    console.print(bundles)
    console.print(f"\n{shown['archive']}: {size(shown['stored_bytes'])}", soft_wrap=True)


def print_overview(one: Overview) -> None:
    """One checkpoint: what it is, then a line for each bundle."""
    console = Console(highlight=False)
    console.print(f"{one.checkpoint}: {one.state}, {size(one.size_bytes)}", soft_wrap=True)
    console.print(f"taken {_time(one.created_ms)}, {'; '.join(one.reasons)}", soft_wrap=True)
    for pin in one.kept:
        console.print(f"kept by {pin.name} since {_time(pin.at_ms)}: {pin.reason}", soft_wrap=True)
    table = Table("bundle", "offset", "watermark", "whole from", "files", "size", box=None)
    for each in one.manifests:
        table.add_row(
            f"{each.of.stream}/{each.of.partition}/{each.of.bundle[:12]}",
            str(each.next_offset),
            "-" if each.watermark_ms is None else _time(each.watermark_ms),
            "the beginning" if each.floor_ms is None else _time(each.floor_ms),
            str(len(each.files)),
            size(each.size_bytes),
        )
    console.print(table)
    versions = sorted(versions_of(one.found))
    if versions:
        console.print(f"read by {', '.join(versions)}", soft_wrap=True)
    for damage in (*one.damages, *one.touched):
        console.print(str(damage), soft_wrap=True, markup=False)


def _offsets(one: Overview) -> str:
    return ", ".join(
        f"{stream} {min(found.values())}"
        if len(set(found.values())) == 1
        else f"{stream} {min(found.values())} to {max(found.values())}"
        for stream, found in one.offsets().items()
    )


def _manifest(found: Manifest | Unreadable, *, files: bool) -> dict[str, Any]:
    if not isinstance(found, Manifest):
        return {**_bundle(found.of), "problem": found.problem}
    shown: dict[str, Any] = {
        **_bundle(found.of),
        "next_offset": found.next_offset,
        "watermark_ms": found.watermark_ms,
        "floor_ms": found.floor_ms,
        "bytes": found.size_bytes,
        "schema_ids": list(found.schema_ids),
        "notes": dict(found.notes),
    }
    if files:
        shown["source_watermarks"] = {
            str(partition): ms for partition, ms in found.source_watermarks.items()
        }
        shown["files"] = [
            {"name": file.name, "bytes": file.size_bytes, "sha256": file.sha256, "key": file.key}
            for file in found.files
        ]
    return shown


def _bundle(of: BundleId) -> dict[str, Any]:
    return {"stream": of.stream, "partition": of.partition, "bundle": of.bundle}


def _pin(pin: Pin) -> dict[str, Any]:
    return {"name": pin.name, "reason": pin.reason, "at_ms": pin.at_ms}


def _time(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%F %T")
    except (OverflowError, ValueError, OSError):
        return str(at_ms)
