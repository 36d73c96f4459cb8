"""Values out of YAML nodes: the line of each key is kept, and all that is wrong is noted."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import yaml

from streams.definitions.problems import Origin, Problem
from streams.durations import parse_duration
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
KeyPath = tuple[str, ...]


class Reader:
    """Takes the nodes of one document apart, each at the path of keys that leads to it.

    What reads a value returns None where it had to note a problem.
    """

    def __init__(self, file: str, root: yaml.Node) -> None:
        self._file = file
        self._lines: dict[KeyPath, int] = {(): root.start_mark.line + 1}
        self.problems: list[Problem] = []

    def origin(self) -> Origin:
        """Where the keys read so far were written."""
        return Origin(file=self._file, lines=dict(self._lines))

    def refuse(self, path: KeyPath, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(path=path, message=message))

    def refuse_unknown(self, path: KeyPath, allowed: Sequence[str]) -> None:
        """Note a problem if the last key of `path` is not among `allowed`."""
        if path[-1] not in allowed:
            self.refuse(path, f"unknown key: {did_you_mean(path[-1], allowed)}")

    def mapping(
        self, node: yaml.Node, path: KeyPath, allowed: Sequence[str] | None = None
    ) -> dict[str, yaml.Node]:
        """The entries of a mapping; keys beyond `allowed` and repeated ones are refused."""
        if not isinstance(node, yaml.MappingNode):
            self.refuse(path, "needs to be a mapping of keys to values")
            return {}
        entries: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            at = (*path, key)
            line = key_node.start_mark.line + 1
            if key in entries:
                self.refuse(at, f"is given twice, here and in line {line}")
                continue
            self._lines[at] = line
            entries[key] = value
            if allowed is not None:
                self.refuse_unknown(at, allowed)
        return entries

    def text(self, node: yaml.Node, path: KeyPath, what: str = "text") -> str | None:
        """A scalar as it was written, if YAML takes it for text."""
        if not isinstance(node, yaml.ScalarNode) or not node.tag.endswith(":str"):
            written = repr(node.value) if isinstance(node, yaml.ScalarNode) else "this"
            self.refuse(path, f"needs {what}; {written} is none (quote it if it is meant as text)")
            return None
        return self._encodable(node, path)

    def scalar(self, node: yaml.Node, path: KeyPath, tags: Sequence[str], what: str) -> str | None:
        """A scalar as it was written, if YAML gives it one of `tags`."""
        if not isinstance(node, yaml.ScalarNode) or node.tag.rpartition(":")[2] not in tags:
            self.refuse(path, f"needs {what}")
            return None
        return self._encodable(node, path)

    def _encodable(self, node: yaml.ScalarNode, path: KeyPath) -> str | None:
        value = str(node.value)
        try:
            value.encode()
        except UnicodeEncodeError:
            self.refuse(path, "has a character that UTF-8 can't hold (a lone surrogate)")
            return None
        return value

    def unquoted(self, node: yaml.Node, path: KeyPath, what: str) -> str | None:
        """A scalar as it was written, also where YAML takes it for a number."""
        return self.scalar(node, path, ("str", "int", "float"), what)

    def sql(self, node: yaml.Node, path: KeyPath) -> str | None:
        """An SQL expression, unparsed."""
        return self.unquoted(node, path, "an SQL expression, in quotes")

    def field_names(self, node: yaml.Node, path: KeyPath) -> tuple[str, ...] | None:
        """A list of names; without those of its items that are none."""
        if not isinstance(node, yaml.SequenceNode):
            self.refuse(path, "needs a list of field names, such as [origin]")
            return None
        items = [self.text(item, path, "names of fields") for item in node.value]
        return tuple(item for item in items if item is not None)

    def parsed(
        self, node: yaml.Node, path: KeyPath, parse: Callable[[str], T], what: str
    ) -> T | None:
        """What `parse` makes of a scalar; the message of its ValueError is a problem."""
        text = self.scalar(node, path, ("str", "int", "float", "timestamp"), what)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.refuse(path, str(error))
            return None

    def duration(self, node: yaml.Node, path: KeyPath) -> int | None:
        """A duration such as `10m`, in milliseconds."""
        return self.parsed(node, path, _duration_ms, "a duration such as 10m or 24h")

    def number(self, node: yaml.Node, path: KeyPath) -> float | None:
        """Any number."""
        return self.parsed(node, path, _number, "a number")

    def whole_number(self, node: yaml.Node, path: KeyPath) -> int | None:
        """A number without a fraction."""
        return self.parsed(node, path, _whole_number, "a whole number")

    def choice(self, node: yaml.Node, path: KeyPath, kind: type[E]) -> E | None:
        """One of the values of `kind`."""
        allowed = ", ".join(kind)
        text = self.text(node, path, f"one of {allowed}")
        if text is None:
            return None
        if text not in list(kind):
            self.refuse(path, f"{text!r} is not allowed: one of {allowed}")
            return None
        return kind(text)


class Entries:
    """The entries of the mapping at `path`, read by name with what they default to."""

    def __init__(self, reader: Reader, path: KeyPath, entries: dict[str, yaml.Node]) -> None:
        self._reader = reader
        self._path = path
        self._entries = entries

    def need(self, key: str, read: Callable[[yaml.Node, KeyPath], T | None], empty: T) -> T:
        """The value of `key`, refused where it is absent; `empty` stands for what is wrong."""
        node = self._entries.get(key)
        if node is None:
            self._reader.refuse(self._path, f"{key} is missing")
            return empty
        value = read(node, (*self._path, key))
        return empty if value is None else value

    def get(self, key: str, read: Callable[[yaml.Node, KeyPath], T | None], default: T) -> T:
        """The value of `key`, or `default` where it is absent or null."""
        node = self._entries.get(key)
        if node is None or node.tag.endswith(":null"):
            return default
        value = read(node, (*self._path, key))
        return default if value is None else value


def _duration_ms(text: str) -> int:
    if text.strip().isdigit():
        raise ValueError(f"{text} has no unit: write one of ms, s, m, h, d after it")
    return parse_duration(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None
