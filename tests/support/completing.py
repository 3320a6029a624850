"""Completion jobs done for real: claimed from a SQLite file, handled, called at the fake provider over HTTP."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from engine.jobs.held import Held
from engine.jobs.job import Call, Job
from engine.jobs.outcome import Completed, Released
from engine.jobs.queue import ClaimFilter, ClaimRequest
from engine.llm import Timeouts
from engine.records.store import Storage
from engine.records.values import Model, Prompt
from engine.storage.factory import open_storage
from llm_workers.catalogue import Catalogue
from llm_workers.completion import CompletionHandler
from llm_workers.lanes import Lanes
from llm_workers.persistence import Persistence
from llm_workers.providers.registry import ProviderSet, Registry
from llm_workers.wallets import Wallets
from tests.support.factories import CLIENT, make_job, make_model, make_prompt
from tests.support.fake_provider import FakeProvider
from utilities.clock import SystemClock
from utilities.hop import ThreadHop
from utilities.ids import ObjectIds
from utilities.secrets import ProviderSecrets

KEY = "sk-completing-0123456789"


@dataclass
class Done:
    """What became of one attempt. Exactly one of `completed` and `error` is set."""

    job: Job
    calls: tuple[Call, ...]
    completed: Completed | None = None
    error: BaseException | None = None

    @property
    def result(self) -> dict[str, Any]:
        assert self.completed is not None, repr(self.error)
        return self.completed.result


@dataclass
class Completing:
    """`pauses` are the seconds a handler wanted to wait; none of them is waited for."""

    storage: Storage
    fake: FakeProvider
    hop: ThreadHop
    environment: dict[str, str]
    pauses: list[float] = field(default_factory=list)
    clock: "LeapingClock" = field(default_factory=lambda: LeapingClock())  # noqa: PLW0108 - defined below

    def model(self, name: str = "m", **fields: Any) -> Model:
        """Stores a model at the fake provider; its deployment is its name."""
        values = {"deployment": name, "sdk": "OpenAI", "endpoint": self.fake.openai_url, "key": "SOME_KEY", **fields}
        model = make_model(name=name, **values)
        self.storage.models.add(model)
        return model

    def prompt(self, text: str = "Answer as JSON.", **fields: Any) -> Prompt:
        prompt = make_prompt(text=text, **{"name": f"p-{ObjectIds().new()}", **fields})
        self.storage.prompts.add(prompt)
        return prompt

    def job(self, *prompts: Prompt, **fields: Any) -> Job:
        """A job for model `m`; without prompts one is made."""
        chosen = prompts or (self.prompt(),)
        values: dict[str, Any] = {"model": "m", "working_prompts": tuple(prompt.id for prompt in chosen)}
        return make_job(now=self.clock.now(), **{**values, **fields})

    def run(self, job: Job, **options: Any) -> Done:
        """Inserts and claims `job` and handles it once."""
        return asyncio.run(self.handled(self.claimed(job), **options))

    def claimed(self, job: Job) -> Job:
        self.storage.jobs.insert([job])
        return self.claimed_again()

    def claimed_again(self) -> Job:
        now = self.clock.now()
        wanted = ClaimRequest(
            filter=ClaimFilter(client_id=CLIENT), owner="test", expires_at=now + timedelta(minutes=1), limit=1
        )
        (job,) = self.storage.jobs.claim(wanted, now)
        return job

    async def handled(
        self,
        job: Job,
        *,
        meanwhile: Callable[[asyncio.Future[Completed], Held], Coroutine[Any, Any, None]] | None = None,
        timeouts: Timeouts | None = None,
        reasks: int = 1,
    ) -> Done:
        """Handles a claimed job with a handler of its own; `meanwhile` gets the running attempt."""
        work = self.held(job)
        handler = self.handler(timeouts, reasks)
        attempt = asyncio.ensure_future(handler.handle(work))
        if meanwhile is not None:
            await meanwhile(attempt, work)
        (end,) = await asyncio.gather(attempt, return_exceptions=True)
        await handler.aclose()
        calls = work.attempt(Released("test"), self.clock.now()).calls
        if isinstance(end, BaseException):
            return Done(job, calls, error=end)
        return Done(job, calls, completed=end)

    def held(self, job: Job) -> Held:
        soon = self.clock.monotonic() + 60
        return Held(job, queue=self.storage.jobs, hop=self.hop, clock=self.clock, good_until=soon, overdue_at=soon)

    def handler(self, timeouts: Timeouts | None = None, reasks: int = 1) -> CompletionHandler:
        return CompletionHandler(
            providers=ProviderSet(Registry()),
            catalogue=Catalogue(
                models=self.storage.models,
                prompts=self.storage.prompts,
                evaluators=self.storage.evaluators,
                hop=self.hop,
                clock=self.clock,
            ),
            secrets=ProviderSecrets(self.environment),
            prompts=self.storage.prompts,
            clock=self.clock,
            ids=ObjectIds(),
            hop=self.hop,
            lanes=Lanes(self.storage, clock=self.clock, hop=self.hop, replica="test"),
            wallets=Wallets(self.storage, clock=self.clock, hop=self.hop, replica="test"),
            timeouts=timeouts,
            persistence=Persistence(random.Random(1), self._pause),
            reasks=reasks,
        )

    def edit(self, job_id: str, **fields: Any) -> None:
        """Changes a stored job, as PATCH does."""
        job = self.storage.jobs.get(job_id)
        assert job is not None
        assert self.storage.jobs.compare_and_set([replace(job, **fields)], self.clock.now()) == [True]

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.leap(seconds)


class LeapingClock(SystemClock):
    """The system's clock, for which the time of a pause passes at once. One that is `stopped` moves by leaps alone."""

    def __init__(self, *, stopped: bool = False) -> None:
        self._ahead = 0.0
        self._stopped_at = (super().now(), super().monotonic()) if stopped else None

    def leap(self, seconds: float) -> None:
        self._ahead += seconds

    def now(self) -> datetime:
        at = super().now() if self._stopped_at is None else self._stopped_at[0]
        return at + timedelta(seconds=self._ahead)

    def monotonic(self) -> float:
        at = super().monotonic() if self._stopped_at is None else self._stopped_at[1]
        return at + self._ahead


@contextmanager
def completing(folder: Path) -> Iterator[Completing]:
    """With a fresh database and a fake provider that has seen nothing."""
    storage = open_storage(f"sqlite:///{folder / 'jobs.db'}", database="test", synchronous="NORMAL")
    executor = ThreadPoolExecutor(2)
    try:
        with FakeProvider() as fake:
            yield Completing(storage, fake, ThreadHop(executor), {"SOME_KEY": KEY})
    finally:
        executor.shutdown()
        storage.close()
