"""A job, its lease, its attempts and what it has cost so far: plain values."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from engine.jobs.states import JobState
from engine.llm import Complaint, JsonObject, ResponseFormat
from engine.metadata import Metadata

DEFAULT_MAX_ATTEMPTS = 5
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who works on a job until when. The fencing token is the job's own `token`."""

    owner: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job is in error. `raw` is the provider's answer that could not be used, if there was one.

    `status` and `complaint` are those of a ProviderError: its HTTP status, and what it says for programs.
    """

    error_type: str
    message: str
    attempts: int
    at: datetime
    raw: str | None = None
    status: int | None = None
    complaint: Complaint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One provider call. `step` is work, eval or meta; `outcome` is ok, error, or unknown where the answer was lost.

    Tokens and costs are None where the provider never told; `duration` is in seconds.
    """

    step: str
    model: str
    started_at: datetime
    duration: float
    outcome: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_cost: Decimal | None = None
    output_cost: Decimal | None = None
    currency: str | None = None
    error_type: str | None = None
    request_id: str | None = None

    @property
    def may_cost(self) -> bool:
        """Whether a provider may charge for it: not where it refused the call or never got it."""
        return self.outcome != "error" or bool(self.input_tokens) or bool(self.output_tokens)

    @property
    def cost_unknown(self) -> bool:
        return self.may_cost and self.output_tokens is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One time a job was held: the entry of its ledger whose key is the lease's `token`.

    `outcome` is completed, retried, dead_lettered, released, lease_lost or canceled; `charged` tells whether it counts
    against the retry budget.
    """

    token: int
    owner: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str
    charged: bool = False
    error_type: str | None = None
    error_message: str | None = None
    calls: tuple[Call, ...] = ()

    @property
    def is_lost(self) -> bool:
        """Whether nobody has told which calls it made: one may have been."""
        return not self.calls and self.outcome in ("lease_lost", "canceled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The sum over all calls of a ledger. `currencies` are the priced calls': costs add up only if it is one."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    duration: float = 0.0
    input_cost: Decimal = ZERO
    output_cost: Decimal = ZERO
    currencies: frozenset[str] = frozenset()


def totals_of(calls: Iterable[Call]) -> Totals:
    """Adds calls up; an unknown count or cost adds nothing."""
    listed = list(calls)
    return Totals(
        calls=len(listed),
        input_tokens=sum(call.input_tokens or 0 for call in listed),
        output_tokens=sum(call.output_tokens or 0 for call in listed),
        duration=sum(call.duration for call in listed),
        input_cost=sum((call.input_cost or ZERO for call in listed), ZERO),
        output_cost=sum((call.output_cost or ZERO for call in listed), ZERO),
        currencies=frozenset(call.currency for call in listed if call.currency is not None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A prompt to be run, and all that is known of it.

    `client_job_id` is the client's own id (wire: `id`). `token` is the fencing token: it rises with every claim and
    every forced transition and never falls. `attempts` counts charged failures, `waits` uncharged ones, `leases_lost`
    leases that ran out; each has its own bound. `due_at` is the not-before time of a PENDING job, None when due now.
    `revision` rises with every write and guards read-modify-write edits; only the back-end sets it.

    `endpoint` is set where the job is a request to an OpenAI endpoint, such as /v1/chat/completions: `request_data` is
    then its body and `response_data` the body of the answer, and neither prompts nor `temperature` play a part.
    `instructions` is text that follows the working prompts' texts, for prompts that are stored nowhere.
    `prompt_flow` is the id of the flow whose prompts the working prompts were when the job was made. `canary` is the
    id of the one among them that stands there as a canary; `canary_trial` that of the try that is to score the job.
    `evaluator` is the id of one version of an evaluator, in place of `eval_prompt` and `eval_model`; `expected` is any
    JSON that its metrics hold the answer against, None where nothing is expected.

    `pins` are prompts as they are to be used, whatever has become of them since (see engine.records.pinning).
    `most_calls` is how many calls may ever be made for it that may cost something, `most_output` how many tokens each
    of them may answer with, whatever its model allows; None does not restrict.
    """

    id: str
    client_id: str
    operation: str
    working_prompts: tuple[str, ...]
    model: str
    temperature: float
    priority: int
    request_data: JsonObject
    metadata: Metadata
    status: JobState = JobState.PENDING
    client_job_id: str | None = None
    client_reference: JsonObject | None = None
    eval_prompt: str | None = None
    eval_model: str | None = None
    evaluator: str | None = None
    expected: Any = None
    meta_prompt: str | None = None
    meta_model: str | None = None
    response_format: ResponseFormat = "json"
    endpoint: str | None = None
    instructions: str | None = None
    prompt_flow: str | None = None
    canary: str | None = None
    canary_trial: str | None = None
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    pins: JsonObject | None = None
    most_calls: int | None = None
    most_output: int | None = None
    due_at: datetime | None = None
    token: int = 0
    lease: Lease | None = None
    attempts: int = 0
    waits: int = 0
    leases_lost: int = 0
    response_data: JsonObject | None = None
    eval_result: JsonObject | None = None
    suggested_prompt_id: str | None = None
    failure: Failure | None = None
    ledger: tuple[Attempt, ...] = ()
    totals: Totals = field(default=Totals())
    revision: int = 0

    @property
    def answered_by(self) -> str | None:
        """The model whose call gave the result; None where there is none, or a worker outside gave it."""
        if self.response_data is None:
            return None
        completed = next((attempt for attempt in reversed(self.ledger) if attempt.outcome == "completed"), None)
        calls = () if completed is None else completed.calls
        return next((call.model for call in reversed(calls) if call.step == "work" and call.outcome == "ok"), None)

    def may_call(self, made: Iterable[Call]) -> bool:
        """Whether one more call may be made in an attempt that has `made` those; see `most_calls`."""
        if self.most_calls is None:
            return True
        calls = sum(call.may_cost for attempt in self.ledger for call in attempt.calls)
        lost = sum(attempt.is_lost for attempt in self.ledger)
        return calls + lost + sum(call.may_cost for call in made) < self.most_calls
