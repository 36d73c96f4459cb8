"""A project's Avro schemas: files `<subject>/v0001.avsc`, and compatibility.toml beside them."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from streams.errors import InvalidInputError
from streams.schema.compat import LEVELS, incompatibilities

if TYPE_CHECKING:
    from pathlib import Path

COMPATIBILITY = "compatibility.toml"
DEFAULT_LEVEL = "BACKWARD"


def read_schema(file: Path) -> dict[str, Any]:
    """The Avro schema in `file`, in its object form.

    Raises InvalidInputError for a file that can't be read or holds no valid Avro schema.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"{file}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInputError(f"{file}: is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"{file}:{error.lineno}: is not JSON: {error.msg}") from None
    schema = found if isinstance(found, dict) else {"type": found}
    try:
        incompatibilities(schema, [], DEFAULT_LEVEL)
    except InvalidInputError as error:
        raise InvalidInputError(f"{file}: {error}") from None
    return schema


def compatibility_level(file: Path, subject: str) -> str | None:
    """The level that a project's compatibility.toml gives `subject`; None without such a file.

    It is looked for beside the schema `file`, then one directory up. Raises InvalidInputError
    if it is not as it has to be.
    """
    for directory in (file.absolute().parent, file.absolute().parent.parent):
        rules = directory / COMPATIBILITY
        if rules.is_file():
            return _level(rules, subject)
    return None


def _level(rules: Path, subject: str) -> str:
    try:
        table = tomllib.loads(rules.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{rules}: is not TOML: {error}") from None
    subjects = table.get("subjects", {})
    named = subjects.get(subject) if isinstance(subjects, dict) else None
    level = named or table.get("default", DEFAULT_LEVEL)
    if level not in LEVELS:
        raise InvalidInputError(
            f"{rules}: {level!r} is no compatibility level: one of {', '.join(LEVELS)}"
        )
    return str(level)
