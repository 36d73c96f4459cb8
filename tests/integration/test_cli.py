"""The shop's walk and the mistakes along it, as a user meets them: exit codes and stderr."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from streams.devstack.process import free_port
from tests.integration.kafka_tools import KafkaTools, Outgoing
from tests.integration.worker_process import WorkerProcess, WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.devstack import Addresses

SHOP = Path(__file__).parents[2] / "examples" / "shop"
REWINDOW = str(Path(sys.executable).parent / "rewindow")
NOON_MS = 1_767_268_800_000
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    def refused(self, exit_code: int, *words: str) -> None:
        """One clear line on stderr that has all `words`, nothing on stdout."""
        assert self.exit_code == exit_code, self.stderr
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("error: ")
        assert all(word in lines[0] for word in words), lines[0]
        assert self.stdout == ""

    def json(self) -> Any:
        assert self.exit_code == 0, self.stderr
        return json.loads(self.stdout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A copy of the shop under names of its own."""

    directory: Path
    prefix: str
    addresses: Addresses

    @property
    def topic(self) -> str:
        return f"{self.prefix}_orders"

    @property
    def subject(self) -> str:
        return f"{self.topic}-value"

    def edit(self, file: str, old: str, new: str, *, to: str | None = None) -> str:
        """Replace text in a file; with `to` into another file. Returns the file's name."""
        path = self.directory / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        name = to or file
        (self.directory / name).write_text(text.replace(old, new), encoding="utf-8")
        return name

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [REWINDOW, *arguments],
            cwd=self.directory,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(self.directory),
                "COLUMNS": "100",
                "REWINDOW_BOOTSTRAP_SERVERS": self.addresses.bootstrap_servers,
                "REWINDOW_REGISTRY_URL": self.addresses.registry_url,
                "REWINDOW_STATE_DIR": str(self.directory / "state"),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environ: str) -> Ran:
        return ended(self.start(*arguments, **environ))

    def definitions(self) -> list[str]:
        return ["sources/orders.yaml", "features/customer_orders.yaml"]


def ended(process: subprocess.Popen[str]) -> Ran:
    stdout, stderr = process.communicate(timeout=90)
    return Ran(exit_code=process.returncode, stdout=stdout, stderr=stderr)


def make_project(directory: Path, prefix: str, addresses: Addresses) -> Project:
    shutil.copytree(SHOP, directory, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    project = Project(directory=directory, prefix=prefix, addresses=addresses)
    project.edit("rewindow.toml", '"shop"', f'"{prefix}"')
    project.edit("rewindow.toml", "[topics]", f'[topics]\nprefix = "{prefix}."')
    project.edit("sources/orders.yaml", "topic: orders", f"topic: {project.topic}")
    project.edit("sources/orders.yaml", "orders-value", project.subject)
    project.edit("schemas/compatibility.toml", "orders-value", project.subject)
    return project


@pytest.fixture
def project(tmp_path: Path, prefix: str, stack: Addresses) -> Project:
    return make_project(tmp_path / "shop", prefix, stack)


@pytest.fixture
def registered(project: Project) -> Project:
    """With its schema in the registry."""
    file = "schemas/orders-value/v0001.avsc"
    project.run("schemas", "register", project.subject, file, "--json").json()
    return project


def order(minute: int, number: int, amount: float) -> dict[str, Any]:
    return {
        "order_id": str(number),
        "customer": "ann",
        "product": "tea",
        "quantity": 1,
        "amount": amount,
        "coupon": None,
        "cancelled": False,
        "ordered_at": NOON_MS + minute * MINUTE_MS,
    }


def test_the_walk_from_a_schema_to_features_on_a_topic(
    project: Project, kafka: KafkaTools, tmp_path: Path
) -> None:
    file = "schemas/orders-value/v0001.avsc"
    registering = ("schemas", "register", project.subject, file, "--json")
    first = project.run(*registering).json()
    assert first["change"] == "registered"
    assert first["compatibility"] == "FULL_TRANSITIVE"
    assert project.run(*registering).json() == {**first, "change": "unchanged"}
    listed = project.run("schemas", "list", "--json").json()["subjects"]
    assert {
        "subject": project.subject,
        "version": 1,
        "id": first["id"],
        "compatibility": "FULL_TRANSITIVE",
    } in listed

    kafka.create_topic(project.topic, partitions=2)
    events = [order(minute, minute, 10.0) for minute in (0, 1, 30)]
    kafka.produce(
        project.topic,
        [
            Outgoing(
                key=b"ann",
                value=kafka.encode(first["id"], event),
                partition=0,
                timestamp_ms=event["ordered_at"],
            )
            for event in events
        ],
    )
    published = project.run("publish", *project.definitions(), "--json").json()
    assert [one["change"] for one in published["definitions"]] == ["published", "published"]
    again = project.run("publish", *project.definitions(), "--json").json()
    assert [one["change"] for one in again["definitions"]] == ["unchanged", "unchanged"]

    spec = WorkerSpec(
        app=project.prefix,
        addresses=project.addresses,
        state_dir=project.directory / "state",
        extra=("--config", str(project.directory / "rewindow.toml")),
    )
    with WorkerProcess(spec, tmp_path / "logs") as worker:
        worker.until(lambda: worker.stats.get("vectors", 0) > 1, "any vectors")
        taken = project.run("worker", "--instance", spec.instance)
        assert worker.stop() == 0
    taken.refused(3, f"instance {spec.instance}", "--instance")

    rows = project.run("tail", "customer_orders", "--from-beginning", "--json")
    vectors = [json.loads(line) for line in rows.stdout.splitlines()]
    finals = [one for one in vectors if one["rewindow_kind"] == "final"]
    assert finals[0]["as_of"] == "2026-01-01T12:01:00Z"
    assert finals[0]["spent_1h"] == pytest.approx(10.0)
    shown = project.run("tail", "customer_orders", "-n", "1")
    assert shown.exit_code == 0
    assert "spent_1h=" in shown.stdout
    assert all(len(line) <= 100 for line in shown.stdout.splitlines())

    other = project.run("worker", "--instance", spec.instance, "--app", f"{project.prefix}_x")
    other.refused(1, "no feature set", "rewindow publish")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "spent_1h: {sum: amount",
            "spent_1h: {sum: amuont",
            ["features.spent_1h.sum", "'amuont'", "'amount'"],
        ),
        ("window: 10m", "window: 90s", ["features.orders_10m.window", "1m or 2m"]),
        ("features:", "features: [", ["is not YAML"]),
    ],
    ids=["unknown field", "bad window", "malformed YAML"],
)
def test_a_wrong_definition_is_refused_with_its_place(
    registered: Project, old: str, new: str, words: list[str]
) -> None:
    file = registered.edit("features/customer_orders.yaml", old, new, to="wrong.yaml")
    ran = registered.run("publish", "sources/orders.yaml", file, "--json")
    ran.refused(2, "wrong.yaml:", *words)


def test_mistakes_before_anything_is_published(project: Project) -> None:
    ran = project.run("publish", *project.definitions())
    ran.refused(2, "sources/orders.yaml:4", project.subject, "rewindow schemas register")
    project.run("publish", "nosuch.yaml").refused(2, "nosuch.yaml", "can't be read")
    project.run("tail", "nosuch").refused(2, "features.nosuch", "publish")
    project.run("worker").refused(1, "has published no feature set", "rewindow publish")
    project.run("worker", "--instance", "../x").refused(2, "--instance '../x'")
    wrong = project.directory / "wrong.avsc"
    wrong.write_text('{"type": "record", "name": "A"}')
    project.run("schemas", "register", "a-value", "wrong.avsc").refused(2, "wrong.avsc", "Avro")


def test_what_a_rule_refuses(registered: Project) -> None:
    published = registered.run("publish", *registered.definitions())
    assert published.exit_code == 0
    assert f"topic {registered.topic} does not exist" in published.stderr
    registered.run("worker").refused(1, registered.topic, "does not exist", "create it")

    other = registered.edit(
        "features/customer_orders.yaml", "every: 1m", "every: 2m", to="other.yaml"
    )
    registered.run("publish", other).refused(3, "other.yaml:3", "new version")
    registered.run("publish", *registered.definitions(), "--app", "another").refused(
        3, "belongs to app", registered.prefix
    )
    narrower = registered.edit(
        "schemas/orders-value/v0001.avsc",
        '{"name": "amount", "type": "double", "doc": "Price of the whole order"},',
        "",
        to="schemas/narrower.avsc",
    )
    registered.run("schemas", "register", registered.subject, narrower).refused(
        3, "'amount'", "FULL_TRANSITIVE"
    )


def test_a_state_directory_that_cannot_be_used(registered: Project, kafka: KafkaTools) -> None:
    kafka.create_topic(registered.topic)
    assert registered.run("publish", *registered.definitions()).exit_code == 0
    file = registered.directory / "file"
    file.touch()
    ran = registered.run("worker", REWINDOW_STATE_DIR=str(file / "below"))
    ran.refused(2, str(file), "REWINDOW_STATE_DIR")


class _Page(BaseHTTPRequestHandler):
    """A web server that is no registry."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>welcome</html>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web_page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_wrong_registry_addresses(registered: Project, web_page: str) -> None:
    assert registered.run("publish", *registered.definitions()).exit_code == 0
    closed = f"http://127.0.0.1:{free_port()}"
    wrong_path = f"{registered.addresses.registry_url}/nothing"
    for url, words in (
        (closed, "does not answer"),
        (wrong_path, "is no schema registry"),
        (web_page, "is no schema registry"),
    ):
        ran = registered.run("publish", *registered.definitions(), "--registry-url", url)
        ran.refused(4, words, url)
    registered.run("schemas", "list", "--registry-url", closed).refused(4, closed)
    registered.run("tail", "nosuch", "--registry-url", "nonsense").refused(2, "nosuch")


def test_a_kafka_that_does_not_answer_is_given_up(project: Project) -> None:
    servers = f"127.0.0.1:{free_port()}"
    # At once, since each waits for its time-out.
    running = [
        project.start(*command, "--bootstrap-servers", servers)
        for command in (
            ("publish", *project.definitions()),
            ("worker",),
            ("worker", "--json"),
            ("tail", "customer_orders"),
        )
    ]
    for process in running:
        ended(process).refused(4, f"Kafka at {servers} does not answer", "rewindow up")
