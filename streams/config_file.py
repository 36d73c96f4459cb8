"""What a configuration file says, table by table, and all that is wrong with it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from streams.durations import DAY_MS, parse_duration
from streams.errors import InvalidInputError
from streams.names import SNAPSHOTS_DIR
from streams.settings import (
    KEEP,
    NO_SNAPSHOTS,
    Secret,
    SnapshotSettings,
    TopicSettings,
    VersionSettings,
)
from streams.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_APP = "rewindow"
MOST_KEPT = 100

_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,64}\Z")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRET = re.compile(
    r"password|secret|token|user\.info|jaas|ssl\.key\.pem|oauthbearer\.config"
    r"|(account|access|master|sas|service_account|storage)_key\Z"
)
_CREDENTIALS_IN_URL = re.compile(r"://[^/@]*:[^/@]*@")

_SECTIONS: Mapping[str, tuple[str, ...] | None] = {
    "kafka": None,
    "registry": (
        "url", "basic.auth.user.info", "bearer.auth.token", "ssl.ca.location",
        "ssl.certificate.location", "ssl.key.location", "timeout.ms",
    ),
    "topics": ("prefix", "partitions", "replication_factor", "create", "retention"),
    "state": ("dir",),
    "snapshots": None,
    "versions": ("keep",),
}  # fmt: skip
_SNAPSHOT_KEYS = ("url", "every", "keep")

T = TypeVar("T")


def parse(file: Path) -> dict[str, Any]:
    """The tables of a file. Raises InvalidInputError if it can't be read, or is not TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"{file}: can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file}: is not TOML: {error}") from None


def masked(key: str, value: str) -> str | Secret:
    """A client's setting, secret if its name says so."""
    return Secret(value) if _SECRET.search(key.lower()) else value


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`bootstrap.servers = …` without quotes is a table in TOML: make it one name again."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class ConfigFile:
    """The configuration file's tables, read with all that is wrong noted for `check`."""

    def __init__(
        self, file: Path | None, tables: dict[str, Any], environ: Mapping[str, str]
    ) -> None:
        self._file = file
        self._tables = tables
        self._environ = environ
        self._problems: list[str] = []
        for name, value in tables.items():
            if name == "app":
                continue
            if name not in _SECTIONS:
                self.refuse(name, f"unknown: {did_you_mean(name, [*_SECTIONS, 'app'])}")
            elif not isinstance(value, dict):
                self.refuse(name, f"needs to be a table: [{name}]")

    def refuse(self, where: str, message: str) -> None:
        self._problems.append(f"{self._file or 'settings'}: {where}: {message}")

    def check(self) -> None:
        """Raise InvalidInputError if anything was wrong."""
        if self._problems:
            raise InvalidInputError("\n".join(self._problems))

    def app(self) -> str:
        name = self._tables.get("app", DEFAULT_APP)
        if isinstance(name, dict):
            name = name.get("name", DEFAULT_APP)
        return str(name)

    def section(self, name: str) -> dict[str, Any]:
        table = self._tables.get(name, {})
        flat = _flatten(table) if isinstance(table, dict) else {}
        allowed = _SECTIONS[name]
        for key in flat:
            if allowed is not None and key not in allowed:
                self.refuse(f"{name}.{key}", f"unknown key: {did_you_mean(key, allowed)}")
        return flat

    def options(self, name: str) -> dict[str, str | Secret]:
        """A table of client settings, with variables and files put in."""
        found: dict[str, str | Secret] = {}
        for key, value in self.section(name).items():
            where = f"{name}.{key}"
            if isinstance(value, bool):
                found[key] = str(value).lower()
            elif isinstance(value, int | float):
                found[key] = str(value)
            elif isinstance(value, str):
                found[key] = self._text(where, key, value)
            else:
                self.refuse(where, "needs text, a number, true or false")
        return found

    def _text(self, where: str, key: str, value: str) -> str | Secret:
        secret = _SECRET.search(key.lower()) is not None
        if _CREDENTIALS_IN_URL.search(value) and not _VARIABLE.search(value):
            self.refuse(where, "has a password in it: use basic.auth.user.info = '${VARIABLE}'")
            return ""
        if secret and not value.startswith("file:") and not _VARIABLE.search(value):
            self.refuse(where, "is a secret: write '${VARIABLE}' or 'file:PATH', not the value")
            return Secret("")
        if secret and value.startswith("file:"):
            return Secret(self._content(where, value.removeprefix("file:")))
        return masked(key, _VARIABLE.sub(lambda found: self._variable(where, found[1]), value))

    def _variable(self, where: str, name: str) -> str:
        value = self._environ.get(name)
        if value is None:
            self.refuse(where, f"the environment variable {name} is not set")
        return value or ""

    def _content(self, where: str, path: str) -> str:
        file = self._relative(Path(path).expanduser())
        try:
            return file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            self.refuse(where, f"the file {file} can't be read")
            return ""

    def _relative(self, path: Path) -> Path:
        """A path as the file means it: from where the file is."""
        return self._file.parent / path if self._file else path

    def state_dir(self, app: str) -> Path:
        """Where state lives; a directory of its own for each app unless one is named."""
        from_environ = self._environ.get("REWINDOW_STATE_DIR")
        if from_environ:
            return Path(from_environ).expanduser()
        named = self.section("state").get("dir")
        if isinstance(named, str):
            return self._relative(Path(named).expanduser())
        if named is not None:
            self.refuse("state.dir", "needs a path")
        base = self._environ.get("XDG_STATE_HOME")
        return (Path(base) if base else Path.home() / ".local" / "state") / DEFAULT_APP / app

    def topics(self) -> TopicSettings:
        """The `[topics]` table."""
        read = partial(self._get, "topics", self.section("topics"))
        return TopicSettings(
            prefix=read("prefix", _prefix, ""),
            partitions=read("partitions", _positive, None),
            replication_factor=read("replication_factor", _positive, None),
            create=read("create", _boolean, True),
            retention_ms=read("retention", _duration_ms, 7 * DAY_MS),
        )

    def versions(self) -> VersionSettings:
        """The `[versions]` table."""
        table = self.section("versions")
        given = self._environ.get("REWINDOW_VERSIONS_KEEP")
        if given:
            table["keep"] = int(given) if given.isdecimal() else given
        return VersionSettings(keep=self._get("versions", table, "keep", _kept, KEEP))

    def snapshots(self, state_dir: Path) -> SnapshotSettings | None:
        """The `[snapshots]` table with its variables; None where `url` is "none".

        A `url` may be a path, too. Without one it is a directory in the state directory.
        """
        table = self.section("snapshots")
        for key in ("every", "keep"):
            given = self._environ.get(f"REWINDOW_SNAPSHOTS_{key.upper()}")
            if given:
                table[key] = int(given) if key == "keep" and given.isdecimal() else given
        options = self.options("snapshots")
        default = state_dir.absolute() / SNAPSHOTS_DIR
        url = self._environ.get("REWINDOW_SNAPSHOTS_URL") or str(options.get("url", default))
        if url == NO_SNAPSHOTS:
            return None
        if "://" not in url:
            url = self._relative(Path(url).expanduser()).absolute().as_uri()
        others = {key: value for key, value in options.items() if key not in _SNAPSHOT_KEYS}
        if url.startswith("file:") and others:
            key = min(others)
            hint = did_you_mean(key, _SNAPSHOT_KEYS)
            self.refuse(f"snapshots.{key}", f"a directory has no such option: {hint}")
        settings = SnapshotSettings(url=url, options=others)
        every_ms = self._get("snapshots", table, "every", _interval_ms, settings.every_ms)
        keep = self._get("snapshots", table, "keep", _positive, settings.keep)
        return replace(settings, every_ms=every_ms, keep=keep)

    def _get(
        self,
        section: str,
        table: Mapping[str, Any],
        key: str,
        read: Callable[[Any], T],
        default: T,
    ) -> T:
        if key not in table:
            return default
        try:
            return read(table[key])
        except ValueError as error:
            self.refuse(f"{section}.{key}", str(error))
            return default


def _prefix(value: Any) -> str:
    if not isinstance(value, str) or not _PREFIX.match(value):
        raise ValueError("needs at most 64 letters, digits, dots, _ or -")
    return value


def _positive(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("needs a whole number from 1 on")
    return value


def _kept(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_KEPT:
        raise ValueError(f"needs a whole number from 0 to {MOST_KEPT}")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("needs true or false")
    return value


def _duration_ms(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError("needs a duration in quotes, such as '7d'")
    return parse_duration(value)


def _interval_ms(value: Any) -> int:
    interval_ms = _duration_ms(value)
    if interval_ms < 1_000:
        raise ValueError("needs a second at least, such as '10m'")
    return interval_ms
