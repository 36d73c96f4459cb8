"""Where checkpoints are kept, by URL: a directory, or a bucket of S3, GCS or Azure.

Only this module knows obstore. Directories don't go through it: they can do hard links.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import from_url

from streams.clock import SystemClock
from streams.errors import InvalidInputError, RewindowError, UnreachableError
from streams.state.directory import DirectoryArchive
from streams.state.objects import Stored, ignore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    from streams.clock import Clock
    from streams.state.objects import Advance, Archive

_SCHEMES = ("file", "s3", "gs", "az")
_PART_BYTES = 8 << 20
_PARTS = 9_000
"""S3 takes 10,000 parts an object at most, of 5 MiB at least."""
_PARTS_AT_ONCE = 2

_CLIENT_OPTIONS = ("allow_http", "connect_timeout", "proxy_url", "timeout")
_TIMEOUT = "60s"
_CONNECT_TIMEOUT = "5s"

_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_NO_RIGHTS = re.compile(r"\b(401 Unauthorized|403 Forbidden)\b")
_NO_CREDENTIALS = re.compile(r"169\.254\.169\.254|metadata\.google|[Mm]issing credential")
_OUT_OF_REACH = re.compile(
    r"HTTP error|error sending request|[Tt]imed? ?out|Connection (refused|reset)"
    r"|\b(5\d\d [A-Z]|429 Too Many)"
)


def open_archive(
    url: str,
    options: Mapping[str, str] | None = None,
    *,
    retry_for_s: float = 60,
    clock: Clock | None = None,
) -> Archive:
    """The archive at `url`: `file:///…`, `s3://bucket/…`, `gs://bucket/…` or `az://container/…`.

    `options` go by the provider's usual names (`endpoint`, `region`, `access_key_id`,
    `secret_access_key`, …); what is not named there is taken from its usual environment
    variables. `allow_http`, `connect_timeout`, `timeout` and `proxy_url` are the client's.
    What fails on the way is tried again for `retry_for_s`. Nothing is contacted yet. Raises
    InvalidInputError for a URL or an option that can't be right.
    """
    settings = dict(options or {})
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise InvalidInputError("[snapshots].url has credentials in it: give them as options")
    if parts.scheme not in _SCHEMES:
        raise InvalidInputError(
            f"[snapshots].url {url!r} begins with none of"
            f" {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
        )
    if parts.scheme == "file":
        return _directory(url, settings, clock or SystemClock())
    if not parts.netloc:
        raise InvalidInputError(f"[snapshots].url {url!r} names no bucket")
    client: ClientConfig = {"timeout": _TIMEOUT, "connect_timeout": _CONNECT_TIMEOUT}
    for name in _CLIENT_OPTIONS:
        if name in settings:
            value = settings.pop(name)
            client[name] = value == "true" if name == "allow_http" else value  # type: ignore[literal-required]
    retry: RetryConfig = {"max_retries": 8, "retry_timeout": timedelta(seconds=retry_for_s)}
    config: Any = settings
    try:
        store = from_url(url, config=config, client_options=client, retry_config=retry)
    except UnknownConfigurationKeyError as error:
        raise InvalidInputError(f"[snapshots]: {_first_line(error)}") from None
    except (BaseError, ValueError) as error:
        raise InvalidInputError(f"[snapshots].url {url!r}: {_first_line(error)}") from None
    return BucketArchive(store, url)


def _directory(url: str, settings: Mapping[str, str], clock: Clock) -> Archive:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or path in ("", "/"):
        raise InvalidInputError(
            f"[snapshots].url {url!r} is no directory: write file:///the/whole/path"
        )
    if settings:
        raise InvalidInputError(f"[snapshots]: a directory has no option {min(settings)!r}")
    return DirectoryArchive(Path(path), clock)


class BucketArchive:
    """See Archive: the objects below one prefix of a bucket."""

    __slots__ = ("_store", "_url")

    def __init__(self, store: ObjectStore, url: str) -> None:
        self._store = store
        self._url = url

    @property
    def url(self) -> str:
        return self._url

    def put(self, key: str, data: bytes) -> None:
        with self._told():
            obstore.put(self._store, key, data, use_multipart=False)

    def put_file(self, key: str, path: Path, advance: Advance = ignore) -> str | None:
        size_bytes = path.stat().st_size
        if size_bytes <= _PART_BYTES:
            data = path.read_bytes()
            with self._told():
                stored = obstore.put(self._store, key, data, use_multipart=False)
            advance(size_bytes)
        else:
            part_bytes = max(_PART_BYTES, -(-size_bytes // _PARTS))
            with self._told():
                stored = obstore.put(
                    self._store,
                    key,
                    _parts(path, part_bytes, advance),
                    use_multipart=True,
                    chunk_size=part_bytes,
                    max_concurrency=_PARTS_AT_ONCE,
                )
        return stored["e_tag"]

    def get(self, key: str) -> bytes | None:
        with self._told():
            try:
                return bytes(obstore.get(self._store, key).bytes())
            except FileNotFoundError as error:
                self._refuse_without_bucket(error)
                return None

    def chunks(self, key: str, size_bytes: int) -> Iterator[bytes]:
        # By ranges, so that the time limit of a request does not limit the size of a file.
        for start in range(0, size_bytes, _PART_BYTES):
            end = min(start + _PART_BYTES, size_bytes)
            with self._told():
                try:
                    found = obstore.get_range(self._store, key, start=start, end=end)
                except FileNotFoundError as error:
                    self._refuse_without_bucket(error)
                    return
                except BaseError as error:
                    if "416" in _first_line(error):
                        return
                    raise
            yield bytes(found)
            if len(found) < end - start:
                return

    def link(self, key: str, path: Path) -> bool:  # noqa: ARG002  # as in Archive
        return False

    def list(self, prefix: str) -> list[Stored]:
        found = []
        with self._told():
            for some in obstore.list(self._store, prefix, chunk_size=1_000):
                for one in some:
                    found.append(
                        Stored(key=one["path"], size_bytes=one["size"], stamp=one["e_tag"])
                    )
        return sorted(found, key=lambda stored: stored.key)

    def delete(self, keys: Collection[str]) -> None:
        for key in keys:
            with self._told():
                try:
                    obstore.delete(self._store, key)
                except FileNotFoundError as error:
                    self._refuse_without_bucket(error)

    def sweep(self, before_ms: int) -> int:  # noqa: ARG002  # as in Archive
        """Nothing: parts of unfinished uploads are for the bucket's lifecycle rules."""
        return 0

    def _refuse_without_bucket(self, error: Exception) -> None:
        if _NO_BUCKET.search(str(error)):
            raise _refusal(self._url, error) from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the store refuses, in the operator's words."""
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise _refusal(self._url, error) from None


def _parts(path: Path, part_bytes: int, advance: Advance) -> Iterator[bytes]:
    with path.open("rb") as source:
        while part := source.read(part_bytes):
            yield part
            advance(len(part))


def _refusal(url: str, error: Exception) -> RewindowError:
    text = str(error)
    told = _first_line(error)
    if _NO_BUCKET.search(text):
        return InvalidInputError(
            f"the archive {url} does not exist: make the bucket, or set [snapshots].url"
        )
    if _NO_CREDENTIALS.search(text):
        return InvalidInputError(
            f"no credentials for the archive {url}: set them in [snapshots] or by the"
            f" provider's environment variables ({told})"
        )
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _NO_RIGHTS.search(text):
        return InvalidInputError(
            f"the archive {url} refuses these credentials: they are wrong or lack the right to"
            f" list, read, write and delete there ({told})"
        )
    if "builder error" in text:
        return InvalidInputError(
            f"the archive {url} has an endpoint that can't be used: with http:// also set"
            f" allow_http = 'true' ({told})"
        )
    if isinstance(error, InvalidPathError):
        return InvalidInputError(f"the archive {url} can't hold such a key ({told})")
    if _OUT_OF_REACH.search(text):
        return UnreachableError(f"the archive {url} can't be reached: {told}. Try again later")
    return RewindowError(f"the archive {url} failed: {told}")


def _first_line(error: Exception) -> str:
    """What an error says; obstore adds a page of debugging to it."""
    text = str(error).partition("\n\nDebug source")[0]
    return " ".join(text.split())[:400]
