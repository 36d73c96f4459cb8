"""Settings from file, environment and command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streams.config import load_settings
from streams.errors import InvalidInputError
from streams.kafka import aiokafka_config, confluent_config
from streams.settings import Secret, Settings

if TYPE_CHECKING:
    from pathlib import Path

ADDRESSES = {
    "REWINDOW_BOOTSTRAP_SERVERS": "env:9092",
    "REWINDOW_REGISTRY_URL": "http://env:8081",
}


def load(tmp_path: Path, text: str, **environ: str) -> Settings:
    file = tmp_path / "rewindow.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file, environ={**ADDRESSES, "HOME": str(tmp_path), **environ})


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        load(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_quoted_and_bare_names_are_the_same(tmp_path: Path) -> None:
    text = '[kafka]\nsecurity.protocol = "SASL_SSL"\n"sasl.mechanism" = "PLAIN"\nretries = 3\n'
    settings = load(tmp_path, text)
    assert settings.kafka["security.protocol"] == "SASL_SSL"
    assert settings.kafka["sasl.mechanism"] == "PLAIN"
    assert settings.kafka["retries"] == "3"


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rewindow.toml"
    file.write_text(
        'app = "file"\n[kafka]\nbootstrap.servers = "file:1"\nclient.id = "file"\n'
        '[registry]\nurl = "http://file"\n'
    )
    from_file = load_settings(file, environ={})
    assert (from_file.app, from_file.bootstrap_servers) == ("file", "file:1")
    environ = {
        **ADDRESSES,
        "REWINDOW_APP": "env",
        "REWINDOW_STATE_DIR": str(tmp_path / "env"),
        "REWINDOW_KAFKA_CLIENT_ID": "env",
    }
    from_environ = load_settings(file, environ=environ)
    assert (from_environ.app, from_environ.bootstrap_servers) == ("env", "env:9092")
    assert from_environ.registry["url"] == "http://env:8081"
    assert from_environ.kafka["client.id"] == "env"
    assert from_environ.state_dir == tmp_path / "env"
    given = load_settings(
        file, bootstrap_servers="cli:1", registry_url="http://cli", app="cli", environ=environ
    )
    assert (given.app, given.bootstrap_servers) == ("cli", "cli:1")
    assert given.registry["url"] == "http://cli"


def test_each_app_has_a_state_directory_of_its_own(tmp_path: Path) -> None:
    settings = load(tmp_path, 'app = "one"', XDG_STATE_HOME=str(tmp_path))
    assert settings.state_dir == tmp_path / "rewindow" / "one"
    assert load(tmp_path, '[state]\ndir = "here"').state_dir == tmp_path / "here"


def test_topics(tmp_path: Path) -> None:
    text = '[topics]\nprefix = "x."\npartitions = 6\ncreate = false\nretention = "1d"\n'
    settings = load(tmp_path, text)
    assert (settings.topics.partitions, settings.topics.create) == (6, False)
    assert settings.topics.retention_ms == 86_400_000
    assert settings.names.features_topic("a") == "x.features.a"


def test_how_many_versions_are_kept(tmp_path: Path) -> None:
    assert load(tmp_path, "").versions.keep == 2
    assert load(tmp_path, "[versions]\nkeep = 0").versions.keep == 0
    assert load(tmp_path, "[versions]\nkeep = 5", REWINDOW_VERSIONS_KEEP="1").versions.keep == 1
    with pytest.raises(InvalidInputError, match=r"versions\.keep: needs a whole number"):
        load(tmp_path, "", REWINDOW_VERSIONS_KEEP="many")


def test_secrets_come_from_variables_and_files_and_are_never_shown(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    text = (
        '[kafka]\nsasl.username = "${WHO}"\nsasl.password = "file:password"\n'
        '[registry]\nbasic.auth.user.info = "${WHO}:${WHAT}"\n'
    )
    settings = load(tmp_path, text, WHO="me", WHAT="hunter3", REWINDOW_KAFKA_SSL_KEY_PASSWORD="h4")
    assert confluent_config(settings)["sasl.password"] == "hunter2"
    assert settings.kafka["sasl.username"] == "me"
    assert settings.registry_options()["basic.auth.user.info"] == "me:hunter3"
    for shown in (repr(settings), str(settings), str(settings.public())):
        assert "hunter" not in shown
        assert "h4" not in shown
    assert str(Secret("x")) == f"{Secret('x')!r}" == "***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[kafka", "rewindow.toml: is not TOML"),
        ("[kafak]\n", "kafak: unknown: did you mean 'kafka'?"),
        ("kafka = 1", "kafka: needs to be a table"),
        ("[registry]\nurll = 'x'", "registry.urll: unknown key: did you mean 'url'?"),
        ("[topics]\npartitions = 0", "topics.partitions: needs a whole number from 1 on"),
        ("[topics]\ncreate = 'yes'", "topics.create: needs true or false"),
        ("[topics]\nretention = 7", "topics.retention: needs a duration in quotes"),
        ("[topics]\nprefix = 'a b'", "topics.prefix: needs at most 64"),
        ("app = 'My App'", "app: 'My App' is no app name"),
        ("[kafka]\nsasl.password = 'x'", "kafka.sasl.password: is a secret: write '${VARIABLE}'"),
        ("[kafka]\nsasl.password = '${NO_SUCH}'", "the environment variable NO_SUCH is not set"),
        ("[kafka]\nsasl.password = 'file:none'", "the file none can't be read"),
        ("[registry]\nurl = 'http://me:x@host'", "registry.url: has a password in it"),
        ("[registry]\nbasic.auth.user.info = 'me:x'", "is a secret"),
        ("[kafka]\nretries = [1]", "kafka.retries: needs text, a number, true or false"),
        ("[state]\ndir = 1", "state.dir: needs a path"),
        ("[versions]\nkeep = -1", "versions.keep: needs a whole number from 0 to 100"),
        ("[versions]\nkeep = true", "versions.keep: needs a whole number"),
        ("[versions]\nkept = 1", "versions.kept: unknown key: did you mean 'keep'?"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, text)


def test_all_that_is_wrong_is_listed(tmp_path: Path) -> None:
    text = "[topics]\npartitions = 0\ncreate = 1\n[kafak]\n"
    assert len(refusal(tmp_path, text).splitlines()) == 3


def test_a_named_file_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="can't be read"):
        load_settings(tmp_path / "none.toml", environ=ADDRESSES)


def test_aiokafka_takes_the_same_settings_by_its_own_names(tmp_path: Path) -> None:
    text = (
        '[kafka]\nsecurity.protocol = "sasl_ssl"\nsasl.mechanism = "PLAIN"\n'
        'sasl.username = "me"\nsasl.password = "${WHAT}"\nrequest.timeout.ms = 5000\n'
        'ssl.endpoint.identification.algorithm = "none"\n'
    )
    config = aiokafka_config(load(tmp_path, text, WHAT="x"))
    context = config.pop("ssl_context")
    assert context.check_hostname is False
    assert config == {
        "bootstrap_servers": "env:9092",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "me",
        "sasl_plain_password": "x",
        "request_timeout_ms": 5_000,
    }


def test_a_setting_that_aiokafka_does_not_know_is_refused(tmp_path: Path) -> None:
    settings = load(tmp_path, "[kafka]\nqueue.buffering.max.messages = 1\n")
    with pytest.raises(InvalidInputError, match=r"kafka\.queue\.buffering\.max\.messages: can't"):
        aiokafka_config(settings)


# -- checkpoints --------------------------------------------------------------------------------


def test_checkpoints_are_kept_in_the_state_directory_unless_told(tmp_path: Path) -> None:
    found = load(tmp_path, '[state]\ndir = "state"').snapshots
    assert found is not None
    assert found.url == (tmp_path / "state" / "snapshots").as_uri()
    assert (found.every_ms, found.keep) == (600_000, 6)
    assert load(tmp_path, '[snapshots]\nurl = "none"').snapshots is None


def test_a_path_for_checkpoints_is_relative_to_the_file(tmp_path: Path) -> None:
    found = load(tmp_path, '[snapshots]\nurl = "there"\nevery = "30s"\nkeep = 3').snapshots
    assert found is not None
    assert (found.url, found.every_ms, found.keep) == ((tmp_path / "there").as_uri(), 30_000, 3)


def test_options_of_an_object_store_pass_through_and_its_secrets_are_never_shown(
    tmp_path: Path,
) -> None:
    text = (
        '[snapshots]\nurl = "s3://bucket/shop"\nregion = "eu-central-1"\nallow_http = true\n'
        'secret_access_key = "${KEY}"'
    )
    settings = load(tmp_path, text, KEY="hidden")
    assert settings.snapshots is not None
    assert settings.snapshots.options["region"] == "eu-central-1"
    assert settings.snapshots.options["allow_http"] == "true"
    assert "hidden" not in f"{settings!r}{settings.public()}"


def test_variables_stand_for_the_settings_of_checkpoints(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        '[snapshots]\nurl = "none"\nevery = "1h"',
        REWINDOW_SNAPSHOTS_URL="gs://bucket",
        REWINDOW_SNAPSHOTS_EVERY="5s",
        REWINDOW_SNAPSHOTS_KEEP="2",
    ).snapshots
    assert found is not None
    assert (found.url, found.every_ms, found.keep) == ("gs://bucket", 5_000, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('every = "10ms"', "snapshots.every: needs a second at least, such as '10m'"),
        ("every = 10", "snapshots.every: needs a duration in quotes, such as '7d'"),
        ("keep = 0", "snapshots.keep: needs a whole number from 1 on"),
        ('evry = "1m"', "snapshots.evry: a directory has no such option: did you mean 'every'?"),
        ('url = "s3://b"\nsecret_access_key = "x"', "snapshots.secret_access_key: is a secret"),
    ],
)
def test_settings_of_checkpoints_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, f"[snapshots]\n{text}")
