"""A pool that runs no worker, for the jobs that an API in this process has run directly."""

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from engine.jobs.retry import RetryPolicy
from engine.jobs.signals import JobSignals
from engine.llm import Timeouts
from engine.records.store import Storage
from llm_workers.assembly import build_pool
from llm_workers.catalogue import Catalogue
from llm_workers.completion import CompletionHandler
from llm_workers.direct import PoolRuns
from llm_workers.lanes import Lanes
from llm_workers.pool import WorkerPool
from llm_workers.providers.registry import ProviderSet, Registry
from llm_workers.rooms import ModelRooms
from llm_workers.terms import PoolTerms
from llm_workers.wallets import Wallets
from utilities.clock import Clock
from utilities.ids import ObjectIds
from utilities.secrets import ProviderSecrets

LEASE = timedelta(seconds=30)


async def inline(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """A hop that goes nowhere."""
    return function(*args, **kwargs)


class Runs:
    """`port` is what services ask; `pool` is not started: it has no worker to look for and no time to keep."""

    def __init__(
        self,
        storage: Storage,
        *,
        signals: JobSignals,
        clock: Clock,
        lanes: Lanes,
        environment: Mapping[str, str],
        most: int,
    ) -> None:
        name = f"here-{secrets.token_hex(4)}"
        terms = PoolTerms(
            incarnation=name, most_threads=1, lease=LEASE, worker_lease=LEASE, attempt_limit=LEASE, grace=LEASE
        )
        self.wallets = Wallets(storage, clock=clock, hop=inline, replica=name)

        def make_handler() -> CompletionHandler:
            return CompletionHandler(
                providers=ProviderSet(Registry()),
                catalogue=Catalogue(
                    models=storage.models,
                    prompts=storage.prompts,
                    evaluators=storage.evaluators,
                    hop=inline,
                    clock=clock,
                ),
                secrets=ProviderSecrets(environment),
                prompts=storage.prompts,
                clock=clock,
                ids=ObjectIds(),
                hop=inline,
                lanes=lanes,
                wallets=self.wallets,
                timeouts=Timeouts(connect=1.0, read=20.0, total=20.0),
            )

        self.pool: WorkerPool = build_pool(
            terms,
            storage=storage,
            signals=signals,
            clock=clock,
            hop=inline,
            make_handler=make_handler,
            policy=RetryPolicy(base=timedelta(milliseconds=20)),
            calibrate=lambda: None,
            ended=self.wallets.ended,
        )
        signals.subscribe(lambda _: None, self.pool.fenced)
        self.port = PoolRuns(self.pool, ModelRooms(lanes, self.wallets), most, lanes.levels)

    def close(self) -> None:
        """Gives back what is in flight, after a moment."""
        self.pool.drain(timedelta(seconds=1))
        self.wallets.close()
