"""The commands of the control path against a running coordinator."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from streams.cli import audit, main, requests, versions
from streams.cli.audit import as_line, from_line
from streams.control.codec import Kind, encode
from tests.integration.control_rig import PARTITIONS, V1, V2, V3, ControlRig
from tests.integration.shell import Shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import typer

    from tests.integration.kafka_tools import KafkaTools

CUT = {0: 7, 1: 9}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build = main.build

    def with_control() -> typer.Typer:
        app = build()
        for module in (requests, versions, audit):
            module.register(app)
        return app

    monkeypatch.setattr(main, "build", with_control)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
async def rig(kafka: KafkaTools, prefix: str, tmp_path: Path) -> AsyncIterator[ControlRig]:
    made = ControlRig(kafka, prefix, tmp_path)
    await made.start()
    yield made
    await made.close()
    assert made.failures == []


@pytest.fixture
def run(rig: ControlRig, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(rig, capsys)


async def test_a_version_is_activated_and_taken_back(rig: ControlRig, run: Shell) -> None:
    name = rig.set_name
    rig.publish(V2)
    async with rig.alone(), rig.owners(CUT):
        await rig.route(lambda found: all(one.ready for one in found.live))
        would = (await run("activate", f"{name}@{V2}", "--dry-run", "--json")).json()
        assert (would["state"], would["plan"]["how"]) == ("completed", "hot")
        done = (await run("activate", f"{name}@{V2}", "--reason", "new", "--json")).json()
        assert done["states"] == ["accepted", "switched", "completed"]
        assert done["cut"] == {"0": 7, "1": 9}
        rows = (await run("versions", name, "--json")).json()["versions"]
        assert [(row["version"], row["state"], row["epoch"]) for row in rows] == [
            (V1, "live", 0),
            (V2, "serving", 1),
        ]
        assert [row["partitions_ready"] for row in rows] == [PARTITIONS, PARTITIONS]
        assert rows[1]["since_ms"] == done["times"]["switching"]
        back = await run("rollback", name, "--reason", "worse", "--deadline", "30s")
        assert back.exit_code == 0, back.stderr
        assert f"{name}: {V1} serves instead of {V2}, epoch 2" in back.stdout
        assert f"takes back the activation of {V2}" in back.stdout
        again = await run("rollback", name, "--reason", "once more", "--json")
        assert again.exit_code == 3
        assert "no activation" in again.stderr
        assert [one["code"] for one in again.json()["reasons"]] == ["nothing_to_undo"]
        gone = await run("retire", f"{name}@{V2}", "--reason", "bad")
        assert (gone.exit_code, f"{name}: {V2} is retired" in gone.stdout) == (0, True)
        table = await run("versions", name)
        assert "retired" in table.stdout
    audited = [record for record in await rig.audit() if record.event == "accepted"]
    assert [(record.version, record.reason) for record in audited] == [
        (V2, "new"),
        (V1, "worse"),
        (V2, "bad"),
    ]
    assert all("@" in record.requested_by for record in audited)


async def test_a_feature_is_switched_off_and_a_version_pinned(rig: ControlRig, run: Shell) -> None:
    name = rig.set_name
    rig.publish(V2)
    topic = rig.names.pinned_topic(name, V2)
    async with rig.alone(), rig.owners(CUT):
        await rig.route(lambda found: all(one.ready for one in found.live))
        off = (await run("toggle", name, "n", "off", "--json")).json()
        assert (off["states"], off["epoch"]) == (["accepted", "switched", "completed"], 1)
        again = await run("toggle", name, "n", "off")
        assert (again.exit_code, "is switched off already" in again.stderr) == (3, True)
        missing = await run("tail", name, "--version", V2)
        assert (missing.exit_code, f"rewindow pin {name}@{V2}" in missing.stderr) == (2, True)
        # Another app's topic is not written.
        value = {"type": "record", "name": "x", "fields": [], "rewindow.app": "another"}
        rig.registry.register(f"{rig.names.pinned_topic(name, V1)}-value", value)
        theirs = await run("pin", f"{name}@{V1}")
        assert (theirs.exit_code, "belongs to app 'another'" in theirs.stderr) == (3, True)
        pinned = await run("pin", f"{name}@{V2}", "--reason", "reports")
        assert (pinned.exit_code, "is pinned to a topic of its own" in pinned.stdout) == (0, True)
        rows = (await run("versions", name, "--json")).json()["versions"]
        assert [(row["pinned"], row["switched_off"]) for row in rows] == [
            (False, {"n": None}),
            (True, {}),
        ]
        kept = await run("retire", f"{name}@{V2}")
        assert (kept.exit_code, "unpin it first" in kept.stderr) == (3, True)
        assert (await run("unpin", f"{name}@{V2}")).exit_code == 0
        assert (await run("toggle", name, "n", "on")).exit_code == 0
        assert (await run("tail", name, "--version", V2)).stderr == "no vectors yet\n"
    assert len(rig.kafka.partitions(topic)) == PARTITIONS
    assert rig.registry.compatibility(f"{topic}-value") == "FULL_TRANSITIVE"
    route = (await rig.state()).sets[name]
    assert (route.epoch, route.toggles, route.pinned) == (4, (), ())


async def test_what_the_gate_refuses_exits_with_3_and_says_why(rig: ControlRig, run: Shell) -> None:
    name = rig.set_name
    async with rig.alone():
        route = await rig.route(lambda _: True)
        for arguments, words in (
            (("rollback", name, "--to", "9.9.9"), "no version 9.9.9"),
            (("rollback", name, "--to", V1), f"{V1} serves already"),
            (("activate", f"{name}@{V1}", "--if-serving", "0.1.0"), f"{V1} serves, and not 0.1.0"),
            (("rollback", f"{name}x", "--to", V1), "there is no feature set"),
            (("retire", f"{name}@{V1}"), f"{V1} serves"),
            (("rollback", name, "--exclude", "2:5-9"), "has partitions 0 to 1, and no 2"),
            (("rollback", name, "--exclude", "nowhere > 1"), "nowhere"),
        ):
            ran = await run(*arguments, "--reason", "a try")
            assert ran.exit_code == 3, ran.stderr
            assert words in ran.stderr
            assert ran.stdout == ""
    assert (await rig.state()).sets[name] == route


async def test_what_was_seen_to_serve_is_asked_for(rig: ControlRig, run: Shell) -> None:
    sent = (await run("activate", f"{rig.set_name}@{V3}", "--no-wait", "--json")).json()
    assert sent["offset"] == 0
    async with rig.alone():
        await rig.replies(sent["request_id"], last="rejected")
    asked = (await rig.state()).requests[sent["request_id"]].request
    assert asked is not None
    assert asked.if_serving == V1


async def test_without_a_worker_the_deadline_passes(rig: ControlRig, run: Shell) -> None:
    ran = await run("rollback", rig.set_name, "--reason", "now", "--deadline", "100ms")
    assert ran.exit_code == 5
    assert "no worker has answered" in ran.stderr


async def test_an_unfinished_preparation_exits_with_5(rig: ControlRig, run: Shell) -> None:
    rig.publish(V2)
    async with rig.alone():
        await rig.all_ready(V1)
        ran = await run("activate", f"{rig.set_name}@{V2}", "--deadline", "2s", "--json")
        rows = (await run("versions", rig.set_name, "--json")).json()["versions"]
    assert ran.exit_code == 5, ran.stderr
    assert "ready on 0 of 2 partitions when the deadline passed" in ran.stderr
    assert ran.json()["state"] == "failed"
    assert [(row["state"], row["partitions_ready"]) for row in rows] == [
        ("serving", 2),
        ("live", 0),
    ]


async def test_wrong_usage_exits_with_2(rig: ControlRig, run: Shell) -> None:
    for arguments, words in (
        (("activate", rig.set_name), "write SET@VERSION"),
        (("rollback", rig.set_name), "--reason"),
        (("activate", "a@1.0.0", "--deadline", "soon"), "is no duration"),
        (("rollback", "a", "--reason", "x", "--exclude", "0:9-9"), "the range is empty"),
        (("versions", f"{rig.set_name}x"), "did you mean"),
        (("audit", "show", "--file", "none.jsonl", "--topic", "x"), "give one of them"),
    ):
        ran = await run(*arguments)
        assert ran.exit_code == 2, ran.stderr
        assert words in ran.stderr


async def test_an_app_without_topics_is_told_to_publish(rig: ControlRig, run: Shell) -> None:
    rig.settings = replace(rig.settings, app=f"{rig.settings.app}-other")
    for arguments in (("rollback", "a", "--reason", "x"), ("audit", "show")):
        ran = await run(*arguments)
        assert (ran.exit_code, "rewindow publish" in ran.stderr) == (2, True), ran.stderr


async def test_the_audit_is_whole_and_a_tampered_copy_is_not(
    rig: ControlRig, run: Shell, tmp_path: Path
) -> None:
    rig.publish(V2)
    async with rig.alone(), rig.owners(CUT):
        await rig.route(lambda found: all(one.ready for one in found.live))
        request = await rig.ask(action="activate", target=V2, reason="new", requested_by="me")
        await rig.replies(request, last="completed")
    whole = await run("audit", "verify", "--json")
    assert whole.exit_code == 0, whole.stderr
    assert whole.json()["whole"]
    assert "activate from" in (await run("audit", "show")).stdout
    shown = (await run("audit", "show", "--json")).stdout
    lines = shown.splitlines()
    assert len(lines) == whole.json()["records"] > 4
    copy = tmp_path / "copy.jsonl"
    copy.write_text(shown)
    assert (await run("audit", "verify", "--file", str(copy))).exit_code == 0
    copy.write_text(shown.replace('"requested_by":"me"', '"requested_by":"you"', 1))
    edited = await run("audit", "verify", "--file", str(copy))
    at = next(number for number, line in enumerate(lines) if '"me"' in line)
    assert edited.exit_code == 1
    assert f"record {at} is edited" in edited.stderr
    copy.write_text("\n".join([*lines[:2], *lines[3:]]))
    assert "record 2 is missing" in (await run("audit", "verify", "--file", str(copy))).stderr
    copy.write_text("\n".join([lines[0], "nonsense", *lines[2:]]))
    assert (
        f"{copy}:2: is no audit record"
        in (await run("audit", "verify", "--file", str(copy))).stderr
    )


async def test_a_tampered_copy_on_a_topic_is_found_by_what_the_control_topic_knows(
    rig: ControlRig, run: Shell, kafka: KafkaTools
) -> None:
    async with rig.alone():
        await rig.all_ready(V1)
        await rig.replies(await rig.ask(), last="rejected")
    records = await rig.audit()
    topic = f"{rig.names.audit_topic}.copy"
    kafka.create_topic(topic)
    for record in records[:-1]:
        await rig.send(encode(record, rig.ids[Kind.AUDIT]), topic=topic)
    ran = await run("audit", "verify", "--topic", topic, "--json")
    assert ran.exit_code == 1
    assert ran.json()["findings"][0]["fault"] == "missing"
    assert [from_line(as_line(record)) for record in records] == records
