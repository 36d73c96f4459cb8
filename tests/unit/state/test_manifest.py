"""A manifest is read as it was written, or named as what can't be used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from streams.errors import InvalidInputError
from streams.state.manifest import (
    File,
    Manifest,
    Unreadable,
    check_id,
    made_ms,
    new_id,
    read_manifest,
    split_key,
    upload_of,
)
from tests.checkpoint_world import BUNDLE

ID = new_id(1_767_225_600_123, "0a1b2c3d")
HASH = "ab" * 32
FILE = File(name="CURRENT", size_bytes=16, sha256=HASH, key=BUNDLE.object(ID, HASH), stamp="1")
MANIFEST = Manifest(
    of=BUNDLE,
    checkpoint=ID,
    created_ms=5,
    reason="a fence",
    next_offset=70,
    watermark_ms=None,
    source_watermarks={3: -1, 0: 2},
    floor_ms=-5,
    files=(FILE, replace(FILE, name="000001.sst", stamp=None)),
    schema_ids=(4, 9),
    notes={"index": "[]"},
)


def signed(**changes: object) -> bytes:
    """The manifest with these values, and a digest that is right."""
    document = {**json.loads(MANIFEST.to_bytes()), **changes}
    del document["sha256"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    document["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(document).encode()


def test_it_comes_back_as_it_was() -> None:
    assert read_manifest(BUNDLE, ID, MANIFEST.to_bytes()) == MANIFEST
    assert read_manifest(BUNDLE, ID, signed()) == MANIFEST
    again = replace(MANIFEST, source_watermarks={0: 2, 3: -1})
    assert again.to_bytes() == MANIFEST.to_bytes()


def test_cut_anywhere_it_is_no_manifest() -> None:
    whole = MANIFEST.to_bytes()
    for end in range(len(whole)):
        assert isinstance(read_manifest(BUNDLE, ID, whole[:end]), Unreadable)


def test_any_flipped_bit_is_seen() -> None:
    whole = MANIFEST.to_bytes()
    for at in range(len(whole)):
        flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert isinstance(read_manifest(BUNDLE, ID, flipped), Unreadable), whole[at : at + 20]


@pytest.mark.parametrize(
    "file",
    [
        {"name": "../CURRENT"},
        {"name": "/etc/CURRENT"},
        {"name": ".hidden"},
        {"sha256": "ab"},
        {"key": "flights/objects/other/0/ab12/x"},
        {"key": BUNDLE.object(ID, "cd" * 32)},
        {"unknown": 1},
    ],
)
def test_files_that_lead_elsewhere_are_refused(file: dict[str, object]) -> None:
    good = json.loads(MANIFEST.to_bytes())["files"][0]
    assert isinstance(read_manifest(BUNDLE, ID, signed(files=[{**good, **file}])), Unreadable)


def test_it_must_be_where_it_belongs() -> None:
    other = replace(BUNDLE, partition=4)
    found = read_manifest(other, ID, MANIFEST.to_bytes())
    assert isinstance(found, Unreadable)
    assert "flights.by.origin/3/ab12" in found.problem
    assert isinstance(read_manifest(BUNDLE, new_id(0, "00000000"), MANIFEST.to_bytes()), Unreadable)


def test_a_later_format_is_told_from_damage() -> None:
    found = read_manifest(BUNDLE, ID, json.dumps({"format": 2, "shape": "new"}).encode())
    assert isinstance(found, Unreadable)
    assert found.newer
    assert "newer version" in found.problem
    for other in (b"[]", b"{}", b'{"format":null}', signed(files=3), b"\xff"):
        damaged = read_manifest(BUNDLE, ID, other)
        assert isinstance(damaged, Unreadable)
        assert not damaged.newer


def test_ids_sort_by_time_and_say_it() -> None:
    made = [new_id(ms, "ffffffff") for ms in (0, 999, 1000, 1_767_225_600_123)]
    assert made == sorted(made)
    assert [made_ms(one) for one in made] == [0, 999, 1000, 1_767_225_600_123]
    for wrong in ("", "latest", ID[:-1], ID + "0", ID.replace("2026", "20a6"), "20261399" + ID[8:]):
        with pytest.raises(InvalidInputError, match="20260131T"):
            check_id(wrong)


def test_keys_say_whose_they_are() -> None:
    key = BUNDLE.object(ID, HASH)
    assert split_key(key) == (BUNDLE, [ID, HASH])
    assert upload_of(key) == ID
    for other in ("", "a/b", "a/objects/s/x/b/c/d", f"a/objects/s/0/b/{ID}", "a/o/s/0/b/c/d"):
        assert upload_of(other) is None
    for wrong in ("", "..", "a/b", "-a", "ü"):
        with pytest.raises(ValueError, match="part of a key"):
            replace(BUNDLE, stream=wrong)
        with pytest.raises(ValueError, match="a pin's name"):
            BUNDLE.pin(ID, wrong)
