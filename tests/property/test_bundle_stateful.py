"""A bundle on disk, the store in memory and a plain dict, driven together, never differ."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import polars as pl
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streams.state.bundle import Bundle, Resources
from streams.state.memory import MemoryStore
from streams.state.rows import RowLayout
from streams.state.store import Meta

LAYOUT = RowLayout([("n", pl.Int64()), ("s", pl.String())])
EVERYTHING = (-(1 << 63), (1 << 63) - 1)

PANES = st.integers(-4, 8).map(lambda n: n * 1000)
KEYS = st.tuples(PANES, st.sampled_from(["", "a", "a\0", "b", "ü", "\U0001f6eb"]))
CELLS = st.tuples(st.none() | st.integers(-5, 5), st.none() | st.text(max_size=3))
METAS = st.builds(
    Meta,
    next_offset=st.integers(0, 1 << 62),
    watermark_ms=st.none() | PANES,
    source_watermarks=st.dictionaries(st.integers(0, 3), PANES, max_size=2),
    floor_ms=st.none() | PANES,
)

Row = tuple[int, str, int | None, str | None]


class Stores(RuleBasedStateMachine):
    """`model` maps (pane, entity) to the cells of its row."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="bundle"))
        self.resources = Resources(cache_bytes=1 << 20)
        self.model: dict[tuple[int, str], tuple[int | None, str | None]] = {}
        self.meta: Meta | None = None

    @initialize()
    def make(self) -> None:
        self.memory = MemoryStore(LAYOUT)
        self.open()

    def open(self) -> None:
        self.disk = Bundle.open(
            self.path, LAYOUT, identity={"app": "test"}, resources=self.resources
        )

    def expected(self, keys: set[tuple[int, str]]) -> list[Row]:
        found = sorted(keys & self.model.keys(), key=lambda key: (key[0], key[1].encode()))
        return [(*key, *self.model[key]) for key in found]

    @rule(rows=st.dictionaries(KEYS, CELLS, max_size=8), meta=METAS)
    def flush(self, rows: dict[tuple[int, str], tuple[int | None, str | None]], meta: Meta) -> None:
        full = [(*key, *cells) for key, cells in rows.items()]
        frame = pl.DataFrame(full, schema=LAYOUT.schema, orient="row")
        for store in (self.disk, self.memory):
            store.flush(frame, meta)
        self.model.update(rows)
        self.meta = meta

    @rule(start=PANES, end=PANES)
    def scan(self, start: int, end: int) -> None:
        expected = self.expected({key for key in self.model if start <= key[0] < end})
        assert self.disk.scan(start, end).rows() == expected
        assert self.memory.scan(start, end).rows() == expected

    @rule(start=PANES, end=PANES, limit=st.integers(0, 12))
    def scan_some(self, start: int, end: int, limit: int) -> None:
        expected = self.expected({key for key in self.model if start <= key[0] < end})
        panes = sorted({pane for pane, *_ in expected})
        for store in (self.disk, self.memory):
            assert store.scan(start, end, limit).rows() == expected[:limit]
            assert store.panes(start, end) == panes

    @rule(
        panes=st.sets(PANES),
        after=st.none() | KEYS.map(lambda key: key[1]),
        limit=st.integers(1, 4),
    )
    def scan_each(self, panes: set[int], after: str | None, limit: int) -> None:
        first = b"" if after is None else after.encode() + b"\0"
        expected = []
        for pane in sorted(panes):
            keys = {key for key in self.model if key[0] == pane and key[1].encode() >= first}
            expected += self.expected(keys)[:limit]
        for store in (self.disk, self.memory):
            assert store.scan_each(sorted(panes), after, limit).rows() == expected

    @rule(keys=st.lists(KEYS, max_size=12))
    def lookup(self, keys: list[tuple[int, str]]) -> None:
        frame = pl.DataFrame(keys, schema={"@pane": pl.Int64, "@entity": pl.String}, orient="row")
        expected = self.expected(set(keys))
        assert self.disk.lookup(frame).rows() == expected
        assert self.memory.lookup(frame).rows() == expected

    @rule(pane=PANES)
    def drop_below(self, pane: int) -> None:
        self.disk.drop_below(pane)
        self.memory.drop_below(pane)
        self.model = {key: cells for key, cells in self.model.items() if key[0] >= pane}

    @rule()
    def reopen(self) -> None:
        self.disk.close()
        self.open()

    @invariant()
    def all_agree(self) -> None:
        expected = self.expected(set(self.model))
        assert self.disk.scan(*EVERYTHING).rows() == expected
        assert self.memory.scan(*EVERYTHING).rows() == expected
        assert self.disk.meta == self.memory.meta == self.meta

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            self.disk.close()
        shutil.rmtree(self.path)


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
