"""A bundle with checkpoints, crashes, lost disks and damage, against a dict over its log.

The log is a list of events; a bundle at offset F holds the sums of the first F. Whatever
happens, the state is some such prefix, and replaying the rest leads to the sums of all.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.state.checkpoint import TAKE_STEPS, discard
from streams.state.manifest import Manifest
from streams.state.prune import PRUNE_STEPS, prune
from streams.state.restore import RESTORE_STEPS, newest_whole, restore_newest
from streams.state.store import Meta
from tests.checkpoint_world import BUNDLE, DAY_MS, EVERYTHING, World, flip, frame, opened

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS = st.lists(
    st.tuples(
        st.integers(-2, 3).map(lambda n: n * 1000),
        st.sampled_from(["", "a", "b", "ü"]),
        st.integers(-5, 5),
    ),
    min_size=1,
    max_size=6,
)


class CrashError(Exception):
    """The process is gone at this step."""


def crash_at(step: str, after: int) -> Callable[[str], None]:
    left = [after]

    def reach(reached: str) -> None:
        if reached == step:
            left[0] -= 1
            if left[0] < 0:
                raise CrashError

    return reach


class Life(RuleBasedStateMachine):
    """`log` is the truth; `world.bundle` is at `offset`, and never beyond the log."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="checkpoints"))
        self.log: list[tuple[int, str, int]] = []
        self.kept: set[str] = set()

    @initialize()
    def begin(self) -> None:
        self.world = World(self.base)

    def sums(self, offset: int) -> dict[tuple[int, str], int]:
        found: Counter[tuple[int, str]] = Counter()
        for pane, entity, n in self.log[:offset]:
            found[pane, entity] += n
        return dict(found)

    def rows(self) -> dict[tuple[int, str], int]:
        return {(p, e): n for p, e, n in self.world.bundle.scan(*EVERYTHING).rows()}

    @property
    def offset(self) -> int:
        meta = self.world.bundle.meta
        return 0 if meta is None else meta.next_offset

    def replay(self, end: int) -> None:
        """Bring the bundle to `end` from where it is, reading rows as a flush does."""
        rows = self.rows()
        changed: dict[tuple[int, str], int] = {}
        for pane, entity, n in self.log[self.offset : end]:
            changed[pane, entity] = changed.get((pane, entity), rows.get((pane, entity), 0)) + n
        self.world.bundle.flush(frame(changed), Meta(next_offset=end))

    @rule(events=EVENTS, flushed=st.integers(0, 6))
    def apply(self, events: list[tuple[int, str, int]], flushed: int) -> None:
        self.log += events
        self.replay(min(len(self.log), self.offset + flushed))

    @precondition(lambda self: self.world.bundle.meta is not None)
    @rule(pinned=st.booleans())
    def take(self, pinned: bool) -> None:
        facts = {"pin": "r-1"} if pinned else {}
        made = self.world.take(**facts)
        assert self.world.checkpoints.verify(made) == []
        if pinned:
            self.kept.add(made.checkpoint)

    @precondition(lambda self: self.world.bundle.meta is not None)
    @rule(step=st.sampled_from(TAKE_STEPS), after=st.integers(0, 3))
    def crash_while_taking(self, step: str, after: int) -> None:
        self.world.checkpoints.step = crash_at(step, after)
        try:
            self.world.take()
        except CrashError:
            self.come_back()
        finally:
            self.world.checkpoints.step = lambda _: None

    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        prune(self.world.checkpoints, keep=keep)

    @rule(step=st.sampled_from(PRUNE_STEPS), after=st.integers(0, 2))
    def crash_while_pruning(self, step: str, after: int) -> None:
        self.world.checkpoints.step = crash_at(step, after)
        try:
            prune(self.world.checkpoints, keep=1)
        except CrashError:
            self.come_back()
        finally:
            self.world.checkpoints.step = lambda _: None

    @rule(days=st.sampled_from([0.1, 0.3, 1.1]))
    def wait(self, days: float) -> None:
        self.world.clock.ms += int(days * DAY_MS)

    @rule()
    def come_back(self) -> None:
        """After a crash, with the disk that was there."""
        self.world.bundle.close()
        discard(self.world.staging)
        self.world.bundle = opened(self.base / "state")

    @rule(
        back=st.none() | st.integers(0, 20),
        step=st.none() | st.sampled_from(RESTORE_STEPS[:-1]),
        after=st.integers(0, 3),
    )
    def lose_the_disk(self, back: int | None, step: str | None, after: int) -> None:
        """Start over from the best checkpoint up to an offset, after a crash or at once."""
        self.world.bundle.close()
        path = self.base / "state"
        shutil.rmtree(path)
        below = None if back is None else max(0, len(self.log) - back)
        best = self.best(below)
        if step is not None:
            self.world.checkpoints.step = crash_at(step, after)
            try:
                restore_newest(self.world.checkpoints, BUNDLE, path, at_or_below=below)
            except CrashError:
                assert not path.exists()
            finally:
                self.world.checkpoints.step = lambda _: None
        if not path.exists():
            found = restore_newest(self.world.checkpoints, BUNDLE, path, at_or_below=below)
            assert (
                found.manifest
                == newest_whole(self.world.checkpoints, BUNDLE, at_or_below=below).manifest
            )
        self.world.bundle = opened(path)
        assert self.offset == best

    def best(self, below: int | None) -> int:
        """The offset of the best whole checkpoint, found by reading all of each."""
        checkpoints = self.world.checkpoints
        return max(
            (
                one.next_offset
                for one in checkpoints.all(BUNDLE)
                if isinstance(one, Manifest)
                and (below is None or one.next_offset <= below)
                and not checkpoints.verify(one)
            ),
            default=0,
        )

    @rule(pick=st.integers(0, 50), harm=st.sampled_from(["bit", "lost", "manifest"]))
    def damage(self, pick: int, harm: str) -> None:
        keys = self.world.keys("manifests" if harm == "manifest" else "objects")
        if not keys:
            return
        path = self.world.file(keys[pick % len(keys)])
        if harm == "lost" or not path.stat().st_size:
            path.unlink()
        else:
            flip(path)
        # What is kept is kept as it is: whether it is damaged, `whole_ones_stay` need not ask.
        self.kept &= {
            one.checkpoint
            for one in self.world.checkpoints.all(BUNDLE)
            if not self.world.checkpoints.verify(one)
        }

    @invariant()
    def state_is_a_prefix_of_the_log(self) -> None:
        assert self.offset <= len(self.log)
        assert self.rows() == self.sums(self.offset)

    @invariant()
    def kept_ones_stay_whole(self) -> None:
        there = {one.checkpoint: one for one in self.world.checkpoints.all(BUNDLE)}
        for checkpoint in self.kept:
            assert self.world.checkpoints.verify(there[checkpoint]) == []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.replay(len(self.log))
            assert self.rows() == self.sums(len(self.log))
            self.world.bundle.close()
        shutil.rmtree(self.base)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
