"""Clients with budgets, and replicas that work for them."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal

from engine.jobs.job import Job
from engine.pricing import Prices
from engine.records.store import Storage
from engine.records.values import Budget, BudgetPeriod, Client, Money, Worker
from llm_workers.wallets import SpendingTerms
from tests.support.backends import Database
from tests.support.factories import make_client, make_model, make_prompt
from tests.support.fake_provider import FakeProvider
from tests.support.plant import Replica, replica
from tests.support.rig import new_job, new_worker
from utilities.clock import SystemClock

PRICE = Decimal("0.018")
"""What one call at the fake provider costs: 11 tokens in and 7 out."""
CLOCK = SystemClock()


def budget(calls: int, period: BudgetPeriod = BudgetPeriod.MONTH, currency: str = "USD") -> Budget:
    """Money for so many calls."""
    return Budget(Money(PRICE * calls, currency), period)


@dataclass
class Town:
    """Clients, models and jobs over one database, and the replicas that work on it."""

    storage: Storage
    fake: FakeProvider
    branches: list[Replica]
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
        named = [replica(database.open(), f"replica-{place}", spending=terms) for place in range(replicas)]
        branches = [stack.enter_context(each) for each in named]
        yield Town(storage, fake, branches, prompt.id)
