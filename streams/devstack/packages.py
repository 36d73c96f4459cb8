"""Java packages of the local stack: which versions, where they lie, how they get there.

A package is a directory in the per-user cache. It is filled under another name and renamed
when whole and verified, so a directory under its own name can be trusted: an interrupted
download leaves nothing but a folder that the next one removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tarfile
import tempfile
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from streams.errors import RewindowError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jgo.maven import MavenContext

KAFKA_VERSION: Final = "4.1.2"
REGISTRY_VERSION: Final = "3.3.3"

MAVEN_URL_VARIABLE: Final = "REWINDOW_MAVEN_URL"
"""Environment variable that names another Maven repository than Maven Central."""

_READ_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A program from a Maven repository.

    `sha256` is the digest of what is downloaded: see `digest`. `whole` names a file, relative
    to the package's directory, that the program can't start without. `extra` are coordinates
    of single jars that belong to it without being among its dependencies.
    """

    title: str
    group: str
    artifact: str
    version: str
    size_mb: int
    sha256: str
    archive: bool
    whole: str
    extra: tuple[str, ...] = ()

    @property
    def directory_name(self) -> str:
        return f"{self.artifact}-{self.version}"


KAFKA: Final = Package(
    title="Apache Kafka",
    group="org.apache.kafka",
    artifact="kafka_2.13",
    version=KAFKA_VERSION,
    size_mb=43,
    sha256="cbdc823cb781245caac64d556e38427ddce826dae9720409357f059c5ca162f1",
    archive=False,
    whole=f"kafka_2.13-{KAFKA_VERSION}.jar",
    # Without a binding for its logging Kafka says nothing at all.
    extra=("org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",),
)
REGISTRY: Final = Package(
    title="Apicurio Registry",
    group="io.apicurio",
    artifact="apicurio-registry-app",
    version=REGISTRY_VERSION,
    size_mb=155,
    sha256="f136b38102260cf5c665f62ab833d54a1d42ca32ad3d6c497c9722dcac29aaf4",
    archive=True,
    whole="quarkus-run.jar",
)


def cache_dir() -> Path:
    """Per-user directory for what was downloaded (`XDG_CACHE_HOME` or `~/.cache`)."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(configured) if configured else Path.home() / ".cache") / "rewindow"


def installed(package: Package, cache: Path) -> Path:
    """Directory of `package` in `cache`, downloaded first if it is not there.

    Any number of processes may call this at once: one downloads, the others wait for it.

    Raises:
        UnreachableError: The download failed; the same call may work later.
        RewindowError: What came is not what was expected.
    """
    target = cache / package.directory_name
    if (target / package.whole).exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(cache / f"{package.directory_name}.lock"):
        if (target / package.whole).exists():
            return target
        partial_prefix = f".{package.directory_name}.partial-"
        # The lock is ours, so whatever lies here was left by a process that was stopped.
        for left_over in (*cache.glob(f"{partial_prefix}*"), target):
            shutil.rmtree(left_over, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=partial_prefix, dir=cache) as partial:
            _fill(package, Path(partial)).rename(target)
    return target


def servers(cache: Path) -> tuple[Path, Path]:
    """Directories of Kafka and of the registry, downloaded first; raises as `installed`."""
    return installed(KAFKA, cache), installed(REGISTRY, cache)


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; waits while another process holds it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fill(package: Package, partial: Path) -> Path:
    files = _download(package, partial / "maven")
    found = digest(files)
    if found != package.sha256:
        raise RewindowError(
            f"What was downloaded as {package.title} {package.version} is not what this version "
            f"of rewindow expects (SHA-256 {found}). If {MAVEN_URL_VARIABLE} is set, check that "
            f"repository; else run the command again."
        )
    content = partial / "content"
    content.mkdir()
    if package.archive:
        with tarfile.open(files[0]) as archive:
            # Python before 3.11.4 has no filters; what comes here has the digest that it should.
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            archive.extractall(content)
    else:
        for file in files:
            file.rename(content / file.name)
    return content


def digest(files: list[Path]) -> str:
    """SHA-256 over the lines `<SHA-256 of the file>  <name>`, sorted by name."""
    lines = []
    for file in sorted(files, key=lambda file: file.name):
        with file.open("rb") as opened:
            lines.append(f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {file.name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _download(package: Package, maven_dir: Path) -> list[Path]:
    """Files of `package` below `maven_dir`: its archive, or its jar and all jars it needs."""
    # Both take a third of a second to import, and only a first start needs them.
    import requests
    from jgo.maven import MavenContext, PythonResolver

    mirror = os.environ.get(MAVEN_URL_VARIABLE, "")
    console = Console(stderr=True)
    console.print(
        f"Downloading {package.title} {package.version} ({package.size_mb} MB, only this once)"
    )
    with _progress(console, package) as advance:
        context = MavenContext(
            repo_cache=maven_dir,
            remote_repos={"mirror": mirror} if mirror else None,
            resolver=PythonResolver(progress_callback=advance),
            timeout=_READ_TIMEOUT_S,
        )
        try:
            return _archive(package, context) if package.archive else _jars(package, context)
        # jgo raises RuntimeError where a repository does not have a file.
        except (requests.RequestException, RuntimeError, OSError) as error:
            raise UnreachableError(
                f"{package.title} {package.version} could not be downloaded: {error}. Check the "
                f"network (HTTPS_PROXY and REQUESTS_CA_BUNDLE are honoured, {MAVEN_URL_VARIABLE} "
                f"names a mirror of Maven Central) and run the command again."
            ) from error


def _archive(package: Package, context: MavenContext) -> list[Path]:
    component = context.project(package.group, package.artifact).at_version(package.version)
    return [component.artifact(classifier="all", packaging="tar.gz").resolve()]


def _jars(package: Package, context: MavenContext) -> list[Path]:
    wanted = context.create_dependency(f"{package.group}:{package.artifact}:{package.version}")
    direct, transitive = context.resolver.resolve([wanted])
    extra = [context.create_dependency(coordinate) for coordinate in package.extra]
    return [dependency.artifact.resolve() for dependency in (*direct, *transitive, *extra)]


@contextmanager
def _progress(
    console: Console, package: Package
) -> Iterator[Callable[[str, int], AbstractContextManager[Callable[[int], None]]]]:
    """Show one bar for `package`; yields what jgo calls with each file's name and size."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(package.title, total=package.size_mb * 1_000_000)

        @contextmanager
        def advance(name: str, size_bytes: int) -> Iterator[Callable[[int], None]]:
            del name, size_bytes
            yield lambda count: progress.advance(task, count)

        yield advance
