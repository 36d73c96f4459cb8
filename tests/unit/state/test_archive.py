"""Archives of either kind: the same promises; and what a user is told of a wrong setting."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from streams.errors import InvalidInputError, RewindowError, UnreachableError
from streams.state.archive import open_archive
from streams.state.directory import DirectoryArchive
from tests.checkpoint_world import S3_OPTIONS, Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.state.objects import Archive

LARGE = 20 << 20


def bucket(endpoint: str, name: str = "bucket", **options: str) -> Archive:
    url = f"s3://{name}/{secrets.token_hex(4)}"
    settings = {**S3_OPTIONS, "endpoint": endpoint, **options}
    return open_archive(url, settings, retry_for_s=0.2)


@pytest.fixture(params=["directory", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    if request.param == "directory":
        return open_archive((tmp_path / "made" / "later").as_uri())
    return bucket(request.getfixturevalue("s3"))


def read(archive: Archive, key: str, size_bytes: int) -> bytes:
    return b"".join(archive.chunks(key, size_bytes))


def test_what_is_put_is_there_until_it_is_deleted(archive: Archive) -> None:
    assert archive.list("a") == []
    archive.put("a/b/one.json", b"1")
    archive.put("a/b/two.json", b"")
    archive.put("a/bc/three.json", b"333")
    archive.put("a/b/one.json", b"11")
    assert archive.get("a/b/one.json") == b"11"
    assert archive.get("a/b/two.json") == b""
    assert [(s.key, s.size_bytes) for s in archive.list("a/b")] == [
        ("a/b/one.json", 2),
        ("a/b/two.json", 0),
    ]
    assert [s.key for s in archive.list("a")][-1] == "a/bc/three.json"
    archive.delete(["a/b/one.json", "a/b/never.json"])
    assert archive.get("a/b/one.json") is None
    assert [s.key for s in archive.list("a/b")] == ["a/b/two.json"]


def test_a_large_file_goes_and_comes_in_pieces(archive: Archive, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * (LARGE >> 20)
    path = tmp_path / "large"
    path.write_bytes(data)
    done: list[int] = []
    stamp = archive.put_file("k/large", path, done.append)
    assert sum(done) == LARGE
    assert [(s.size_bytes, s.stamp) for s in archive.list("k")] == [(LARGE, stamp)]
    pieces = list(archive.chunks("k/large", LARGE))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 8 << 20
    assert read(archive, "k/large", LARGE - 5) == data[:-5]
    assert read(archive, "k/large", LARGE + 5) == data


def test_a_small_file_and_an_empty_one(archive: Archive, tmp_path: Path) -> None:
    for data in (b"", b"small"):
        path = tmp_path / "file"
        path.write_bytes(data)
        stamp = archive.put_file("k/file", path)
        path.unlink()
        assert read(archive, "k/file", len(data)) == data
        assert [s.stamp for s in archive.list("k")] == [stamp]
        archive.put("k/file", b"other")
        assert [s.stamp for s in archive.list("k")] != [stamp]
        archive.delete(["k/file"])


def test_what_is_not_there_has_no_bytes(archive: Archive, tmp_path: Path) -> None:
    archive.put("k/else", b"1")
    assert archive.get("k/none") is None
    assert read(archive, "k/none", 10) == b""
    assert not archive.link("k/none", tmp_path / "link")


def test_who_listens_may_end_an_upload_and_nothing_is_there(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "no links here")

    def enough(_: int) -> None:
        raise RewindowError("enough")

    monkeypatch.setattr("pathlib.Path.hardlink_to", no_links)
    path = tmp_path / "large"
    path.write_bytes(bytes(LARGE))
    with pytest.raises(RewindowError, match="enough"):
        archive.put_file("k/large", path, enough)
    assert archive.list("k") == []
    archive.put_file("k/large", path)
    assert [s.size_bytes for s in archive.list("k")] == [LARGE]
    assert archive.sweep(1 << 60) == 0


def test_a_directory_links_where_it_can(tmp_path: Path) -> None:
    archive = open_archive((tmp_path / "archive").as_uri())
    path = tmp_path / "file"
    path.write_bytes(b"data")
    archive.put_file("k/file", path)
    archive.put_file("k/file", path)
    stored = tmp_path / "archive" / "k" / "file"
    assert stored.samefile(path)
    assert archive.link("k/file", tmp_path / "back")
    assert (tmp_path / "back").samefile(path)
    assert path.stat().st_nlink == 3


def test_a_directory_tidies_up_after_itself_and_after_the_dead(tmp_path: Path) -> None:
    clock = Clock()
    archive = DirectoryArchive(tmp_path / "archive", clock)
    archive.put("a/b/c", b"1")
    incoming = tmp_path / "archive" / ".incoming"
    assert [*incoming.iterdir()] == []
    (incoming / f"{clock.ms:x}-00").write_bytes(b"half")
    assert [s.key for s in archive.list("a")] == ["a/b/c"]
    assert archive.sweep(clock.ms) == 0
    assert archive.sweep(clock.ms + 1) == 4
    assert [*incoming.iterdir()] == []
    archive.delete(["a/b/c"])
    assert [*(tmp_path / "archive").iterdir()] == [incoming]


@pytest.mark.parametrize("key", ["", "../x", "a/../../x", "/etc/x", "a//b", ".incoming/x"])
def test_keys_never_lead_out_of_a_directory(key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a key"):
        open_archive(tmp_path.as_uri()).put(key, b"")


def test_a_directory_that_is_a_file_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    archive = open_archive((tmp_path / "file").as_uri())
    with pytest.raises(InvalidInputError, match="may write"):
        archive.put("k", b"")


def test_a_directory_without_rights_is_a_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # By force, since root may write anywhere.
    monkeypatch.setattr(type(tmp_path), "mkdir", refused)
    with pytest.raises(InvalidInputError, match="may write"):
        open_archive((tmp_path / "a").as_uri()).put("k", b"")


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("ftp://host/x", {}, "begins with none of file://, s3://, gs://, az://"),
        ("snapshots", {}, "begins with none"),
        ("file://", {}, "no directory"),
        ("file://host/x", {}, "no directory"),
        ("file:///x", {"region": "a"}, "no option 'region'"),
        ("s3://", {}, "no bucket"),
        ("s3://key:secret@bucket", {}, "credentials"),
        ("s3://bucket", {"colour": "red"}, "colour"),
    ],
)
def test_urls_and_options_that_cant_be_right(url: str, options: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told) as caught:
        open_archive(url, options)
    assert "secret" not in str(caught.value)


def test_other_providers_are_known_by_their_urls() -> None:
    assert open_archive("gs://bucket/x", {"skip_signature": "true"}).url == "gs://bucket/x"
    account = {"account_name": "a", "skip_signature": "true"}
    assert open_archive("az://container/x", account).url == "az://container/x"


def every_use(archive: Archive, tmp_path: Path) -> Iterator[RewindowError]:
    (tmp_path / "small").write_bytes(b"1")
    (tmp_path / "large").write_bytes(bytes(9 << 20))
    for use in (
        lambda: archive.put("k", b""),
        lambda: archive.put_file("k", tmp_path / "small"),
        lambda: archive.put_file("k", tmp_path / "large"),
        lambda: archive.get("k"),
        lambda: list(archive.chunks("k", 3)),
        lambda: archive.list("k"),
        lambda: archive.delete(["k"]),
    ):
        with pytest.raises(RewindowError) as caught:
            use()
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
        yield caught.value


def test_a_bucket_that_does_not_exist(s3: str, tmp_path: Path) -> None:
    for error in every_use(bucket(s3, "elsewhere"), tmp_path):
        assert isinstance(error, InvalidInputError)
        assert "make the bucket" in str(error)


def test_credentials_that_are_refused(s3: str, tmp_path: Path) -> None:
    httpx.post(f"{s3}/moto-api/reset-auth", content=b"0", trust_env=False)
    try:
        for error in every_use(bucket(s3), tmp_path):
            assert isinstance(error, InvalidInputError)
            assert "credentials" in str(error)
    finally:
        httpx.post(f"{s3}/moto-api/reset-auth", content=b"inf", trust_env=False)


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for error in every_use(bucket(endpoint), tmp_path):
            assert isinstance(error, UnreachableError)
            assert "can't be reached" in str(error)


def test_http_has_to_be_allowed(s3: str) -> None:
    with pytest.raises(InvalidInputError, match="allow_http"):
        bucket(s3, allow_http="false").list("k")
