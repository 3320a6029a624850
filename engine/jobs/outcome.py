"""What handling a job can end in, and the guarded write that records it."""

from dataclasses import dataclass
from datetime import datetime

from engine.jobs.job import Attempt, Failure
from engine.jobs.states import Event
from engine.llm import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """`result` is the answer as an object; the rest is set where the job has an evaluation or a meta step."""

    result: JsonObject
    eval_result: JsonObject | None = None
    suggested_prompt_id: str | None = None


@dataclass(frozen=True, slots=True)
class Retried:
    """Back to PENDING, not before `due_at`. Charged: `attempts` rises by one; uncharged: `waits` does."""

    failure: Failure
    due_at: datetime
    charged: bool


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """To ERROR_PROCESSING with `failure` as errorData. `attempts` is set to failure.attempts."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Released:
    """Back to PENDING, due now, nothing charged."""

    reason: str


@dataclass(frozen=True, slots=True)
class Expired:
    """The lease ran out: back to PENDING, due now; `leases_lost` and the fencing token rise by one."""


Outcome = Completed | Retried | DeadLettered | Released | Expired

EVENT_OF: dict[type[Outcome], Event] = {
    Completed: Event.COMPLETE,
    Retried: Event.RETRY,
    DeadLettered: Event.DEAD_LETTER,
    Released: Event.RELEASE,
    Expired: Event.EXPIRE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """One outcome to be written for the job held under `token`.

    `attempt` goes on the ledger and its calls into the totals. `only_expired` makes the write succeed only while the
    lease has run out at the `now` of the write: how recovery loses against an extension made in the same instant.
    """

    job_id: str
    token: int
    outcome: Outcome
    attempt: Attempt | None = None
    only_expired: bool = False
