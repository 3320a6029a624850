"""Puts a pool together from its parts."""

import math
import random
from collections.abc import Callable

from engine.jobs.consumer import Tools
from engine.jobs.held import Heartbeat, LeaseTerms
from engine.jobs.queue import Hold
from engine.jobs.retry import RetryPolicy
from engine.jobs.rooms import Rooms, Unrestricted
from engine.jobs.settler import Settler
from engine.jobs.signals import JobSignals
from engine.records.store import Storage
from llm_workers.loops import LoopHandler, LoopThread
from llm_workers.pool import WorkerPool
from llm_workers.terms import PoolTerms
from utilities.clock import Clock
from utilities.hop import Hop


def build_pool(
    terms: PoolTerms,
    *,
    storage: Storage,
    signals: JobSignals,
    clock: Clock,
    hop: Hop,
    make_handler: Callable[[], LoopHandler],
    policy: RetryPolicy,
    calibrate: Callable[[], object],
    rooms: Rooms | None = None,
    tick: Callable[[], float] | None = None,
    ended: Callable[[Hold], None] | None = None,
    seed: int | None = None,
) -> WorkerPool:
    """A pool, not yet started. `make_handler` is called once on each event loop; `hop` reaches the storage.

    `tick` is called by the pool's ticker, and answers after how many seconds to call it again; `ended` is as in Tools.
    """

    def make_tools() -> tuple[Tools, LoopHandler, Heartbeat]:
        rng = random.Random(seed)
        handler = make_handler()
        heartbeat = Heartbeat(storage.jobs, hop, clock, LeaseTerms.of(terms.lease))
        tools = Tools(
            queue=storage.jobs,
            hop=hop,
            clock=clock,
            handler=handler,
            settler=Settler(storage.jobs, hop, clock, rng),
            heartbeat=heartbeat,
            policy=policy,
            rng=rng,
            later=pool.later,
            rooms=rooms or Unrestricted(),
            ended=_told(signals, ended),
        )
        return tools, handler, heartbeat

    pool = WorkerPool(
        terms,
        storage=storage,
        signals=signals,
        clock=clock,
        policy=policy,
        calibrate=calibrate,
        tick=tick or _never,
        make_thread=lambda name: LoopThread(name, make_tools),
    )
    return pool


def _never() -> float:
    return math.inf


def _told(signals: JobSignals, ended: Callable[[Hold], None] | None) -> Callable[[Hold], None]:
    def tell(hold: Hold) -> None:
        if ended is not None:
            ended(hold)
        signals.settled(hold.job_id)

    return tell
