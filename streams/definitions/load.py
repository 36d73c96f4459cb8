"""Sources and feature sets from files: YAML, or Python that defines them.

A file is read whole before anything is refused, so that one run shows everything there is
to mend, as `file:line: field: what is wrong`.
"""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streams.definitions import dsl
from streams.definitions.model import FeatureSet, Source
from streams.definitions.problems import Origin, Problem
from streams.definitions.yamlform import read_yaml
from streams.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the files define. `origins` is by record key: `source/NAME`, `set/NAME@VERSION`."""

    sources: tuple[Source, ...]
    feature_sets: tuple[FeatureSet, ...]
    origins: Mapping[str, Origin]


def record_key(definition: Source | FeatureSet) -> str:
    """What identifies a definition, in files and in the definitions topic."""
    if isinstance(definition, Source):
        return f"source/{definition.name}"
    return f"set/{definition.name}@{definition.version}"


def load_files(paths: Sequence[Path]) -> Loaded:
    """Read the definitions in `paths`, `.py` or YAML.

    Raises InvalidInputError with one line for each thing that is wrong in any of them.
    """
    problems: list[str] = []
    found: dict[str, tuple[Source | FeatureSet, Origin]] = {}
    for path in paths:
        for definition, origin in _load_file(path, problems):
            key = record_key(definition)
            if key in found:
                message = f"{key} is also defined in {found[key][1].file}"
                problems.append(origin.describe(Problem(path=("name",), message=message)))
            else:
                found[key] = (definition, origin)
    if problems:
        raise InvalidInputError("\n".join(problems))
    values = [definition for definition, _ in found.values()]
    return Loaded(
        sources=tuple(value for value in values if isinstance(value, Source)),
        feature_sets=tuple(value for value in values if isinstance(value, FeatureSet)),
        origins={key: origin for key, (_, origin) in found.items()},
    )


def _load_file(path: Path, problems: list[str]) -> list[tuple[Source | FeatureSet, Origin]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        problems.append(f"{path}: is not UTF-8 text")
        return []
    except OSError as error:
        problems.append(f"{path}: can't be read: {error.strerror}")
        return []
    if path.suffix == ".py":
        return _load_python(path, problems)
    return read_yaml(str(path), text, problems)


def _load_python(path: Path, problems: list[str]) -> list[tuple[Source | FeatureSet, Origin]]:
    """Run the file and take the definitions among its module-level names."""
    try:
        values = runpy.run_path(str(path)).values()
    except InvalidInputError as error:
        problems.extend(f"{path}: {line}" for line in str(error).splitlines())
        return []
    except Exception as error:  # whatever a user's file raises is that file's problem
        problems.append(f"{path}: {type(error).__name__}: {error}")
        return []
    origin = Origin(file=str(path))
    written = (value for value in values if isinstance(value, dsl.Source | dsl.FeatureSet))
    unique = {id(value): value.compile() for value in written}
    if not unique:
        problems.append(f"{path}: defines no Source and no FeatureSet")
    return [(definition, origin) for definition in unique.values()]
