"""Replicas in this process that do completion jobs for real: pool, lanes, wallets and handler over one database."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from engine.jobs.job import Job
from engine.jobs.retry import RetryPolicy
from engine.jobs.signals import JobSignals
from engine.pricing import Prices
from engine.records.store import Storage
from engine.records.values import Budget, BudgetPeriod, Client, Money, Worker
from llm_workers.assembly import build_pool
from llm_workers.catalogue import Catalogue
from llm_workers.completion import CompletionHandler
from llm_workers.lanes import Lanes
from llm_workers.pool import PoolTerms, WorkerPool
from llm_workers.providers.registry import ProviderSet, Registry
from llm_workers.rooms import ModelRooms
from llm_workers.wallets import SpendingTerms, Wallets
from tests.support.backends import Database
from tests.support.factories import make_client, make_model, make_prompt
from tests.support.fake_provider import FakeProvider
from tests.support.rig import new_job, new_worker
from utilities.clock import SystemClock
from utilities.hop import ThreadHop
from utilities.ids import ObjectIds
from utilities.secrets import ProviderSecrets

PRICE = Decimal("0.018")
"""What one call at the fake provider costs: 11 tokens in and 7 out."""
CLOCK = SystemClock()


@dataclass
class Branch:
    """One replica. `storage` is its own connection."""

    storage: Storage
    pool: WorkerPool
    wallets: Wallets
    signals: JobSignals


@contextmanager
def branch(database: Database, name: str, terms: SpendingTerms | None = None) -> Iterator[Branch]:
    """A started replica, drained at the end."""
    storage, executor = database.open(), ThreadPoolExecutor(8)
    hop, signals = ThreadHop(executor), JobSignals()
    lanes = Lanes(storage.shared, clock=CLOCK, hop=hop, replica=name)
    wallets = Wallets(storage, clock=CLOCK, hop=hop, replica=name, terms=terms)

    def make_handler() -> CompletionHandler:
        return CompletionHandler(
            providers=ProviderSet(Registry()),
            catalogue=Catalogue(models=storage.models, prompts=storage.prompts, hop=hop, clock=CLOCK),
            secrets=ProviderSecrets({"SOME_KEY": "sk-branch"}),
            prompts=storage.prompts,
            clock=CLOCK,
            ids=ObjectIds(),
            hop=hop,
            lanes=lanes,
            wallets=wallets,
        )

    pool = build_pool(
        PoolTerms(
            incarnation=name,
            most_threads=1,
            lease=timedelta(seconds=60),
            worker_lease=timedelta(seconds=15),
            attempt_limit=timedelta(seconds=60),
            grace=timedelta(seconds=5),
        ),
        storage=storage,
        signals=signals,
        clock=CLOCK,
        hop=hop,
        make_handler=make_handler,
        policy=RetryPolicy(base=timedelta(milliseconds=10)),
        calibrate=lambda: None,
        rooms=ModelRooms(lanes, wallets),
        tick=lambda: min(lanes.tick(), wallets.tick()),
        ended=wallets.ended,
        seed=1,
    )
    lanes.on_room = wallets.on_room = pool.wake
    pool.start()
    try:
        yield Branch(storage, pool, wallets, signals)
    finally:
        pool.drain(timedelta(seconds=5))
        executor.shutdown(wait=True)
        wallets.close()


def budget(calls: int, period: BudgetPeriod = BudgetPeriod.MONTH, currency: str = "USD") -> Budget:
    """Money for so many calls."""
    return Budget(Money(PRICE * calls, currency), period)


@dataclass
class Town:
    """Clients, models and jobs over one database, and the replicas that work on it."""

    storage: Storage
    fake: FakeProvider
    branches: list[Branch]
    prompt_id: str

    def client(self, limit: Budget | None) -> Client:
        made = make_client(budget=limit, key_lookup=f"{random.getrandbits(256):064x}")
        self.storage.clients.add(made)
        return made

    def worker(self, place: int = 0, **fields: object) -> Worker:
        """One that the replica at `place` runs, for all clients."""
        wanted = new_worker(CLOCK, **fields)  # type: ignore[arg-type]
        placed = self.branches[place].pool.placed(wanted, CLOCK.now())
        self.storage.workers.add(placed)
        self.branches[place].pool.nudge()
        return placed

    def post(self, client: Client, count: int, **fields: object) -> list[str]:
        jobs = [new_job(CLOCK, client.id, working_prompts=(self.prompt_id,), **fields) for _ in range(count)]
        self.storage.jobs.insert(jobs)
        for each in self.branches:
            each.signals.ready(jobs)
        return [job.id for job in jobs]

    def jobs(self, ids: list[str]) -> list[Job]:
        found = self.storage.jobs.get_many(ids)
        return [found[each] for each in ids]


@contextmanager
def town(database: Database, replicas: int = 2, terms: SpendingTerms | None = None) -> Iterator[Town]:
    """Model `m`, a call of which costs PRICE."""
    with ExitStack() as stack:
        fake = stack.enter_context(FakeProvider())
        storage = database.open()
        prices = Prices(tokens=1000, currency="USD", input=Decimal(1), output=Decimal(1))
        storage.models.add(
            make_model(name="m", sdk="OpenAI", endpoint=fake.openai_url, key="SOME_KEY", deployment="m", prices=prices)
        )
        prompt = make_prompt(client_id=None, text="Answer as JSON.")
        storage.prompts.add(prompt)
        branches = [stack.enter_context(branch(database, f"replica-{place}", terms)) for place in range(replicas)]
        yield Town(storage, fake, branches, prompt.id)
