"""New jobs from what clients asked for: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from api.services.job_flows import Flows, check_flow, with_canary
from api.services.references import Known, User, Wanted
from engine.errors import InvalidField, Refused
from engine.jobs.job import DEFAULT_MAX_ATTEMPTS, Job
from engine.llm import JsonObject, ResponseFormat
from engine.metadata import Metadata
from utilities.clock import to_milliseconds

_PAIRS = (("eval", "eval_prompt", "eval_model"), ("meta", "meta_prompt", "meta_model"))


class JobDraft(Protocol):
    """A job as it was asked for. `working_prompts` are ids, `model` is a name, `not_before` an aware instant."""

    @property
    def operation(self) -> str: ...
    @property
    def working_prompts(self) -> Sequence[str]: ...
    @property
    def model(self) -> str: ...
    @property
    def temperature(self) -> float: ...
    @property
    def priority(self) -> int: ...
    @property
    def client_job_id(self) -> str | None: ...
    @property
    def request_data(self) -> JsonObject: ...
    @property
    def client_reference(self) -> JsonObject | None: ...
    @property
    def eval_prompt(self) -> str | None: ...
    @property
    def eval_model(self) -> str | None: ...
    @property
    def evaluator(self) -> str | None: ...
    @property
    def expected(self) -> Any: ...
    @property
    def meta_prompt(self) -> str | None: ...
    @property
    def meta_model(self) -> str | None: ...
    @property
    def response_format(self) -> ResponseFormat: ...
    @property
    def max_attempts(self) -> int: ...
    @property
    def not_before(self) -> datetime | None: ...
    @property
    def endpoint(self) -> str | None: ...
    @property
    def instructions(self) -> str | None: ...
    @property
    def prompt_flow(self) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointDraft:
    """Implements JobDraft: a request to the OpenAI endpoint of that path, with its body."""

    endpoint: str
    model: str
    request_data: JsonObject
    operation: str
    priority: int = 1
    client_reference: JsonObject | None = None
    working_prompts: Sequence[str] = ()
    temperature: float = 0.0
    client_job_id: str | None = None
    eval_prompt: str | None = None
    eval_model: str | None = None
    evaluator: None = None
    expected: None = None
    meta_prompt: str | None = None
    meta_model: str | None = None
    response_format: ResponseFormat = "text"
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    not_before: datetime | None = None
    instructions: None = None
    prompt_flow: None = None


@dataclass(frozen=True, slots=True)
class Maker:
    """For whom jobs are made and by whom: `owner` is a client id, `by` a client id or `admin`."""

    owner: User
    by: str


def prompts_of(draft: JobDraft, flows: Flows) -> tuple[str, ...]:
    """The working prompts: the draft's own, or those of its flow; none where that is not among `flows`."""
    flow = flows.get(draft.prompt_flow) if draft.prompt_flow is not None else None
    return tuple(draft.working_prompts) if flow is None else flow.prompt_ids


def wanted_by_draft(draft: JobDraft, flows: Flows) -> Wanted:
    """The prompts and models that `draft` names."""
    working = prompts_of(draft, flows)
    if (
        draft.eval_prompt is None
        and draft.meta_prompt is None
        and draft.eval_model is None
        and draft.meta_model is None
        and draft.evaluator is None
    ):
        return Wanted(working, (draft.model,))
    prompts = (*working, draft.eval_prompt, draft.meta_prompt)
    models = (draft.model, draft.eval_model, draft.meta_model)
    evaluators = (draft.evaluator,) if draft.evaluator else ()
    return Wanted(tuple(name for name in prompts if name), tuple(name for name in models if name), evaluators)


def check_pairs(job: JobDraft | Job) -> None:
    """Raises InvalidField where an evaluation or a meta step has only one of its two halves, or an evaluation both ways
    of being made."""
    for step, prompt, model in _PAIRS:
        if bool(getattr(job, prompt)) != bool(getattr(job, model)):
            reason = f"a {step} step needs both a prompt and a model, and only one of them is given"
            raise InvalidField(f"{step}Prompt, {step}Model", reason)
    if job.evaluator and (job.eval_prompt or job.eval_model):
        raise InvalidField("evaluator", "stands in place of evalPrompt and evalModel, and both are given")
    if job.expected is not None and not job.evaluator:
        raise InvalidField("expected", "is for an evaluator, and none is named")


def check_draft(draft: JobDraft, known: Known, user: User, flows: Flows) -> None:
    """Raises UnknownReference or InvalidField."""
    check_pairs(draft)
    check_flow(draft.prompt_flow, flows, user)
    known.check(wanted_by_draft(draft, flows), user)


def check_batch(drafts: Sequence[JobDraft], known: Known, user: User, flows: Flows) -> None:
    """Raises Refused with the position, counted from 1, of the first draft that cannot be accepted."""
    for place, draft in enumerate(drafts, 1):
        try:
            check_draft(draft, known, user, flows)
        except Refused as error:
            raise Refused(f"batch job {place} of {len(drafts)}: {error}") from error


def new_jobs(drafts: Sequence[JobDraft], ids: Sequence[str], maker: Maker, now: datetime, flows: Flows) -> list[Job]:
    """The PENDING jobs that `drafts` ask for."""
    client_id, metadata = maker.owner.client_id, Metadata(created_at=now, created_by=maker.by)
    made = [_new_job(draft, job_id, client_id, metadata, flows) for draft, job_id in zip(drafts, ids, strict=True)]
    return [with_canary(job, flows) for job in made] if flows else made


def _new_job(draft: JobDraft, job_id: str, client_id: str, metadata: Metadata, flows: Flows) -> Job:
    return Job(
        id=job_id,
        client_id=client_id,
        operation=draft.operation,
        working_prompts=prompts_of(draft, flows),
        model=draft.model,
        temperature=draft.temperature,
        priority=draft.priority,
        request_data=draft.request_data,
        metadata=metadata,
        client_job_id=draft.client_job_id,
        client_reference=draft.client_reference,
        eval_prompt=draft.eval_prompt,
        eval_model=draft.eval_model,
        evaluator=draft.evaluator,
        expected=draft.expected,
        meta_prompt=draft.meta_prompt,
        meta_model=draft.meta_model,
        response_format=draft.response_format,
        endpoint=draft.endpoint,
        instructions=draft.instructions,
        prompt_flow=draft.prompt_flow,
        max_attempts=draft.max_attempts,
        due_at=None if draft.not_before is None else to_milliseconds(draft.not_before),
    )
