"""From records of one stream partition to batches: the schemas they need, and decoding."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streams.datapath.batch import Batch
from streams.datapath.intake import Intake
from streams.schema.decode import Decoder

if TYPE_CHECKING:
    from streams.datapath.records import Record
    from streams.runtime.replay import Run
    from streams.runtime.streams import Stream

LookUp = Callable[[Collection[int]], Awaitable[Mapping[int, Mapping[str, Any] | None]]]


class BatchReader:
    """Decodes for one task; `look_up` asks for schemas by id, `run` runs blocking work."""

    def __init__(self, stream: Stream, partition: int, *, look_up: LookUp, run: Run) -> None:
        self._partition = partition
        self._look_up = look_up
        self._run = run
        decoder = Decoder(stream.published.schema, stream.fields)
        self._intake = Intake(
            stream.published.source, decoder, stream.fields, rekeyed=stream.rekeyed
        )

    @property
    def schema_ids(self) -> frozenset[int]:
        """What the records so far were written with, as far as the registry knows it."""
        return self._intake.decoder.known_ids

    async def read(self, records: Sequence[Record], first_offset: int) -> Batch:
        """Decode records, after looking up the schemas that they were written with."""

        def batch() -> Batch:
            return self._intake.batch(records, first_offset=first_offset, partition=self._partition)

        found = await self._run(lambda: self._intake.unknown_ids(records) or batch())
        if isinstance(found, Batch):
            return found
        for schema_id, schema in (await self._look_up(found)).items():
            self._intake.decoder.add(schema_id, schema)
        return await self._run(batch)
