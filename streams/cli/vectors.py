"""How vectors look on a terminal: a table where it fits, else a few lines for each vector."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from streams.errors import RewindowError
from streams.names import AS_OF, KIND_FIELD, VERSION_FIELD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

Vector = dict[str, Any]

GAP = 2
INDENT = 4


def shown(vectors: Sequence[Vector], width: int) -> RenderableType:
    """`vectors` of one topic, in a terminal of `width` columns; there is at least one."""
    # Vectors may have been written by versions with other features.
    columns = [name for name in _names(vectors) if name != VERSION_FIELD]
    rows = [[cell(vector.get(name)) for name in columns] for vector in vectors]
    widths = [max(len(name), *(len(row[i]) for row in rows)) for i, name in enumerate(columns)]
    if sum(widths) + GAP * (len(widths) - 1) <= width:
        return _table(vectors, columns, rows)
    return Group(*(_lines(vector, columns, width) for vector in vectors))


def _names(vectors: Sequence[Vector]) -> list[str]:
    return list(dict.fromkeys(name for vector in vectors for name in vector))


def _table(
    vectors: Sequence[Vector], columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name in columns:
        number = any(_is_number(vector.get(name)) for vector in vectors)
        title = "kind" if name == KIND_FIELD else name
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(value) for value in row))
    return table


def _lines(vector: Vector, columns: Sequence[str], width: int) -> Text:
    """As-of time, kind and entity on one line, and the features below, as many as fit on each."""
    own = list(vector)
    at = own.index(AS_OF) if AS_OF in own else 0
    entity = own[:at]
    text = Text(f"{cell(vector.get(AS_OF))}  {cell(vector.get(KIND_FIELD)):6}  ", overflow="fold")
    text.append(", ".join(cell(vector[name]) for name in entity), style="bold")
    used = width
    for name in columns:
        if name in entity or name in (AS_OF, KIND_FIELD) or name not in vector:
            continue
        value = cell(vector[name])
        length = len(name) + 1 + len(value)
        if used + GAP + length > width:
            text.append("\n" + " " * INDENT)
            used = INDENT
        else:
            text.append(" " * GAP)
            used += GAP
        text.append(f"{name}=", style="dim")
        text.append(value)
        used += length
    return text


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cell(value: Any) -> str:
    """A value as people read it."""
    match value:
        case None:
            return "-"
        case datetime():
            return value.astimezone(UTC).strftime("%F %T")
        case float():
            return f"{value:.6g}"
        case list():
            return " ".join(
                f"{one['value']}:{one['count']}" if isinstance(one, dict) else str(one)
                for one in value
            )
        case _:
            return str(value)


def as_json(vector: Mapping[str, Any]) -> str:
    """A vector as one line of JSON. Raises RewindowError for a record that is none."""
    if AS_OF not in vector or KIND_FIELD not in vector:
        raise RewindowError("the topic holds records that are no vectors of rewindow")
    return json.dumps(vector, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)
