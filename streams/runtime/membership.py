"""Members of consumer groups beside Faust's: how they join, leave, and are looked after."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

from streams.errors import RewindowError
from streams.runtime.consumer import stop_consumer

if TYPE_CHECKING:
    from streams.runtime.context import Context

SESSION_TIMEOUT_S = 8.0
HEARTBEAT_S = 2.0
REBALANCE_TIMEOUT_S = 60.0
CHECK_S = 1.0
"""How often a membership is looked after."""

_FOREVER_MS = 2**31 - 1

log = logging.getLogger(__name__)


def member_config(context: Context, group: str, role: str) -> dict[str, Any]:
    """aiokafka's settings for a static member of `group` that commits by itself."""
    return {
        **context.kafka_config,
        "client_id": f"rewindow-{context.instance}-{role}",
        "group_id": group,
        "group_instance_id": context.instance,
        "partition_assignment_strategy": [RoundRobinPartitionAssignor],
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "fetch_max_wait_ms": 100,
        "session_timeout_ms": int(SESSION_TIMEOUT_S * 1000),
        "heartbeat_interval_ms": int(HEARTBEAT_S * 1000),
        "rebalance_timeout_ms": int(REBALANCE_TIMEOUT_S * 1000),
        # Without partitions, or while the registry is away, nothing is polled for long.
        "max_poll_interval_ms": _FOREVER_MS,
    }


def membership_error(consumer: Any, group: str) -> RewindowError | None:
    """Why a member can't take part any more, if it can't; what passes is only logged."""
    coordinator = consumer._coordinator
    if coordinator is None:
        return None
    try:
        coordinator.check_errors()
    except KafkaError as error:
        if coordinator._coordination_task.done():
            return RewindowError(
                f"group {group} can't be taken part in any more ({error}): start the worker again"
            )
        log.warning("group %s: %r", group, error)
    return None


async def leave_group(consumer: Any) -> None:
    """Leave at once. As a static member it would be waited for; a clean stop is for good.

    Who has not come so far as to join, for Kafka was away, only lets go.
    """
    if consumer._coordinator is not None:
        consumer._coordinator._group_instance_id = None
    await stop_consumer(consumer)
