"""Optimization runs in this process: stepped by hand with a worker that a test plays, or driven for real."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from engine.errors import LeaseLost, StorageUnavailable
from engine.jobs.handler import Assignment
from engine.jobs.job import Attempt, Call, Job
from engine.jobs.outcome import Completed, DeadLettered, Outcome, Settlement
from engine.jobs.queue import ClaimFilter, ClaimRequest
from engine.jobs.signals import JobSignals
from engine.records.runs import Run
from engine.records.store import Storage
from llm_optimizer.assembly import Optimizer, build_optimizer, build_searching
from llm_optimizer.run_errand import RunErrand
from llm_optimizer.run_tools import RunTools, Watch
from llm_optimizer.searching import Searching
from llm_optimizer.subject import Subjects
from llm_optimizer.withdrawal import OwnJobs
from tests.support.factories import CLIENT, IDS, make_failure, make_run
from tests.support.rig import Rig, ScriptedHandler, running_pool
from utilities.clock import Clock, SystemClock
from utilities.ids import ObjectIds

Play = Callable[[Job], Outcome]
_CLOCK = SystemClock()


def call(step: str) -> Call:
    """Ten tokens in, one out, for 0.01 USD each way."""
    return Call(
        step=step,
        model="m",
        started_at=_CLOCK.now(),
        duration=0.5,
        outcome="ok",
        input_tokens=10,
        output_tokens=1,
        input_cost=Decimal("0.01"),
        output_cost=Decimal("0.01"),
        currency="USD",
    )


def suggest(job: Job) -> Outcome:
    """A result with an evaluation and a suggested prompt, which has the job's id."""
    return Completed(result={"text": "a"}, eval_result={"score": 0.5}, suggested_prompt_id=job.id)


def break_down(job: Job) -> Outcome:
    return DeadLettered(make_failure())


class SuggestingHandler(ScriptedHandler):
    """Its results have an evaluation and a suggestion, and a call for each."""

    async def handle(self, work: Assignment) -> Completed:
        done = await super().handle(work)
        for step in ("eval", "meta"):
            work.record(call(step))
        return replace(done, eval_result={"score": 0.5}, suggested_prompt_id=work.job.id)


@dataclass
class Bench:
    """A storage whose runs are stepped by hand. `storage` may be a faulty one, `truth` is behind it.

    `subjects` are what searches are about.
    """

    storage: Storage
    truth: Storage
    subjects: Subjects | None = None
    client_id: str = CLIENT
    watch: Watch = field(default_factory=Watch)
    clock: Clock = _CLOCK

    def searching(self) -> Searching:
        """As a process that has just started has it."""
        signals = JobSignals()
        self.watch = Watch()
        tools = RunTools(
            runs=self.storage.runs,
            queue=self.storage.jobs,
            jobs=OwnJobs(self.storage.jobs, signals),
            clock=self.clock,
            ids=ObjectIds(),
            watch=self.watch,
        )
        self.tools = tools
        return build_searching(self.storage, tools, self.subjects)

    def errand(self) -> RunErrand:
        searching = self.searching()
        return RunErrand(self.tools, searching)

    def play(self, play: Play) -> list[str]:
        """Claims all that is ready and settles it as `play` has it; the ids."""
        now = _CLOCK.now()
        request = ClaimRequest(
            filter=ClaimFilter(client_id=self.client_id),
            owner="player",
            expires_at=now + timedelta(minutes=1),
            limit=1000,
        )
        jobs = self.truth.jobs.claim(request, now)
        settlements = [settled(job, play(job)) for job in jobs]
        assert all(self.truth.jobs.settle(settlements, now))
        return [job.id for job in jobs]

    def stepped(self, run_id: str, *, play: Play = suggest, most: int = 400, restarts: bool = False) -> Run:
        """The run once no step is left. Whenever the storage fails, its process is taken to have died.

        With `restarts` another process takes each step.
        """
        errand, played = self.errand(), Counted(play)
        for _ in range(most):
            errand = self.errand() if restarts else errand
            try:
                run = errand.get(run_id)
                if run is None:
                    break
                errand.step(run)
            except LeaseLost:
                continue
            except StorageUnavailable:
                errand = self.errand()
            for job_id in self.play(played):
                self.watch.tell(job_id)
        found = self.truth.runs.get(run_id)
        assert found is not None
        assert not found.is_open, "steps are left"
        return found


@dataclass
class Counted:
    """Refuses to do a job twice."""

    play: Play

    def __post_init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, job: Job) -> Outcome:
        assert job.id not in self.seen
        self.seen.add(job.id)
        return self.play(job)


def settled(job: Job, outcome: Outcome) -> Settlement:
    whole = "role" not in (job.client_reference or {})
    calls = tuple(call(step) for step in (("work", "eval", "meta") if whole else ("work",)))
    attempt = Attempt(
        token=job.token,
        owner="player",
        started_at=_CLOCK.now(),
        ended_at=_CLOCK.now(),
        outcome="completed" if isinstance(outcome, Completed) else "dead_lettered",
        calls=calls,
    )
    return Settlement(job_id=job.id, token=job.token, outcome=outcome, attempt=attempt)


@dataclass
class Driven:
    """A pool and an optimizer of one process."""

    rig: Rig
    optimizer: Optimizer

    def begin(self, **fields: Any) -> Run:
        return self.optimizer.begin(make_run(id=IDS.new(), **fields))


@contextmanager
def driven(storage: Storage, handler: ScriptedHandler | None = None, **options: Any) -> Iterator[Driven]:
    """`options` are build_optimizer's."""
    with running_pool(storage, handler or SuggestingHandler()) as rig:
        values = {"replica": "here", "poll": 0.2, **options}
        optimizer = build_optimizer(storage, signals=rig.signals, clock=rig.clock, ids=ObjectIds(), **values)
        optimizer.start()
        try:
            yield Driven(rig, optimizer)
        finally:
            optimizer.close()
