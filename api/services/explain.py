"""Why a job is where it is, in words and in fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from api.services.model_problems import model_problems
from engine.budgets import Budgets
from engine.errors import BudgetExhausted
from engine.evaluation.values import judge_models
from engine.jobs.job import Job
from engine.jobs.matching import claim_filter, mismatches
from engine.jobs.queue import JobQueue, Page
from engine.jobs.states import JobState
from engine.records.control import ModelStates, Pause
from engine.records.store import Storage, Where
from engine.records.values import Worker, WorkerScope, WorkerStatus
from utilities.clock import Clock

MOST_WORKERS = 100
MOST_AHEAD = 1000
_OF_OURS = frozenset({"requests", "tokens"})
_PAUSES = {
    "rate_limit": "its provider has refused calls for a rate limit",
    "quota": "its provider says that the quota is used up",
    "breaker": "too many of its calls failed",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker, and why it does not take the job; no reasons mean that it will."""

    worker: Worker
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """How many jobs of the same client go first; `capped` tells that there may be more."""

    ahead: int
    capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """`reason` is a stable word, `text` says it to people.

    `problems` will make the job fail once it is taken, or leave it fewer models than were meant for it.
    """

    job: Job
    reason: str
    text: str
    candidates: Sequence[Candidate] = ()
    more_workers: bool = False
    position: Position | None = None
    problems: Sequence[str] = ()


class Explainer:
    """Looks up what a waiting or running job depends on. Reads only; a few bounded queries."""

    def __init__(self, storage: Storage, states: ModelStates, clock: Clock) -> None:
        self._queue: JobQueue = storage.jobs
        self._storage = storage
        self._states = states
        self._clock = clock
        self._budgets = Budgets(storage)

    def explain(self, job: Job) -> Explanation:
        now = self._clock.now()
        if job.status is JobState.PROCESSING:
            return Explanation(
                job=job, reason=_held_reason(job, now), text=_held_text(job, now), problems=self._problems(job)
            )
        if job.status is not JobState.PENDING:
            return Explanation(job=job, reason=job.status.lower(), text=_ended_text(job))
        return self._waiting(job, now)

    def _waiting(self, job: Job, now: datetime) -> Explanation:
        workers = self._workers(job)
        spent = self._budgets.spent_workers(workers[:MOST_WORKERS])
        candidates = [Candidate(worker, _reasons(worker, job, spent)) for worker in workers[:MOST_WORKERS]]
        later = job.due_at is not None and job.due_at > now
        ahead = self._queue.ahead_of(job, MOST_AHEAD)
        reason, text = _later(job) if later else self._for_money(job, now) or _for_worker(job, candidates, ahead)
        pause = self._pause(job)
        if pause is not None:
            in_line, told = reason == "in_line", _for_model(pause)
            reason, text = ("model_paused", told) if in_line else (reason, f"{text} {told}")
        return Explanation(
            job=job,
            reason=reason,
            text=text,
            candidates=candidates,
            more_workers=len(workers) > MOST_WORKERS,
            position=Position(ahead, ahead >= MOST_AHEAD),
            problems=self._problems(job),
        )

    def _for_money(self, job: Job, now: datetime) -> tuple[str, str] | None:
        state = self._budgets.of_client(self._storage.clients.get(job.client_id), now)
        refused = job.failure is not None and job.failure.error_type == BudgetExhausted.__name__
        if state is None or not (state.exhausted or (refused and state.left == 0)):
            return None
        return "budget_exhausted", f"It waits for money: {state.purse.used_up(held=not state.exhausted)}."

    def _workers(self, job: Job) -> Sequence[Worker]:
        page = Page(limit=MOST_WORKERS + 1)
        own = self._storage.workers.find(Where(equals={"clientId": [job.client_id]}), page)
        shared = self._storage.workers.find(Where(equals={"scope": [str(WorkerScope.ALL)]}), page)
        listed = {worker.id: worker for worker in (*own, *shared)}
        return sorted(listed.values(), key=lambda worker: (worker.status is not WorkerStatus.RUNNING, worker.id))

    def _pause(self, job: Job) -> Pause | None:
        """What keeps the job's model, and all that might answer in its place, from taking a call now."""
        models = self._storage.models.find(Where(equals={"name": [job.model]}), Page(limit=1))
        return self._states.of(models)[0].job_waits_for if models else None

    def _problems(self, job: Job) -> Sequence[str]:
        return (*self._missing_prompts(job), *self._missing_evaluator(job), *self._missing_models(job))

    def _missing_prompts(self, job: Job) -> Sequence[str]:
        wanted = [name for name in (*job.working_prompts, job.eval_prompt, job.meta_prompt) if name]
        found = self._storage.prompts.get_many(wanted)
        return [f"prompt {name} does not exist any more" for name in dict.fromkeys(wanted) if name not in found]

    def _missing_evaluator(self, job: Job) -> Sequence[str]:
        """Or models that its judges need and that do not exist any more."""
        if job.evaluator is None:
            return ()
        evaluator = self._storage.evaluators.get(job.evaluator)
        if evaluator is None:
            return (f"evaluator {job.evaluator} does not exist any more",)
        return model_problems(judge_models(evaluator.metrics), self._storage.models)

    def _missing_models(self, job: Job) -> Sequence[str]:
        wanted = [name for name in (job.model, job.eval_model, job.meta_model) if name]
        return model_problems(wanted, self._storage.models)


def _reasons(worker: Worker, job: Job, spent: frozenset[str]) -> tuple[str, ...]:
    stopped = () if worker.status is WorkerStatus.RUNNING else (f"is {worker.status}",)
    poor = ("is at its maxCost, which is used up",) if worker.id in spent else ()
    return (*stopped, *poor, *mismatches(claim_filter(worker), job))


def _later(job: Job) -> tuple[str, str]:
    due = job.due_at.isoformat() if job.due_at is not None else ""
    if job.failure is None:
        return "due_later", f"It waits for its notBefore time, {due}."
    kind = "retry" if job.attempts else "wait"
    failure = job.failure
    return "backing_off", f"It waits until {due} for its next {kind} after {failure.error_type}: {failure.message}"


def _for_worker(job: Job, candidates: Sequence[Candidate], ahead: int) -> tuple[str, str]:
    like = f"of operation {job.operation} and model {job.model}"
    if not candidates:
        return "no_worker", f"It waits for a worker that takes jobs {like}, and there is none: create one and start it."
    if any(not candidate.reasons for candidate in candidates):
        turn = f"{'at least ' if ahead >= MOST_AHEAD else ''}{ahead} of the same client's jobs go first"
        return "in_line", f"It is due and a running worker takes jobs like it; {turn}."
    stopped = [candidate for candidate in candidates if not _fits_when_started(candidate)]
    if len(stopped) < len(candidates):
        return "workers_stopped", f"It waits for a worker: those that would take jobs {like} are not running."
    return "no_worker_fits", f"It waits for a worker, and none of those that exist takes jobs like it, {like}."


def _for_model(pause: Pause) -> str:
    """Without the vendor's own words, which may be about somebody else's call."""
    why = pause.text if pause.reason in _OF_OURS else _PAUSES.get(pause.reason, pause.reason)
    return f"Model {pause.model} takes no call before {pause.until.isoformat()} ({pause.reason}): {why}."


def _fits_when_started(candidate: Candidate) -> bool:
    return all(reason.startswith("is ") for reason in candidate.reasons)


def _held_reason(job: Job, now: datetime) -> str:
    return "lease_expired" if job.lease is not None and job.lease.expires_at <= now else "held"


def _held_text(job: Job, now: datetime) -> str:
    if job.lease is None:
        return "It is being worked on."
    until = job.lease.expires_at.isoformat()
    if job.lease.expires_at <= now:
        return f"The lease of {job.lease.owner} ran out at {until}: the job is about to go back into the queue."
    return f"It is held by {job.lease.owner} until {until}, longer if the holder extends its lease."


def _ended_text(job: Job) -> str:
    by = job.metadata.updated_by or "nobody known"
    failed = "" if job.failure is None else f" {job.failure.error_type}: {job.failure.message}"
    texts = {
        JobState.PROCESSED: "Its result is there and waits to be consumed.",
        JobState.CONSUMED: f"Its result was consumed by {by}.",
        JobState.ERROR_PROCESSING: f"It failed and is not tried again by itself.{failed}",
        JobState.ERROR_CONSUMING: f"Its result was rejected by {by}.",
        JobState.CANCELED: f"It was canceled by {by}.",
    }
    return texts[job.status]
