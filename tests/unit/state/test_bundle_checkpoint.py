"""A checkpoint of a bundle on disk: what is in it, and what opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from streams.errors import RefusedError, RewindowError
from streams.state.manifest import BundleId
from streams.state.store import Meta
from tests.checkpoint_world import BUNDLE, frame, opened, rows_at

if TYPE_CHECKING:
    from pathlib import Path

META = Meta(next_offset=7, watermark_ms=5, source_watermarks={1: 4}, floor_ms=-9, extra={"k": "v"})


def test_a_checkpoint_opens_with_the_rows_and_the_meta_of_the_last_flush(tmp_path: Path) -> None:
    bundle = opened(tmp_path / "b")
    bundle.flush(frame({(0, "a"): 1, (60, "b"): 2}), META)
    assert bundle.checkpoint(tmp_path / "c") == META
    bundle.flush(frame({(0, "a"): 9}), Meta(next_offset=8))
    bundle.close()
    assert rows_at(tmp_path / "c") == (META, {(0, "a"): 1, (60, "b"): 2})
    assert rows_at(tmp_path / "b") == (Meta(next_offset=8), {(0, "a"): 9, (60, "b"): 2})


def test_dropped_rows_are_not_in_a_checkpoint(tmp_path: Path) -> None:
    bundle = opened(tmp_path / "b")
    bundle.flush(frame({(0, "a"): 1, (60, "b"): 2}), META)
    bundle.drop_below(60)
    bundle.checkpoint(tmp_path / "c")
    bundle.close()
    assert rows_at(tmp_path / "c") == (META, {(60, "b"): 2})


def test_its_sst_files_are_hard_links_and_its_config_is_there(tmp_path: Path) -> None:
    bundle = opened(tmp_path / "b")
    bundle.flush(frame({(0, "a"): 1}), META)
    bundle.checkpoint(tmp_path / "c")
    ssts = [*(tmp_path / "c").glob("*.sst")]
    assert ssts
    assert all(path.samefile(tmp_path / "b" / path.name) for path in ssts)
    assert not [path for path in (tmp_path / "c").glob("*.log") if path.stat().st_size]
    config = (tmp_path / "b" / "rocksdict-config.json").read_bytes()
    assert (tmp_path / "c" / "rocksdict-config.json").read_bytes() == config
    bundle.close()


def test_writing_to_what_was_opened_from_it_leaves_the_bundle_alone(tmp_path: Path) -> None:
    bundle = opened(tmp_path / "b")
    bundle.flush(frame({(0, "a"): 1}), META)
    bundle.checkpoint(tmp_path / "c")
    other = opened(tmp_path / "c")
    other.flush(frame({(0, "a"): 5}), Meta(next_offset=99))
    other.drop_below(60)
    other.close()
    bundle.close()
    assert rows_at(tmp_path / "b") == (META, {(0, "a"): 1})


def test_without_a_flush_or_a_place_there_is_none(tmp_path: Path) -> None:
    bundle = opened(tmp_path / "b")
    with pytest.raises(ValueError, match="nothing was flushed"):
        bundle.checkpoint(tmp_path / "c")
    bundle.flush(frame({}), META)
    (tmp_path / "c").mkdir()
    with pytest.raises(RewindowError, match="nothing is lost"):
        bundle.checkpoint(tmp_path / "c")
    with pytest.raises(RewindowError, match="can't be copied"):
        bundle.checkpoint(tmp_path / "nowhere" / "c")
    bundle.close()
    with pytest.raises(ValueError, match="closed"):
        bundle.checkpoint(tmp_path / "d")


def test_restored_files_become_another_bundle_only_if_it_names_the_former(tmp_path: Path) -> None:
    other = BundleId(app=BUNDLE.app, stream=BUNDLE.stream, partition=3, bundle="cd34")
    bundle = opened(tmp_path / "b")
    bundle.flush(frame({(0, "a"): 1}), META)
    bundle.close()
    with pytest.raises(RefusedError, match="ab12"):
        opened(tmp_path / "b", other)
    with pytest.raises(RefusedError, match="ab12"):
        opened(tmp_path / "b", other, formerly=other)
    opened(tmp_path / "b", other, formerly=BUNDLE).close()
    assert rows_at(tmp_path / "b", other) == (META, {(0, "a"): 1})
    opened(tmp_path / "b", other, formerly=BUNDLE).close()
    with pytest.raises(RefusedError, match="cd34"):
        opened(tmp_path / "b")
