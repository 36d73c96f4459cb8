"""Runs one system in this process, and notes when its Kafka client first hands it events.

    python -m tests.bench.launch MARK TOPIC MODULE ARGUMENT…

`MODULE` has a `main()`. Both systems read with aiokafka, so the moment is the same for both:
their start-up is over and their work begins. The file MARK then holds a JSON object with the
seconds of the monotonic clock, which all processes share, and of this process's CPU time.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from aiokafka.consumer.fetcher import Fetcher

from streams.clock import SystemClock


def note_first_fetch(mark: Path, topic: str) -> None:
    """Write `mark` when the first records of `topic` are handed over."""
    fetched_records = Fetcher.fetched_records

    async def noting(self: Fetcher, *args: Any, **options: Any) -> Any:
        found = await fetched_records(self, *args, **options)
        if any(tp.topic == topic and records for tp, records in found.items()):
            Fetcher.fetched_records = fetched_records
            at = {"at_s": SystemClock().monotonic_s(), "cpu_s": time.process_time()}
            whole = mark.with_suffix(".part")
            whole.write_text(json.dumps(at))
            whole.replace(mark)
        return found

    Fetcher.fetched_records = noting


if __name__ == "__main__":
    _, mark_file, source_topic, module, *arguments = sys.argv
    note_first_fetch(Path(mark_file), source_topic)
    sys.argv = [module, *arguments]
    importlib.import_module(module).main()
