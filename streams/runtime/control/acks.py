"""Acks as records of the acks topic, which also holds commit metadata that was too long.

An ack carries a header that says its kind; commit metadata carries none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.control.codec import Kind, encode
from streams.names import HEADER_PREFIX
from streams.runtime.producer import Outgoing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.control.records import Ack
    from streams.datapath.records import Headers
    from streams.names import Names

ACK_HEADER = f"{HEADER_PREFIX}ack"


def ack_records(names: Names, ids: Mapping[Kind, int], acks: Sequence[Ack]) -> list[Outgoing]:
    """The acks for `PartitionProducer.commit`, in one transaction with what they say.

    `ids` are those of `register_schemas`. Empty without acks.
    """
    if not acks:
        return []
    return [
        Outgoing(
            topic=names.acks_topic,
            partition=0,
            keys=[f"{ack.feature_set}/{ack.stream}/{ack.partition}".encode() for ack in acks],
            values=[encode(ack, ids[Kind.ACK]) for ack in acks],
            each_headers=[[(ACK_HEADER, type(ack).__name__.lower().encode())] for ack in acks],
        )
    ]


def is_ack(headers: Headers) -> bool:
    """Whether a record of the acks topic is an ack."""
    return any(name == ACK_HEADER for name, _ in headers)
