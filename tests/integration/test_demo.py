"""The demo, cut short: the same phases and the same comparison over the first weeks of a year."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.flights.bad_records import ERRORS

if TYPE_CHECKING:
    from streams.devstack import Addresses
    from tests.integration.kafka_tools import KafkaTools

REPOSITORY = Path(__file__).parents[2]
FLIGHTS = 20_000
FLIGHTS_OF_ROLLBACK = 10_000
BAD_COPIES = 5
ADDRESSES = ("REWINDOW_BOOTSTRAP_SERVERS", "REWINDOW_REGISTRY_URL")


@pytest.mark.timeout(600)
def test_a_short_demo_finds_no_mismatch_and_leaves_nothing_behind(
    stack: Addresses, kafka: KafkaTools
) -> None:
    before = set(kafka.admin.list_topics(timeout=30).topics)
    done = demo(
        "--json",
        "--limit",
        str(FLIGHTS),
        "--bootstrap-servers",
        stack.bootstrap_servers,
        "--registry-url",
        stack.registry_url,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["mismatches"] == 0
    assert found["events"] == FLIGHTS
    assert found["dead_letters"] == BAD_COPIES * len(ERRORS)
    assert found["vectors"] == sum(found["vectors_by_set"].values()) > FLIGHTS / 10
    assert found["late"] > 0
    assert found["events_per_s"] > 0
    assert found["peak_rss_mb"] > 0
    made = set(kafka.admin.list_topics(timeout=30).topics) - before
    assert not [topic for topic in made if topic.startswith("demo-")]


@pytest.mark.timeout(600)
def test_a_short_rollback_demo_compares_what_each_version_served(
    stack: Addresses, kafka: KafkaTools
) -> None:
    before = set(kafka.admin.list_topics(timeout=30).topics)
    done = demo(
        "rollback",
        "--json",
        "--limit",
        str(FLIGHTS_OF_ROLLBACK),
        "--bootstrap-servers",
        stack.bootstrap_servers,
        "--registry-url",
        stack.registry_url,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["lost"], found["duplicated"], found["wrong"]) == (0, 0, 0)
    assert found["vectors"] == sum(found["vectors_by_version"].values())
    assert found["corrections"] == found["repair_corrections"] + found["exclude_corrections"]
    assert 0 < found["excluded_events"] < FLIGHTS_OF_ROLLBACK / 20
    versions = ("1.0.0", "1.1.0", "2.0.0")
    assert set(found["vectors_by_version"]) == {f"origin_departures@{one}" for one in versions}
    assert min(found["vectors_by_version"].values()) > 0
    assert found["open_windows_at_cut"] > 0
    *_, back, left_out = found["switches"]
    assert (found["cut"], found["exclude_cut"]) == (back["cut"], left_out["cut"])
    assert sum(back["cut"].values()) < sum(left_out["cut"].values()) < FLIGHTS_OF_ROLLBACK
    assert min(back["changed"], left_out["changed"]) > 0
    assert [one["target"] for one in found["switches"]] == ["1.1.0", "2.0.0", "1.1.0", "1.1.0"]
    for one in found["switches"]:
        assert 0 < one["timings_ms"]["switched"] <= one["timings_ms"]["completed"]
    for title in ("request", "The cuts", "Said again", "duplicated", "What to try next"):
        assert title in done.stderr
    made = set(kafka.admin.list_topics(timeout=30).topics) - before
    assert not [topic for topic in made if topic.startswith("demo-")]


def test_a_demo_needs_both_addresses_or_none() -> None:
    done = demo("--bootstrap-servers", "127.0.0.1:9")
    assert done.returncode == 2
    assert "name both" in done.stderr
    assert "Traceback" not in done.stderr


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`scripts/demo` without its set-up, which the tests have behind them."""
    own = {name: it for name, it in os.environ.items() if name not in ADDRESSES}
    return subprocess.run(
        [sys.executable, "-m", "examples.flights.demo", *arguments],
        cwd=REPOSITORY,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
