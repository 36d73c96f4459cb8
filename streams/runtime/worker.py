"""The composition root of a worker: reads what is published, builds each part once, runs it."""

from __future__ import annotations

import asyncio
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from faust.serializers import codecs
from faust.tables.manager import TableManager
from faust.types import TP

from streams.clock import Clock, SystemClock
from streams.definitions.store import Definitions, read_definitions
from streams.definitions.topics import SourceTopic
from streams.errors import NotStoppedError, RewindowError
from streams.kafka import aiokafka_config
from streams.runtime.context import Context, Limits
from streams.runtime.control.coordination import Parts
from streams.runtime.control.routes import Routes
from streams.runtime.control.schemas import register_schemas
from streams.runtime.control.service import CoordinatorService
from streams.runtime.crashpoints import CrashPoints
from streams.runtime.instance import Instance, hold_instance
from streams.runtime.membership import HEARTBEAT_S, SESSION_TIMEOUT_S
from streams.runtime.offsets import Offsets
from streams.runtime.orders import Orders
from streams.runtime.owner import PartitionOwner
from streams.runtime.ownership import Ownership
from streams.runtime.readers import IDENTITY, App, Readers
from streams.runtime.schemas import SchemaBook
from streams.runtime.snapshots import Snapshots
from streams.runtime.stats import Stats
from streams.runtime.streams import SetOutput, Stream, StreamBook
from streams.runtime.topics import prepare_topics
from streams.runtime.transport import Consumer
from streams.schema.registry import Registry
from streams.state.bundle import Resources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from streams.settings import Settings

FETCH_BYTES = 4 * 1024 * 1024
THREADS = 2
WATCH_EVERY_S = 1.0
STALLED_AFTER_S = 90.0
STOP_DEADLINE_S = 30.0
UPLOADS_S = 15.0
"""How long uploads may take that are under way when everything else has stopped."""

log = logging.getLogger(__name__)


class _Identity(codecs.Codec):
    """A batch is no bytes: it goes to the agent as it is."""

    def _loads(self, s: Any) -> Any:
        return s

    def _dumps(self, s: Any) -> Any:
        return s


class _NoTables(TableManager):
    """Faust's tables, of which there are none here. Theirs waits a second for some to come."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class Worker:
    """One process of an app. `run` returns when it was stopped, and raises if it can't go on."""

    def __init__(
        self,
        settings: Settings,
        *,
        instance: str | None = None,
        clock: Clock | None = None,
        crash: CrashPoints | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.stats = Stats()
        self._settings = settings
        self._wanted_instance = instance
        self._clock = clock or SystemClock()
        self._crash = crash or CrashPoints()
        self._limits = limits or Limits()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self, *, on_ready: Callable[[list[SetOutput]], None] | None = None) -> None:
        """Work until `stop`, SIGINT or SIGTERM.

        Raises `RewindowError` for what the operator has to mend.
        """
        instance = hold_instance(self._settings.state_dir, self._wanted_instance)
        try:
            await self._run(instance, on_ready)
        finally:
            instance.release()

    def stop(self) -> None:
        """Finish the batches in hand, commit, flush, leave the group; then `run` returns."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """Stop, and let `run` raise `error`."""
        if self._failure is None:
            self._failure = error
        self._stop.set()

    # -- building -----------------------------------------------------------------------------

    async def _run(
        self, instance: Instance, on_ready: Callable[[list[SetOutput]], None] | None
    ) -> None:
        definitions, topics = await asyncio.to_thread(self._read_published)
        book = StreamBook(self._settings, definitions, topics)
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="data")
        registry = Registry.from_settings(self._settings.registry_options())
        snapshots: Snapshots | None = None
        try:
            # Later it is waited for; a wrong address is better told at once.
            await asyncio.to_thread(registry.ping)
            context = self._context(instance, definitions, pool, registry)
            snapshots = context.snapshots
            async with self._control(context, registry, book) as (orders, coordinator):
                ownership = Ownership(context, orders, on_failure=self.fail, crash=self._crash)
                app = self._app(context, ownership)
                if on_ready is not None:
                    on_ready(_outputs(book.streams, orders))
                readers = Readers(app, context, ownership, on_failure=self.fail)
                await readers.add(book.streams)
                orders.connect(
                    lambda: [owner for _, owner in ownership.all()], ownership.failed, readers.add
                )
                await self._serve(app, ownership, readers, coordinator)
        finally:
            if snapshots is not None:
                await snapshots.finish(UPLOADS_S)
            registry.close()
            # Threads end before what they work on does.
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)
        if self._failure is not None:
            raise self._failure

    @asynccontextmanager
    async def _control(
        self, context: Context, registry: Registry, book: StreamBook
    ) -> AsyncIterator[tuple[Orders, CoordinatorService]]:
        """What is decided, followed; and a coordinator that is not started."""
        ids = await asyncio.to_thread(register_schemas, context.names, registry)
        routes = Routes(context, ids, on_failure=self.fail)
        orders = Orders(self._settings, book, routes, ids, on_failure=self.fail)
        parts = Parts(
            context=context,
            registry=registry,
            ids=ids,
            keep=self._settings.versions.keep,
            crash=self._crash,
        )
        try:
            await routes.start()
            await orders.start()
            yield orders, CoordinatorService(parts, on_failure=self.fail)
        finally:
            await orders.stop()
            await routes.stop()

    def _read_published(self) -> tuple[Definitions, dict[str, SourceTopic]]:
        definitions = read_definitions(self._settings)
        if not definitions.sets:
            raise RewindowError(
                f"app {self._settings.app} has published no feature set: "
                "run `rewindow publish FILE…`"
            )
        return definitions, prepare_topics(self._settings, definitions)

    def _context(
        self,
        instance: Instance,
        definitions: Definitions,
        pool: ThreadPoolExecutor,
        registry: Registry,
    ) -> Context:
        settings = self._settings
        return Context(
            settings=settings,
            names=settings.names,
            kafka_config=aiokafka_config(settings),
            offsets=Offsets(settings, self._clock),
            schemas=SchemaBook(registry, self._clock),
            clock=self._clock,
            stats=self.stats,
            pool=pool,
            resources=Resources(),
            state_dir=instance.state_dir,
            instance=instance.name,
            definitions_offset=definitions.next_offset,
            limits=self._limits,
            snapshots=self._snapshots(instance),
        )

    def _snapshots(self, instance: Instance) -> Snapshots | None:
        if self._settings.snapshots is None:
            return None
        self.stats.snapshots.enabled = True
        return Snapshots(
            self._settings,
            instance.state_dir,
            clock=self._clock,
            stats=self.stats.snapshots,
            crash=self._crash,
        )

    def _app(self, context: Context, ownership: Ownership) -> App:
        codecs.register(IDENTITY, _Identity())
        app = App(
            context.names.worker_group,
            broker=f"rewindow://{self._settings.bootstrap_servers.split(',')[0]}",
            broker_client_id=f"rewindow-{context.instance}",
            consumer_group_instance_id=context.instance,
            broker_max_poll_records=self._limits.records_per_fetch,
            consumer_max_fetch_size=FETCH_BYTES,
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=HEARTBEAT_S,
            broker_rebalance_timeout=60.0,
            broker_request_timeout=60.0,
            stream_buffer_maxsize=64,
            topic_disable_leader=True,
            topic_allow_declare=False,
            web_enabled=False,
            store="memory://",
            # Made by Faust whether it is used or not, by default in the current directory.
            datadir=str(context.state_dir / "faust"),
            key_serializer="raw",
            value_serializer=IDENTITY,
            TableManager=_NoTables,
        )
        app.claims = ownership
        app.kafka_config = context.kafka_config
        app.on_partitions_revoked.connect(_on_revoked(ownership), weak=False)
        return app

    # -- running ------------------------------------------------------------------------------

    async def _serve(
        self,
        app: App,
        ownership: Ownership,
        readers: Readers,
        coordinator: CoordinatorService,
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)

        async def reclaim(tps: set[TP]) -> None:
            await cast(Consumer, app.consumer).claim(tps)

        ownership.connect(reclaim)
        app.finalize()
        watch = asyncio.create_task(self._watch(app, ownership, readers, coordinator))
        try:
            await app.maybe_start()
            await readers.start()
            await coordinator.start()
            await self._stop.wait()
        finally:
            watch.cancel()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            try:
                await asyncio.wait_for(
                    self._leave(app, ownership, readers, coordinator), STOP_DEADLINE_S
                )
            except Exception as error:
                self._failure = self._not_stopped(error)

    def _not_stopped(self, error: Exception) -> NotStoppedError:
        """What to say where stopping has failed, after what it was stopped for."""
        before = "" if self._failure is None else f"{self._failure}. "
        why = repr(error)
        if isinstance(error, TimeoutError):
            why = f"it took more than {STOP_DEADLINE_S:.0f} s"
        return NotStoppedError(
            f"{before}The worker did not stop in order ({why}): Kafka at "
            f"{self._settings.bootstrap_servers} may not answer. Nothing is lost: the next start "
            "goes on from what is committed"
        )

    async def _watch(
        self, app: App, ownership: Ownership, readers: Readers, coordinator: CoordinatorService
    ) -> None:
        """Follow the ends of logs, and end a worker that is only half alive."""
        stalled_s: dict[TP, float] = {}
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            for service in (app, *readers.services, coordinator):
                if service.crashed:
                    self.fail(
                        RewindowError(
                            f"{service.label} ended unexpectedly: {service.crash_reason!r}; "
                            "start the worker again"
                        )
                    )
            if app.consumer is None:
                continue
            ownership.remind()
            readers.remind()
            now_s = self._clock.monotonic_s()
            for tp, owner in ownership.all():
                await _see_end(cast(Consumer, app.consumer), tp, owner)
                if not (owner.caught_up and owner.stats.lag):
                    stalled_s.pop(tp, None)
                elif now_s - stalled_s.setdefault(tp, now_s) > STALLED_AFTER_S:
                    self.fail(
                        RewindowError(
                            f"{tp.topic}/{tp.partition}: nothing is fetched though "
                            f"{owner.stats.lag} records wait; start the worker again"
                        )
                    )

    async def _leave(
        self, app: App, ownership: Ownership, readers: Readers, coordinator: CoordinatorService
    ) -> None:
        """Batches first, then the group, then the rest."""
        await readers.stop()
        await coordinator.stop()
        await ownership.release_all()
        if app.consumer is not None:
            await cast(Consumer, app.consumer).leave_group()
        await app.stop()


async def _see_end(consumer: Consumer, tp: TP, owner: PartitionOwner) -> None:
    """Bring the end of a partition's log into its owner's stats.

    Transaction markers at the very end are no records: who has fetched beyond them has all.
    """
    if tp not in consumer.assignment():
        return
    owner.stats.end = consumer.highwater(tp) or 0
    if owner.caught_up and owner.stats.lag:
        fetched = await consumer.fetch_position(tp, owner.position)
        if fetched is not None and fetched >= owner.stats.end:
            owner.stats.end = owner.position


def _outputs(streams: list[Stream], orders: Orders) -> list[SetOutput]:
    """Where the vectors of the serving versions go."""
    found = []
    for stream in streams:
        for name in stream.sets:
            route = orders.route(name)
            serving = stream.first(name) if route is None else route.held.speaker
            found.append(stream.version(name, serving).output)
    return found


def _on_revoked(ownership: Ownership) -> Callable[..., Any]:
    async def revoked(_: App, revoked: set[TP], **__: Any) -> None:
        await ownership.release(set(revoked))

    return revoked
