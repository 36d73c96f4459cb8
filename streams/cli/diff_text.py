"""What `rewindow diff` found out, as JSON and for people."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from streams.cli.vectors import cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from streams.cli.agreement import Agreement, FeatureAgreement
    from streams.cli.diff import Compared
    from streams.cli.diff_read import Found
    from streams.definitions.differ import FieldChange

INDENT = 4


def lines(compared: Compared) -> list[RenderableType]:
    """All of it for people: definitions, then values."""
    shown = _definitions(compared)
    if compared.found is not None and compared.agreement is not None:
        shown += _values(compared, compared.found, compared.agreement)
    return shown


def _definitions(compared: Compared) -> list[RenderableType]:
    a, b, found = compared.a, compared.b, compared.differences
    title = f"{a.name}: from {a.version} to {b.version}"
    takes = {use.feature.name: use for use in compared.reuse.features}
    table = Table("what", a.version, b.version, "takes", box=None, pad_edge=False)
    for change in found.fields:
        _row(table, change.field, [change], "")
    for one in found.changed:
        use = takes[one.name]
        _row(table, one.name, one.fields, f"{use.takes.value} {use.why}".strip())
    for name in found.added:
        use = takes[name]
        table.add_row(name, "-", "added", Text(f"{use.takes.value} {use.why}".strip()))
    for name in found.removed:
        table.add_row(name, "removed", "-", "")
    same = f"{len(found.same)} features are the same" if found.same else "no feature is the same"
    if not table.row_count:
        return [Text(f"{title}: the definitions are equal", style="bold")]
    return [Text(f"{title}: {same}", style="bold"), Padding(table, (0, 0, 1, INDENT), expand=False)]


def _row(table: Table, name: str, changes: Sequence[FieldChange], takes: str) -> None:
    for number, change in enumerate(changes):
        what = name if change.field == name else f"{name}.{change.field}"
        before, after = (Text(one or "-") for one in (change.before, change.after))
        table.add_row(what, before, after, Text(takes if number == 0 else ""))


def _values(compared: Compared, found: Found, agreement: Agreement) -> list[RenderableType]:
    if not agreement.pairs:
        return [Text(why_none(compared, found))]
    first, last = (_time(one) for one in (agreement.first_as_of_ms, agreement.last_as_of_ms))
    kinds = ", ".join(f"{count} {kind}" for kind, count in agreement.kinds.items())
    text = f"{agreement.pairs} vectors of both, as of {first} to {last} ({kinds})"
    shown: list[RenderableType] = [Text(text, style="bold")]
    table = Table("feature", "compared", "equal", "largest difference", box=None, pad_edge=False)
    examples = Table("feature", "entity", "as of", "", "", box=None, pad_edge=False)
    examples.columns[3].header, examples.columns[4].header = compared.a.version, compared.b.version
    for one in agreement.features:
        largest = "" if one.max_difference is None else f"{one.max_difference:.6g}"
        table.add_row(one.name, str(one.compared), str(one.equal), largest)
        for example in one.examples:
            examples.add_row(
                one.name,
                Text(example.entity),
                _time(example.as_of_ms),
                Text(cell(example.a)),
                Text(cell(example.b)),
            )
    shown.append(Padding(table, (0, 0, 1, INDENT), expand=False))
    if examples.row_count:
        shown += [
            Text("where they differ most", style="bold"),
            Padding(examples, (0, 0, 1, INDENT), expand=False),
        ]
    shown += [Text(line) for line in remarks(compared, found, agreement)]
    return shown


def remarks(compared: Compared, found: Found, agreement: Agreement) -> list[str]:
    """What one should know of the comparison."""
    said = []
    if any("update" in kind for kind in agreement.kinds):
        said.append(
            "an update tells how things were before its as-of time closed: it may differ from a "
            "final for that reason alone"
        )
    if agreement.only_a or agreement.only_b:
        said.append(
            f"of these as-of times {agreement.only_a} vectors are of {compared.a.version} only, "
            f"{agreement.only_b} of {compared.b.version} only"
        )
    left_out = found.cells - found.cells_taken
    if left_out:
        said.append(
            f"left out: {left_out} of {found.cells} (partition, as-of time) that both have: "
            "--limit takes more"
        )
    return said


def why_none(compared: Compared, found: Found) -> str:
    """Why no values could be compared, and how to have some."""
    a, b = compared.a, compared.b
    if found.cells and not found.cells_taken:
        return (
            "both versions have vectors for the same as-of times, more than --limit allows in "
            "each partition: raise it"
        )
    none = [one.version for one, seen in zip((a, b), found.seen, strict=True) if not seen]
    if none:
        why = f"no vector of {' or '.join(none)} is on {' or '.join(compared.topics) or 'a topic'}"
    else:
        why = "no entity has a vector of both versions as of the same time"
    return (
        f"values were not compared: {why}. Both compute the same as-of times while one serves and "
        f"the other is pinned: `rewindow pin {a.name}@{none[0] if none else b.version}`"
    )


def as_json(compared: Compared) -> dict[str, Any]:
    """All of it for programs; times in ms since the epoch."""
    a, b, found = compared.a, compared.b, compared.differences
    return {
        "feature_set": a.name,
        "a": a.version,
        "b": b.version,
        "definitions": {
            "equal": not (found.fields or found.added or found.removed or found.changed),
            "fields": [asdict(one) for one in found.fields],
            "features": {
                "added": list(found.added),
                "removed": list(found.removed),
                "changed": [asdict(one) for one in found.changed],
                "same": list(found.same),
            },
            "takes": {
                use.feature.name: {"takes": use.takes.value, "why": use.why}
                for use in compared.reuse.features
            },
        },
        "values": _values_json(compared),
    }


def _values_json(compared: Compared) -> dict[str, Any] | None:
    found, agreement = compared.found, compared.agreement
    if found is None or agreement is None:
        return None
    return {
        "topics": list(compared.topics),
        "vectors": {"a": found.seen[0], "b": found.seen[1]},
        "pairs": agreement.pairs,
        "only_a": agreement.only_a,
        "only_b": agreement.only_b,
        "first_as_of_ms": agreement.first_as_of_ms,
        "last_as_of_ms": agreement.last_as_of_ms,
        "kinds": dict(agreement.kinds),
        "left_out": found.cells - found.cells_taken,
        "features": [_feature_json(one) for one in agreement.features] if agreement.pairs else [],
        "remarks": remarks(compared, found, agreement)
        if agreement.pairs
        else [why_none(compared, found)],
    }


def _feature_json(one: FeatureAgreement) -> dict[str, Any]:
    return {**asdict(one), "different": one.compared - one.equal}


def _time(at_ms: int | None) -> str:
    if at_ms is None:
        return "-"
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
