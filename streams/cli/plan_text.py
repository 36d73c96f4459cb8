"""Plans as JSON, and for people."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from streams.definitions.reuse import Takes
from streams.durations import format_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from streams.cli.plan import Entry
    from streams.control.preview import Preview
    from streams.definitions.reuse import FeatureUse, Reuse

INDENT = 4
PARTITIONS_SHOWN = 8

_WORDS = {
    Takes.SHARED: "shared with live versions",
    Takes.PANES: "from panes that are kept",
    Takes.REPLAY: "from a replay",
}
_CHANGES = {"published": "new", "updated": "would be updated"}


# -- for people -----------------------------------------------------------------------------------


def entry_lines(entry: Entry) -> list[RenderableType]:
    """What would become of a definition: a line, and below it all about a new version."""
    change = _CHANGES.get(entry.change, entry.change)
    state = f" ({entry.state})" if entry.state else ""
    kind = entry.kind.replace("_", " ")
    lines: list[RenderableType] = [Text(f"{kind} {entry.title}: {change}{state}", style="bold")]
    seen = entry.preview
    if seen is None:
        return lines
    table = Table("feature", "takes", "how", box=None, pad_edge=False)
    for use in seen.reuse.features:
        table.add_row(use.feature.name, use.takes.value, Text(_how(use, first=seen.serves)))
    facts = Table(box=None, pad_edge=False, show_header=False)
    for title, text in facts_of(entry, seen):
        facts.add_row(Text(title, style="dim"), Text(text))
    lines += [
        Padding(table, (0, 0, 0, INDENT), expand=False),
        Padding(facts, (1, 0, 1, INDENT), expand=False),
    ]
    return lines


def in_short(seen: Preview) -> str:
    """One line: how many features take what, and when all are ready."""
    counts = Counter(use.takes for use in seen.reuse.features)
    parts = [f"{counts[takes]} {words}" for takes, words in _WORDS.items() if counts[takes]]
    return f"features: {', '.join(parts)}; ready {_ready(seen)}"


def facts_of(entry: Entry, seen: Preview) -> list[tuple[str, str]]:
    """What the whole version takes and changes, as titles and texts."""
    facts = [("state", _state(seen.reuse)), ("replay", _replay(seen)), ("ready", _ready(seen))]
    if entry.subjects:
        facts.append(("schema", f"{', '.join(entry.subjects)}: accepted"))
    live = ", ".join(seen.live_after)
    if seen.serves:
        facts.append(("live", f"{live}; it serves at once, as the first version"))
        return facts
    gone = ", ".join(seen.stops_being_live) or "none"
    facts.append(("live", f"{live}; stops being live: {gone}"))
    then = ", ".join(seen.stops_when_activated) or "none"
    facts.append(("activated", f"stops being live then: {then}"))
    return facts


def _how(use: FeatureUse, *, first: bool) -> str:
    shared = f"with {', '.join(use.shared_with)}" if use.shared_with else ""
    if first:
        return "from where the source begins"
    match use.takes:
        case Takes.SHARED:
            return shared
        case Takes.PANES:
            return f"{use.why} (panes of {', '.join(use.shared_with)})"
    return use.why


def _state(reuse: Reuse) -> str:
    parts = []
    if reuse.replayed:
        number = sum(len(bundle.accumulators) for bundle in reuse.replayed)
        pane = format_duration(reuse.replayed[0].pane_ms)
        parts.append(
            f"{_count(number, 'accumulator')} more, at least {reuse.row_bytes} bytes for each "
            f"entity and pane of {pane} with an event"
        )
    if reuse.kept_ms > reuse.kept_before_ms and reuse.users:
        now, then = format_duration(reuse.kept_before_ms), format_duration(reuse.kept_ms)
        parts.append(f"panes are kept for {then} instead of {now}")
    return "; ".join(parts) or "nothing is added"


def _replay(seen: Preview) -> str:
    if not seen.reuse.replayed:
        return "none"
    if not seen.partitions:
        return "unknown: the source's topic does not exist yet"
    parts = [f"{one.topic}/{one.partition} {one.start} to {one.end}" for one in seen.replays]
    if len(parts) > PARTITIONS_SHOWN:
        parts = [*parts[:PARTITIONS_SHOWN], f"and {len(parts) - PARTITIONS_SHOWN} partitions more"]
    text = f"{_count(seen.records_to_replay, 'record')}: {', '.join(parts)}"
    for one in seen.replays:
        if one.gone and seen.ready_after_ms is not None:
            where = f"{one.topic}/{one.partition}"
            return (
                f"{text}; {where} is needed from offset {one.needs_offset} and begins at "
                f"{one.log_start}, so its windows have to fill"
            )
    return text


def _ready(seen: Preview) -> str:
    when = []
    if seen.reuse.replayed:
        again = "" if seen.serves else " again"
        when.append(f"once {_count(seen.records_to_replay, 'record')} are read{again}")
    if seen.waits_for:
        when.append(f"once {', '.join(seen.waits_for)} is")
    if seen.ready_after_ms is not None:
        when.append(
            f"once {_time(seen.ready_after_ms)} is closed: its windows are whole from then on"
        )
    return " and ".join(when) or "at once"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


# -- for programs ---------------------------------------------------------------------------------


def entry_json(entry: Entry) -> dict[str, Any]:
    """A definition and what would become of it."""
    fields: dict[str, Any] = {
        "kind": entry.kind,
        "name": entry.name,
        "version": entry.version,
        "change": entry.change,
        "digest": entry.digest,
        "state": entry.state,
        "reasons": list(entry.reasons),
        "notes": list(entry.notes),
        "subjects": list(entry.subjects),
    }
    return {**fields, "plan": None if entry.preview is None else preview_json(entry.preview)}


def preview_json(seen: Preview) -> dict[str, Any]:
    """What a version takes and changes; times in ms since the epoch."""
    reuse = seen.reuse
    return {
        "takes": reuse.takes.value,
        "features": [_feature_json(use) for use in reuse.features],
        "state": {
            "bundles_added": [bundle.digest for bundle in reuse.replayed],
            "accumulators_added": sum(len(one.accumulators) for one in reuse.replayed),
            "row_bytes_added": reuse.row_bytes,
            "panes_kept_ms": reuse.kept_ms,
            "panes_kept_before_ms": reuse.kept_before_ms,
        },
        "replay": {
            "records": seen.records_to_replay,
            "partitions": [
                {
                    "topic": one.topic,
                    "partition": one.partition,
                    "from_offset": one.start,
                    "to_offset": one.end,
                    "log_start": one.log_start,
                    "needs_offset": one.needs_offset,
                    "records": one.records,
                }
                for one in seen.replays
            ],
        },
        "ready": {
            "at_once": not reuse.replayed and not seen.waits_for and seen.ready_after_ms is None,
            "after_replay": bool(reuse.replayed),
            "after_versions": list(seen.waits_for),
            "after_closed_ms": seen.ready_after_ms,
            "whole_from_ms": seen.whole_from_ms,
        },
        "serves": seen.serves,
        "live_after": list(seen.live_after),
        "stops_being_live": list(seen.stops_being_live),
        "stops_being_live_when_activated": list(seen.stops_when_activated),
    }


def _feature_json(use: FeatureUse) -> dict[str, Any]:
    return {
        "name": use.feature.name,
        "function": use.feature.function.value,
        "window_ms": use.feature.window_ms,
        "takes": use.takes.value,
        "why": use.why,
        "shared_with": list(use.shared_with),
        "accumulators": [
            {
                "name": one.accumulator.name,
                "kind": one.accumulator.kind.value,
                "expression": one.accumulator.expression,
                "where": one.accumulator.where,
                "stored_by": list(one.stored_by),
            }
            for one in use.accumulators
        ],
    }
