"""Composition root and command line: builds everything, runs it, and ends it in order.

`python main_app.py` runs the service in production mode, `python main_app.py --dev` without any settings.
"""

import asyncio
import errno
import math
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import build_api
from api.server import ENDING, Server
from api.services.wiring import Services, build_services
from api.settings import ApiSettings
from config import SECRET_NAMES, Settings, SettingsError, dev_banner, load_settings
from engine.batches.assembly import Batches, build_batches
from engine.errors import MetasyncError, StorageError, StorageUnavailable
from engine.jobs.retry import RetryPolicy
from engine.jobs.signals import JobSignals
from engine.llm import Timeouts
from engine.records.store import Storage
from engine.storage.factory import open_storage
from llm_optimizer.assembly import Optimizer, build_optimizer
from llm_optimizer.dataset_sweep import DatasetSweeper
from llm_workers.assembly import build_pool
from llm_workers.catalogue import FRESH_SECONDS, Catalogue
from llm_workers.completion import CompletionHandler
from llm_workers.direct import PoolRuns
from llm_workers.lanes import Lanes
from llm_workers.loops import new_event_loop
from llm_workers.model_states import LaneStates
from llm_workers.pool import WorkerPool
from llm_workers.providers.registry import ProviderSet, Registry
from llm_workers.rooms import ModelRooms
from llm_workers.streaming import Streaming, StreamTerms
from llm_workers.terms import PoolTerms
from llm_workers.trials import Trials
from llm_workers.wallets import Wallets
from utilities.clock import SharedClock
from utilities.hop import ThreadHop
from utilities.ids import ObjectIds
from utilities.interpreter import settle_interpreter
from utilities.logging import configure_logging
from utilities.open_files import allow_most
from utilities.secrets import ProviderSecrets

VERSION = "0.1.0"
_STORAGE_THREADS = 8
_READING_THREADS = 2
_OPENING_ATTEMPTS = 6
_OPENING_PAUSE_SECONDS = 2.0
_HTTP_GRACE_SECONDS = 5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Installation:
    """Everything a running service is made of."""

    settings: Settings
    storage: Storage
    pool: WorkerPool
    services: Services
    trials: Trials
    streaming: Streaming
    wallets: Wallets
    optimizer: Optimizer
    batches: Batches
    threads: ThreadPoolExecutor

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Starts the workers with the API; ends them, and then the storage, after it."""
        self.pool.start()
        self.optimizer.start()
        self.batches.start()
        try:
            yield
        finally:
            async with AsyncExitStack() as ending:
                ending.push_async_callback(asyncio.to_thread, self._close)
                ending.push_async_callback(self.trials.aclose)
                ending.push_async_callback(self.streaming.aclose)
                await asyncio.to_thread(self.pool.drain, timedelta(seconds=self.settings.drain_seconds))

    def _close(self) -> None:
        self.optimizer.close()
        self.batches.close()
        self.services.close()
        self.threads.shutdown(wait=True)
        with suppress(StorageError):  # what is held lapses by itself
            self.wallets.close()
        self.storage.close()
        log.info("service_ended")


def create_app(settings: Settings) -> FastAPI:
    """The service as an ASGI application. Opens the database; raises StorageUnavailable when that is away."""
    installation = install(settings)
    return api_of(installation)


def api_of(installation: Installation) -> FastAPI:
    settings = installation.settings
    api_settings = ApiSettings(
        docs_user=settings.docs_user,
        docs_secret=settings.docs_secret.get_secret_value(),
        admin_key=settings.admin_api_key.get_secret_value(),
        pepper=settings.api_key_pepper.get_secret_value(),
        max_body_bytes=settings.max_body_bytes,
        version=VERSION,
        database=settings.db_name,
    )
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] = installation.lifespan
    return build_api(installation.services, api_settings, lifespan)


@dataclass(frozen=True, slots=True)
class _Base:
    """What pool, trials and services are built on."""

    storage: Storage
    clock: SharedClock
    ids: ObjectIds
    signals: JobSignals
    registry: Registry
    secrets: ProviderSecrets
    hop: ThreadHop

    def catalogue(self, seconds: float = FRESH_SECONDS) -> Catalogue:
        return Catalogue(
            models=self.storage.models,
            prompts=self.storage.prompts,
            evaluators=self.storage.evaluators,
            hop=self.hop,
            clock=self.clock,
            seconds=seconds,
        )


def install(settings: Settings) -> Installation:
    """Opens the storage and builds services and pool around it; starts nothing."""
    storage = _storage(settings)
    clock = SharedClock(storage.server_time)
    clock.calibrate()
    threads = ThreadPoolExecutor(_STORAGE_THREADS, thread_name_prefix="storage")
    base = _Base(
        storage=storage,
        clock=clock,
        ids=ObjectIds(),
        signals=JobSignals(),
        registry=Registry(),
        secrets=ProviderSecrets(reserved=SECRET_NAMES),
        hop=ThreadHop(threads),
    )
    terms = pool_terms(settings)
    lanes = Lanes(storage, clock=clock, hop=base.hop, replica=terms.incarnation)
    wallets = Wallets(storage, clock=clock, hop=base.hop, replica=terms.incarnation)
    streaming = _streaming(settings, base, terms, lanes, wallets)
    batches = _batches(settings, base, terms)
    ticks = (lanes.tick, wallets.tick, streaming.tick, batches.tick, DatasetSweeper(storage, clock).tick)
    pool = _pool(settings, base, terms, lanes=lanes, wallets=wallets, ticks=ticks)
    trials = _trials(base)
    optimizer = build_optimizer(
        storage, signals=base.signals, clock=clock, ids=base.ids, replica=terms.incarnation, lease=terms.lease
    )
    services = build_services(
        storage=storage,
        registry=base.registry,
        control=pool,
        trials=trials,
        live=streaming,
        states=LaneStates(lanes, storage, clock=clock, replica=terms.incarnation),
        runs=PoolRuns(pool, ModelRooms(lanes, wallets), settings.max_direct_calls, lanes.levels),
        optimizer=optimizer,
        wake_batches=batches.wake,
        signals=base.signals,
        clock=clock,
        ids=base.ids,
        admin_key=settings.admin_api_key.get_secret_value(),
        pepper=settings.api_key_pepper.get_secret_value(),
    )
    return Installation(settings, storage, pool, services, trials, streaming, wallets, optimizer, batches, threads)


def _trials(base: _Base) -> Trials:
    return Trials(
        providers=ProviderSet(base.registry),
        models=base.catalogue(seconds=0.0).models,
        secrets=base.secrets,
        clock=base.clock,
        ids=base.ids,
        hop=base.hop,
    )


def _batches(settings: Settings, base: _Base, terms: PoolTerms) -> Batches:
    return build_batches(
        base.storage,
        signals=base.signals,
        clock=base.clock,
        ids=base.ids,
        replica=terms.incarnation,
        lease=terms.lease,
        worker_capacity=settings.batch_worker_capacity,
    )


def _streaming(settings: Settings, base: _Base, terms: PoolTerms, lanes: Lanes, wallets: Wallets) -> Streaming:
    return Streaming(
        StreamTerms(replica=terms.incarnation, lease=terms.lease),
        store=base.storage.streams,
        providers=ProviderSet(base.registry),
        catalogue=base.catalogue(),
        secrets=base.secrets,
        clock=base.clock,
        hop=base.hop,
        lanes=lanes,
        wallets=wallets,
        timeouts=_timeouts(settings),
    )


def _timeouts(settings: Settings) -> Timeouts:
    return Timeouts(read=settings.attempt_timeout_seconds, total=settings.attempt_timeout_seconds)


def _pool(
    settings: Settings,
    base: _Base,
    terms: PoolTerms,
    *,
    lanes: Lanes,
    wallets: Wallets,
    ticks: Sequence[Callable[[], float]],
) -> WorkerPool:
    reading = ThreadHop(ThreadPoolExecutor(_READING_THREADS, thread_name_prefix="reading"))

    def make_handler() -> CompletionHandler:
        return CompletionHandler(
            providers=ProviderSet(base.registry),
            catalogue=base.catalogue(),
            secrets=base.secrets,
            prompts=base.storage.prompts,
            clock=base.clock,
            ids=base.ids,
            hop=base.hop,
            lanes=lanes,
            wallets=wallets,
            reading=reading,
            timeouts=_timeouts(settings),
            reasks=settings.schema_reasks,
        )

    pool = build_pool(
        terms,
        storage=base.storage,
        signals=base.signals,
        clock=base.clock,
        hop=base.hop,
        make_handler=make_handler,
        policy=RetryPolicy(),
        calibrate=base.clock.calibrate,
        rooms=ModelRooms(lanes, wallets),
        tick=lambda: min(tick() for tick in ticks),
        ended=wallets.ended,
    )
    lanes.on_room = wallets.on_room = pool.wake
    return pool


def _storage(settings: Settings) -> Storage:
    return open_storage(
        settings.db_connection_string.get_secret_value(),
        database=settings.db_name,
        synchronous=settings.sqlite_synchronous,
    )


def pool_terms(settings: Settings) -> PoolTerms:
    """Every process is an incarnation of its own, also under the same host name and process id."""
    return PoolTerms(
        incarnation=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        most_threads=settings.num_llm_workers,
        lease=timedelta(seconds=settings.lease_seconds),
        worker_lease=timedelta(seconds=settings.worker_lease_seconds),
        attempt_limit=timedelta(seconds=settings.attempt_timeout_seconds),
        grace=timedelta(seconds=settings.drain_seconds),
    )


def _serving(config: uvicorn.Config, installation: Installation) -> Server:
    """Streams have the grace that jobs have; without any, requests under way get a few seconds."""
    pool, streaming, settings = installation.pool, installation.streaming, installation.settings

    def drain() -> None:
        log.info("drain_begins", in_flight=pool.in_flight, streams=streaming.open_streams)
        pool.begin_drain()
        if streaming.open_streams:
            config.timeout_graceful_shutdown = math.ceil(settings.drain_seconds) + _HTTP_GRACE_SECONDS
            streaming.drain(settings.drain_seconds)

    def abort() -> None:
        pool.abort()
        streaming.interrupt()

    def announce() -> None:
        settle_interpreter()
        log.info("service_up", host=settings.host, port=settings.port, version=VERSION)
        if settings.dev:
            sys.stdout.write(dev_banner(settings) + "\n")
            sys.stdout.flush()

    return Server(config, drain=drain, abort=abort, announce=announce)


def main(argv: Sequence[str]) -> int:
    """Runs the service until a signal ends it; answers the exit code."""
    for number in ENDING:
        signal.signal(number, _leave)
    allow_most()
    try:
        settings = load_settings(argv)
        configure_logging(settings.log_level, settings.log_format, secrets=settings.secret_values())
        listener = _listen(settings)
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        installation = _installed(settings)
    except MetasyncError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    config = uvicorn.Config(
        api_of(installation),
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_HTTP_GRACE_SECONDS,
    )
    server = _serving(config, installation)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(server.serve(sockets=[listener]))
    return 0 if server.started else 1


def _leave(*_: object) -> NoReturn:
    """What a signal does before the server takes signals over: nothing runs yet that would have to be drained."""
    raise SystemExit(0)


def _listen(settings: Settings) -> socket.socket:
    """A bound socket; raises SettingsError that says what to do about a port or an address that cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = "the port is taken. Stop the program that uses it, or choose another one with PORT or --port."
        else:
            why = f"{error.strerror or error}. Choose another address with HOST or --host, or port with PORT or --port."
        raise SettingsError(f"Metasync cannot listen on {settings.host} port {settings.port}: {why}") from error


def _installed(settings: Settings) -> Installation:
    """Waits a little for a database that starts at the same time; raises SettingsError when it stays away."""
    for attempt in range(1, _OPENING_ATTEMPTS):
        try:
            return install(settings)
        except StorageUnavailable as error:
            log.warning("database_away", attempt=attempt, of=_OPENING_ATTEMPTS, reason=str(error))
        time.sleep(_OPENING_PAUSE_SECONDS)
    try:
        return install(settings)
    except StorageUnavailable as error:
        hosts = settings.database_hosts
        named = f", which names {hosts}" if hosts else ""
        raise SettingsError(f"Metasync cannot start: {error}. Check DB_CONNECTION_STRING{named}.") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
