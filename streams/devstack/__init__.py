"""Real Kafka and schema registry on this machine, from package registries alone.

For the local stack of a user (`rewindow up`), the demo, tests and benchmarks. `DevStack` is a
stack of one's own for as long as a `with` block lasts.
"""

from streams.devstack.local import Health, down, running, stack_dir, status, up
from streams.devstack.packages import KAFKA_VERSION, REGISTRY_VERSION
from streams.devstack.stack import Addresses, DevStack, StackPorts

__all__ = [
    "KAFKA_VERSION",
    "REGISTRY_VERSION",
    "Addresses",
    "DevStack",
    "Health",
    "StackPorts",
    "down",
    "running",
    "stack_dir",
    "status",
    "up",
]
