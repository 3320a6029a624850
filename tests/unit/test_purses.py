"""What replicas may spend of a common limit: the policy alone, and wallets that follow it."""

import asyncio
import random
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.errors import BudgetExhausted
from engine.jobs.job import Lease
from engine.jobs.queue import Hold
from engine.jobs.retry import RetryPolicy
from engine.pricing import Prices
from engine.purses import (
    Ask,
    Days,
    Grant,
    News,
    Purse,
    Seen,
    abandoned,
    days_of,
    granted,
    moved_of,
    purse_of_client,
    purse_of_worker,
)
from engine.records.store import Storage
from engine.records.values import Budget, BudgetPeriod, Client, Money, WorkerConfig, WorkerStatus
from engine.storage.sqlite import open_sqlite
from llm_workers.wallet import Shut, Wallet
from llm_workers.wallets import SpendingTerms, Wallets
from tests.support.factories import CLIENT, IDS, NOW, make_call, make_client, make_job, make_model, make_running_worker
from tests.support.faulty import Faulty, Plan
from utilities.clock import SystemClock

LIMIT = 100
UNIT = Decimal("1E-12")
MONTHLY = Budget(Money(LIMIT * UNIT, "USD"), BudgetPeriod.MONTH)
FREE = Prices(tokens=1, currency="USD", input=Decimal(1), output=Decimal(1))


def purse(limit: int = LIMIT, **fields: Any) -> Purse:
    """A client's of so many units."""
    made = purse_of_client(make_client(id=CLIENT, budget=replace(MONTHLY, limit=Money(limit * UNIT, "USD"))), NOW)
    assert made is not None
    return replace(made, **fields)


@pytest.mark.parametrize(
    ("period", "now", "expected"),
    [
        (BudgetPeriod.DAY, "2026-02-28T23:59", (date(2026, 2, 28), date(2026, 2, 28), "2026-03-01")),
        (BudgetPeriod.MONTH, "2026-02-01T00:00", (date(2026, 2, 1), date(2026, 2, 28), "2026-03-01")),
        (BudgetPeriod.MONTH, "2026-12-31T12:00", (date(2026, 12, 1), date(2026, 12, 31), "2027-01-01")),
        (BudgetPeriod.TOTAL, "2026-02-01T00:00", (date.min, date.max, None)),
    ],
)
def test_periods(period: BudgetPeriod, now: str, expected: tuple[date, date, str | None]) -> None:
    """A day and a month of UTC, to their last instant; `total` has no end."""
    first, last, ends = expected
    ends_at = None if ends is None else datetime.fromisoformat(f"{ends}T00:00:00+00:00")
    assert days_of(period, datetime.fromisoformat(f"{now}+00:00")) == Days(first, last, ends_at)


def test_a_purse_is_of_its_period_and_start() -> None:
    """A new day, period or currency of a client is another purse, another amount is not; a worker's begins with its
    start and goes along when another replica takes it over."""
    client = make_client(budget=MONTHLY)
    more = replace(client, budget=replace(MONTHLY, limit=Money(5 * UNIT, "USD")))
    daily = replace(client, budget=replace(MONTHLY, period=BudgetPeriod.DAY))
    keys = [made.key for made in (purse_of_client(each, NOW) for each in (client, more, daily)) if made]
    assert keys[0] == keys[1] != keys[2]
    next_day = purse_of_client(daily, NOW + timedelta(days=1))
    assert next_day is not None
    assert next_day.key != keys[2]
    config = WorkerConfig(poll_interval=1, max_items_per_batch=1, max_cost=MONTHLY.limit)
    worker = make_running_worker("replica", config=config)
    taken = replace(worker, started_at=NOW + timedelta(days=1), lease=None)
    anew = replace(worker, metadata=worker.metadata.touched(NOW + timedelta(days=1), "admin"))
    first, second, third = (made.key for made in map(purse_of_worker, (worker, taken, anew)) if made)
    assert first == second != third
    assert purse_of_worker(replace(worker, status=WorkerStatus.STOPPED)) is None


def ask(replica: str = "a", **fields: int) -> Ask:
    return Ask(replica=replica, until=100.0, **fields)


def test_what_is_granted() -> None:
    """What nobody holds is divided fairly, the last of it goes to who comes first, and who is silent has nothing."""
    document, first = granted({}, ask("a", wanted=30, least=5), purse(), Seen(40), 0.0)
    assert (first.held, first.left) == (30, 30)
    document, second = granted(document, ask("b", wanted=30, least=5), purse(), Seen(40), 0.0)
    assert (second.held, second.left) == (10, 20)
    document, third = granted(document, ask("c", wanted=30, least=14), purse(), Seen(40), 0.0)
    assert (third.held, third.left) == (14, 6)
    _, later = granted(document, ask("c", keep=14, wanted=90, least=1), purse(), Seen(40), 101.0)
    assert (later.held, later.left) == (14 + 23, 23)


def test_what_moves_while_the_usage_is_read_counts() -> None:
    """An amount that another replica reports as settled after the usage was read is not forgotten."""
    document, _ = granted({}, ask("a", wanted=60, least=1), purse(), Seen(), 0.0)
    seen = Seen(0, moved_of(document))
    document, _ = granted(document, ask("a", settled=60), purse(), Seen(60, 60), 0.0)
    _, late = granted(document, ask("b", wanted=99, least=1), purse(), seen, 0.0)
    assert (late.held, late.left) == (20, 20)


def test_a_limit_is_told_once() -> None:
    """Reaching it is news for the one change that finds it, and so is having more again; a replica that has read the
    usage before is none."""
    document, first = granted({}, ask(), purse(), Seen(LIMIT), 0.0)
    document, again = granted(document, ask("b"), purse(), Seen(LIMIT), 0.0)
    document, late = granted(document, ask("b"), purse(), Seen(LIMIT - 1), 0.0)
    document, more = granted(document, ask("b"), purse(LIMIT + 1, version=1), Seen(LIMIT), 0.0)
    assert [(each.reached, each.news) for each in (first, again, late, more)] == [
        (True, News.REACHED),
        (True, None),
        (False, None),
        (False, News.RESUMED),
    ]


def test_a_replica_that_is_late_tells_nothing() -> None:
    """One that still goes by the limit of before, asking or giving it up, neither tells the log nor takes back what
    stands about the new one."""
    old, new = purse(), replace(purse(LIMIT * 2), version=1)
    document, first = granted({}, ask(), old, Seen(LIMIT), 0.0)
    document, given_up = abandoned(document, ask(), old.version)
    document, late = granted(document, ask("b"), old, Seen(LIMIT), 0.0)
    document, _ = granted(document, ask(), new, Seen(LIMIT), 0.0)
    document, again = granted(document, ask(), new, Seen(LIMIT * 2), 0.0)
    document, later = abandoned(document, ask("b"), old.version)

    assert [first.news, given_up, late.news, again.news, later] == [
        News.REACHED,
        News.RESUMED,
        None,
        News.REACHED,
        None,
    ]
    assert document["reached"]


def test_a_lapsed_part_of_a_worker_is_spent() -> None:
    """A worker has no usage to tell what a dead replica spent of its part: all of it, to be on the safe side."""
    worker = make_running_worker(config=WorkerConfig(poll_interval=1, max_items_per_batch=1, max_cost=MONTHLY.limit))
    cap = purse_of_worker(worker)
    assert cap is not None
    document, first = granted({}, ask("a", wanted=60, least=1), cap, Seen(), 0.0)
    _, late = granted(document, ask("b", wanted=99, least=1), cap, Seen(), 101.0)
    assert late.held + late.left == LIMIT - first.held


@dataclass
class Replica:
    """A wallet that asks in two steps, so that others may come in between."""

    name: str
    wallet: Wallet
    running: list[tuple[Hold, int]] = field(default_factory=list)
    ended: list[tuple[Hold, int]] = field(default_factory=list)
    reading: tuple[Ask, Seen] | None = None


@dataclass
class World:
    """What is shared, and the calls that are paid from it."""

    replicas: list[Replica]
    document: dict[str, Any] = field(default_factory=dict)
    usage: int = 0

    def step(self, rng: random.Random, largest: int) -> None:
        mine = rng.choice(self.replicas)
        rng.choice((self.begin, self.begin, self.end, self.settle, self.read, self.write))(mine, rng, largest)

    def begin(self, mine: Replica, rng: random.Random, largest: int) -> None:
        hold, units = Hold(IDS.new(), 1), rng.randint(1, largest)
        if mine.wallet.take(units, 0.0):
            mine.running.append((hold, units))

    def end(self, mine: Replica, rng: random.Random, _: int) -> None:
        if mine.running:
            hold, units = mine.running.pop(rng.randrange(len(mine.running)))
            cost = rng.randint(0, units)
            mine.wallet.cost(hold, units, cost)
            mine.ended.append((hold, cost))

    def settle(self, mine: Replica, rng: random.Random, _: int) -> None:
        if mine.ended:
            hold, cost = mine.ended.pop(rng.randrange(len(mine.ended)))
            self.usage += cost
            mine.wallet.settle(hold)

    def read(self, mine: Replica, rng: random.Random, _: int) -> None:
        if mine.reading is None:
            wanted = mine.wallet.ask(mine.name, 100.0, 0.0, give_back=rng.random() < 0.2)
            mine.reading = wanted, Seen(self.usage, moved_of(self.document) + wanted.settled)

    def write(self, mine: Replica, *_: object) -> None:
        if mine.reading is not None:
            wanted, seen = mine.reading
            self.document, grant = granted(self.document, wanted, mine.wallet.purse, seen, 0.0)
            mine.wallet.learn(wanted, grant, valid_until=1.0)
            mine.reading = None

    @property
    def committed(self) -> int:
        """What has been spent, and what calls in flight are about to spend at most."""
        flying = sum(units for each in self.replicas for _, units in each.running)
        return self.usage + flying + sum(cost for each in self.replicas for _, cost in each.ended)


@pytest.mark.parametrize("seed", range(20))
def test_replicas_together_keep_to_the_limit(seed: int) -> None:
    """Whatever is interleaved with whatever, three replicas commit no more than the limit and one last call each, and
    all of the limit is spent in the end."""
    rng, largest = random.Random(seed), 9
    limit = purse(rng.randint(1, 200))
    world = World([Replica(name, Wallet(limit)) for name in "abc"])
    for _ in range(600):
        world.step(rng, largest)
        assert world.committed < limit.units + 3 * largest
    most = 0
    for _ in range(3000):
        world.step(rng, 1)
        most = max(most, world.committed)
    assert most >= limit.units


class Inline:
    """A hop that goes nowhere."""

    async def __call__(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


@pytest.fixture
def storage(tmp_path: Path) -> Any:
    opened = open_sqlite(tmp_path / "wallets.db", "NORMAL")
    yield opened
    opened.close()


def wallets_of(storage: Storage, clock: Any = None) -> Wallets:
    return Wallets(storage, clock=clock or SystemClock(), hop=Inline(), replica="a", terms=SpendingTerms(patience=0.0))


def owned(client: Client, **fields: Any) -> Any:
    return make_job(client_id=client.id, lease=Lease("0" * 24 + "@a", NOW), token=1, **fields)


def test_a_large_budget_costs_few_looks_at_the_storage(storage: Storage) -> None:
    """A thousand jobs one after the other cost less than one call of the storage for every ten."""
    client = make_client(budget=replace(MONTHLY, limit=Money(Decimal(1), "USD")))
    storage.clients.add(client)
    watched = Faulty(storage, Plan())
    wallets = wallets_of(watched)

    async def spend() -> None:
        for _ in range(1000):
            job = owned(client)
            async with wallets.call(job, make_model(prices=FREE), lambda: 1000) as spending:
                spending.made = make_call(input_cost=900 * UNIT, output_cost=None)
            wallets.ended(Hold(job.id, 1))
            wallets.tick()

    asyncio.run(spend())
    assert 10 < watched.count < 100


def test_an_attempt_that_has_begun_goes_on(storage: Storage) -> None:
    """Its further calls are made although its first has used up the budget; another job's are not, and that job waits
    uncharged however often it has."""
    client = make_client(budget=MONTHLY)
    storage.clients.add(client)
    wallets = wallets_of(storage)
    first, second = owned(client), owned(client, waits=10_000)

    async def call(job: Any) -> None:
        async with wallets.call(job, make_model(prices=FREE), lambda: LIMIT) as spending:
            spending.made = make_call(input_cost=LIMIT * UNIT, output_cost=None)

    async def spend() -> None:
        await call(first)
        await call(first)
        with pytest.raises(BudgetExhausted, match="is used up or held for calls in flight: its period ends at") as met:
            await call(second)
        outcome = RetryPolicy().decide(second, met.value, NOW, random.Random())
        assert (outcome.due_at, outcome.charged) == (NOW, False)

    asyncio.run(spend())
    assert wallets.shut_clients() == {client.id}


class Interrupted(Faulty):
    """After a read of clients `then` happens."""

    def then(self) -> object:
        """Nothing."""

    def run(self, name: str, operation: Any) -> Any:
        answer = super().run(name, operation)
        if name == "clients.get_many":
            self.then()
        return answer


def test_a_client_that_comes_while_budgets_are_read(storage: Storage) -> None:
    """Its first job's budget holds from the start, although the read that is under way does not have it."""
    early, late = make_client(budget=MONTHLY), make_client(budget=MONTHLY)
    for client in (early, late):
        storage.clients.add(client)
    slow = Interrupted(storage, Plan())
    wallets = wallets_of(slow)

    def limited(client: Client) -> bool:
        return bool(asyncio.run(wallets.payers(owned(client), MONTHLY.limit.currency)))

    assert limited(early)
    slow.then = lambda: limited(late)  # type: ignore[method-assign]
    wallets.tick()
    assert limited(late)


def test_a_new_period_opens_again(storage: Storage) -> None:
    """When the day is over, claims go on with the next look, and the next call is paid from the new day's budget."""
    client = make_client(budget=replace(MONTHLY, period=BudgetPeriod.DAY))
    storage.clients.add(client)
    clock, woken = Ticking(), []
    wallets = wallets_of(storage, clock)
    wallets.on_room = lambda: woken.append(1)

    async def call() -> None:
        job = owned(client)
        async with wallets.call(job, make_model(prices=FREE), lambda: LIMIT) as spending:
            spending.made = make_call(input_cost=LIMIT * UNIT, output_cost=None, started_at=clock.now())
        wallets.ended(Hold(job.id, 1))

    asyncio.run(call())
    with pytest.raises(BudgetExhausted):
        asyncio.run(call())
    assert wallets.shut_clients() == {client.id}
    clock.ahead = timedelta(days=1)
    wallets.tick()
    assert (wallets.shut_clients(), woken) == (frozenset(), [1])
    asyncio.run(call())


class Ticking(SystemClock):
    """The system's clock, or so much later."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead.total_seconds()


def test_shut_says_why() -> None:
    """What has durably been spent is reached; what others hold may come back."""
    wallet = Wallet(purse())
    wallet.learn(wallet.ask("a", 9.0, 0.0), Grant(held=0, left=0, reached=True), valid_until=9.0)
    assert (wallet.shut, wallet.may_ask(5.0, 1.0)) == (Shut.REACHED, False)
    wallet.learn(wallet.ask("a", 9.0, 0.0), Grant(held=0, left=0, reached=False), valid_until=9.0)
    assert (wallet.shut, wallet.may_ask(5.0, 1.0)) == (None, True)
