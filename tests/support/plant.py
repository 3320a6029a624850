"""Replicas in one process, each with its own pool, lanes and connection, that call a fake provider over HTTP."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from engine.jobs.job import Job
from engine.jobs.retry import RetryPolicy
from engine.jobs.signals import JobSignals
from engine.llm import Timeouts
from engine.records.store import Storage
from engine.records.values import Model, Worker, WorkerConfig
from llm_workers.assembly import build_pool
from llm_workers.catalogue import Catalogue
from llm_workers.completion import CompletionHandler
from llm_workers.lane_terms import LaneTerms
from llm_workers.lanes import Lanes
from llm_workers.pool import WorkerPool
from llm_workers.providers.registry import ProviderSet, Registry
from llm_workers.rooms import ModelRooms
from llm_workers.terms import PoolTerms
from llm_workers.wallets import SpendingTerms, Wallets
from tests.support.backends import Database
from tests.support.factories import CLIENT, make_model, make_prompt
from tests.support.fake_provider import FakeProvider
from tests.support.faulty import Faulty, Plan
from tests.support.rig import ENDED, new_job, new_worker
from tests.support.waiting import eventually
from utilities.clock import SystemClock
from utilities.hop import ThreadHop
from utilities.ids import ObjectIds
from utilities.secrets import ProviderSecrets

KEY = "sk-plant-0123456789"
LEASE = timedelta(seconds=30)


@dataclass
class Replica:
    """`storage` counts its operations."""

    storage: Faulty
    lanes: Lanes
    wallets: Wallets
    pool: WorkerPool
    signals: JobSignals


@dataclass
class Plant:
    """`fake`, `client_id`, `storage` and `jobs` are what tests.support.invariants asks for."""

    fake: FakeProvider
    storage: Storage
    replicas: list[Replica]
    clock: SystemClock
    client_id: str = CLIENT
    accepted: list[str] = field(default_factory=list)

    def model(self, name: str = "m", **fields: Any) -> Model:
        """Stores a model at the fake provider; its deployment is its name."""
        values = {"deployment": name, "sdk": "OpenAI", "endpoint": self.fake.openai_url, "key": "SOME_KEY", **fields}
        model = make_model(name=name, **values)
        self.storage.models.add(model)
        return model

    def change(self, model: Model, **fields: Any) -> Model:
        """Changes a stored model."""
        stored = self.storage.models.get(model.id)
        assert stored is not None
        assert self.storage.models.compare_and_set(replace(stored, **fields))
        changed = self.storage.models.get(model.id)
        assert changed is not None
        return changed

    def employ(self, capacity: int = 50, **config: Any) -> list[Worker]:
        """A worker at each replica."""
        made = []
        for replica in self.replicas:
            worker = new_worker(
                self.clock, config=WorkerConfig(poll_interval=1, max_items_per_batch=capacity, **config)
            )
            made.append(replica.pool.placed(worker, self.clock.now()))
            self.storage.workers.add(made[-1])
            replica.pool.nudge()
        return made

    def post(self, count: int, **fields: Any) -> list[Job]:
        """Jobs with a prompt of their own, as the API posts them at the first replica."""
        prompt = make_prompt(text="Answer as JSON.", name=f"p-{ObjectIds().new()}")
        self.storage.prompts.add(prompt)
        values = {"client_id": CLIENT, "working_prompts": (prompt.id,), **fields}
        jobs = [
            new_job(self.clock, values["client_id"], **{k: v for k, v in values.items() if k != "client_id"})
            for _ in range(count)
        ]
        self.storage.jobs.insert(jobs)
        self.accepted += [job.id for job in jobs]
        self.replicas[0].signals.ready(jobs)
        return jobs

    def jobs(self, some: Sequence[Job] | None = None) -> list[Job]:
        """As they are now."""
        wanted = self.accepted if some is None else [job.id for job in some]
        found = self.storage.jobs.get_many(wanted)
        return [found[job_id] for job_id in wanted]

    def wait(self, some: Sequence[Job] | None = None, within: float = 30.0) -> list[Job]:
        """The jobs, all by default, once every one of them has ended."""

        def ended() -> list[Job] | None:
            jobs = self.jobs(some)
            return jobs if all(job.status in ENDED for job in jobs) else None

        return eventually(ended, within=within, what="all jobs ended")

    def statuses(self, some: Sequence[Job] | None = None) -> Counter[str]:
        return Counter(str(job.status) for job in self.jobs(some))


@contextmanager
def plant(
    database: Database,
    *,
    replicas: int = 1,
    terms: LaneTerms | None = None,
    latency: float = 0.0,
    timeouts: Timeouts | None = None,
) -> Iterator[Plant]:
    """Running replicas without workers; drained at the end."""
    with FakeProvider(latency=latency) as fake, ExitStack() as stack:
        named = [replica(database.open(), f"replica-{number}", terms, timeouts=timeouts) for number in range(replicas)]
        made = [stack.enter_context(each) for each in named]
        yield Plant(fake, database.open(), made, SystemClock())


def _catalogue(storage: Storage, hop: ThreadHop, clock: SystemClock) -> Catalogue:
    return Catalogue(
        models=storage.models, prompts=storage.prompts, evaluators=storage.evaluators, hop=hop, clock=clock
    )


@contextmanager
def replica(
    storage: Storage,
    name: str,
    terms: LaneTerms | None = None,
    spending: SpendingTerms | None = None,
    timeouts: Timeouts | None = None,
) -> Iterator[Replica]:
    """A started replica on a connection of its own; drained at the end."""
    clock, signals, counting = SystemClock(), JobSignals(), Faulty(storage, Plan())
    executor = ThreadPoolExecutor(8)
    hop = ThreadHop(executor)
    lanes = Lanes(counting, clock=clock, hop=hop, replica=name, terms=terms)  # type: ignore[attr-defined]
    wallets = Wallets(counting, clock=clock, hop=hop, replica=name, terms=spending)  # type: ignore[arg-type]

    def make_handler() -> CompletionHandler:
        return CompletionHandler(
            providers=ProviderSet(Registry()),
            catalogue=_catalogue(storage, hop, clock),
            secrets=ProviderSecrets({"SOME_KEY": KEY}),
            prompts=storage.prompts,
            clock=clock,
            ids=ObjectIds(),
            hop=hop,
            lanes=lanes,
            wallets=wallets,
            timeouts=timeouts,
        )

    pool = build_pool(
        PoolTerms(incarnation=name, most_threads=2, lease=LEASE, worker_lease=LEASE, attempt_limit=LEASE, grace=LEASE),
        storage=counting,  # type: ignore[arg-type]
        signals=signals,
        clock=clock,
        hop=hop,
        make_handler=make_handler,
        policy=RetryPolicy(base=timedelta(milliseconds=50)),
        calibrate=lambda: None,
        rooms=ModelRooms(lanes, wallets),
        tick=lambda: min(lanes.tick(), wallets.tick()),
        ended=wallets.ended,
    )
    lanes.on_room = wallets.on_room = pool.wake
    pool.start()
    try:
        yield Replica(counting, lanes, wallets, pool, signals)
    finally:
        pool.drain(timedelta(seconds=1))
        executor.shutdown(wait=True)
        wallets.close()
