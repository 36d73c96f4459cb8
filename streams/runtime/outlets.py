"""Where vectors go: those of a set to its topic, those of a pinned version to one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.runtime.streams import vector_output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streams.control.set_record import Pin
    from streams.datapath.feature_set import SetPath
    from streams.datapath.progress import Progress
    from streams.datapath.step import Step
    from streams.names import Names
    from streams.runtime.roster import Decided
    from streams.runtime.streams import SetOutput, Stream, Version


class Outlets:
    """The outputs of one owner's paths, each made once."""

    def __init__(self, names: Names, stream: Callable[[], Stream], decided: Decided) -> None:
        """`stream` gives the stream with what is published by now."""
        self._names = names
        self._stream = stream
        self._decided = decided
        self._pinned: dict[tuple[str, Pin], SetOutput] = {}

    def of(self, step: Step, paths: Sequence[SetPath]) -> dict[str, SetOutput]:
        """Where the vectors of a step go that these paths made."""
        return {
            path.outlet: self._output(path, step.progress)
            for path in paths
            if path.outlet in step.vectors
        }

    def _output(self, path: SetPath, progress: Progress) -> SetOutput:
        name, version = path.live.name
        found = self._stream().version(name, version)
        if not path.pinned:
            return found.output
        epoch = progress.epochs.get(name, 0)
        held = self._decided.held_at(name, epoch)
        pin = None
        if held is not None:
            pin = next((one for one in held.pinned if one.version == path.view.version), None)
        if pin is None:
            raise LookupError(f"{name}@{version} is not pinned by epoch {epoch}")
        if (name, pin) not in self._pinned:
            self._pinned[name, pin] = self._made(name, pin, found)
        return self._pinned[name, pin]

    def _made(self, feature_set: str, pin: Pin, found: Version) -> SetOutput:
        return vector_output(
            found.plan.view,
            app=self._names.app,
            topic=self._names.pinned_topic(feature_set, pin.version),
            digest=found.output.digest,
            ids=(pin.key_schema_id, pin.value_schema_id),
        )
