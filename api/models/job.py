"""Jobs as clients ask for and change them."""

from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    FailFast,
    Field,
    WithJsonSchema,
    model_validator,
)

from api.models.base import Body, Short
from api.models.job_schema import check_response_format
from api.services.job_edits import JobEdit, ReportedFailure
from engine.jobs.job import DEFAULT_MAX_ATTEMPTS
from engine.jobs.references import flatten
from engine.jobs.states import JobState
from engine.llm import JsonObject

MOST_JOBS = 50_000
MOST_IDS = 100_000
LARGEST_JSON = 8 * 1024 * 1024
LARGEST_REFERENCE = 1024 * 1024
MOST_REFERENCES = 1000
MOST_PROMPTS = 1000
"""Bounds beyond every sensible use, so that one request cannot take the memory or a document its size."""

_NESTED_IN_ANSWERS = 6


def _storable(value: Any) -> Any:
    """Checks that `value` can be stored, and shown as deep as answers nest it."""
    nested = value
    for _ in range(_NESTED_IN_ANSWERS):
        nested = [nested]
    try:
        size = len(orjson.dumps(nested))
    except TypeError as error:
        raise ValueError("is nested too deeply or holds what JSON cannot carry") from error
    if size > LARGEST_JSON:
        raise ValueError(f"is larger than {LARGEST_JSON} bytes")
    return value


def _few_references(value: JsonObject) -> JsonObject:
    """Every field is an entry in an index, so thousands of them would hold the database up."""
    if len(orjson.dumps(value)) > LARGEST_REFERENCE:
        raise ValueError(f"is larger than {LARGEST_REFERENCE} bytes")
    if len(flatten(value)) > MOST_REFERENCES:
        raise ValueError(f"has more than {MOST_REFERENCES} fields")
    return value


def _small(value: Any) -> Any:
    if len(orjson.dumps(_storable(value))) > LARGEST_REFERENCE:
        raise ValueError(f"is larger than {LARGEST_REFERENCE} bytes")
    return value


def _few(value: list[str]) -> list[str]:
    if len(value) > MOST_PROMPTS:
        raise ValueError(f"are more than {MOST_PROMPTS}")
    return value


def _iso(value: Any) -> Any:
    """An ISO 8601 text as an aware instant; without a zone it is UTC."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("should be an ISO 8601 time")  # noqa: TRY004 - pydantic reports ValueError, not TypeError
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("should be an ISO 8601 time") from error


def _not_too_many(most: int) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, list) and len(value) > most:
            raise ValueError(f"are more than {most}; send several requests")
        return value

    return BeforeValidator(check)


def _unset_if_empty(value: str | None) -> str | None:
    return value or None


Text = Annotated[str, Short]
Reference = Annotated[Text | None, AfterValidator(_unset_if_empty)]
Object = Annotated[JsonObject, AfterValidator(_storable)]
References = Annotated[Object, AfterValidator(_few_references)]
Expected = Annotated[Any, AfterValidator(_small)]
Prompts = Annotated[list[Text], AfterValidator(_few)]
Instant = Annotated[
    datetime | None,
    BeforeValidator(_iso),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]
Format = Annotated[
    Any,
    AfterValidator(check_response_format),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": ["json", "text"]},
                {
                    "type": "object",
                    "properties": {"type": {"const": "json_schema"}, "schema": {"type": "object"}},
                    "required": ["type", "schema"],
                },
                {"type": "null"},
            ]
        }
    ),
]
Temperature = Annotated[float, Field(ge=0.0, le=1.0)]
Priority = Annotated[int, Field(ge=1, le=1000)]
MaxAttempts = Annotated[int, Field(ge=1, le=20)]


class JobCreateRequest(Body):
    """Implements api.services.job_drafts.JobDraft. Of `prompts` and `workingPrompts` the latter wins.

    With `promptFlow` in their place the prompts are those that the flow has now. `evaluator` stands in place of
    `evalPrompt` and `evalModel`; its metrics hold the answer against `expected`.
    """

    operation: Annotated[Text, Field(min_length=1)]
    prompts: Annotated[Prompts, Field(min_length=1)] | None = None
    given_prompts: Annotated[Prompts, Field(min_length=1)] | None = Field(None, alias="workingPrompts")
    prompt_flow: Reference = None
    model: Annotated[Text, Field(min_length=1)]
    temperature: Temperature
    priority: Priority
    client_job_id: Text | None = Field(None, alias="id")
    request_data: Object
    client_reference: References | None = None
    eval_prompt: Reference = None
    eval_model: Reference = None
    evaluator: Reference = None
    expected: Expected = None
    meta_prompt: Reference = None
    meta_model: Reference = None
    asked_format: Format = Field(None, alias="responseFormat")
    asked_attempts: MaxAttempts | None = Field(None, alias="maxAttempts")
    not_before: Instant = None

    @model_validator(mode="after")
    def _has_prompts(self) -> "JobCreateRequest":
        given = self.prompts is not None or self.given_prompts is not None
        if not given and self.prompt_flow is None:
            raise ValueError("prompts, workingPrompts or promptFlow are needed")
        if given and self.prompt_flow is not None:
            raise ValueError("promptFlow: stands in place of prompts and workingPrompts, and both are given")
        return self

    @property
    def working_prompts(self) -> list[str]:
        return self.given_prompts or self.prompts or []

    @property
    def response_format(self) -> Any:
        return self.asked_format if self.asked_format is not None else "json"

    @property
    def endpoint(self) -> None:
        """Requests to OpenAI's endpoints come in at those."""
        return None

    @property
    def instructions(self) -> None:
        """Texts are stored as prompts first."""
        return None

    @property
    def max_attempts(self) -> int:
        return self.asked_attempts if self.asked_attempts is not None else DEFAULT_MAX_ATTEMPTS


class JobBatchCreateRequest(Body):
    """At the first job that is no job the rest is not looked at."""

    jobs: Annotated[list[JobCreateRequest], FailFast(), Field(min_length=1), _not_too_many(MOST_JOBS)]


class JobStatusUpdateRequest(Body):
    status: JobState

    def edit(self) -> JobEdit:
        return JobEdit(status=self.status)


class JobErrorReport(Body):
    """What went wrong, as whoever worked on the job saw it."""

    error_type: Text | None = None
    error_message: Text | None = None
    failed_response_data: str | None = Field(None, max_length=100_000)


_EDITABLE = {
    "operation": "operation",
    "model": "model",
    "temperature": "temperature",
    "priority": "priority",
    "request_data": "request_data",
    "client_reference": "client_reference",
    "eval_prompt": "eval_prompt",
    "eval_model": "eval_model",
    "evaluator": "evaluator",
    "expected": "expected",
    "meta_prompt": "meta_prompt",
    "meta_model": "meta_model",
    "eval_result": "eval_result",
    "suggested_prompt_id": "suggested_prompt_id",
    "response_format": "response_format",
    "max_attempts": "max_attempts",
    "not_before": "due_at",
}


_REMOVABLE = ("eval_prompt", "eval_model", "evaluator", "meta_prompt", "meta_model")


class JobUpdateRequest(Body):
    """New values; what is absent or null stays as it is, and "" removes an eval or meta prompt or model, or an
    evaluator with what it expects.

    `responseData` counts with PROCESSED, `errorData` with an error status, `leaseSeconds` with PROCESSING or, alone,
    to keep a lease that the caller holds.
    """

    status: JobState | None = None
    operation: Text | None = None
    prompts: Prompts | None = None
    working_prompts: Prompts | None = None
    model: Text | None = None
    temperature: Temperature | None = None
    priority: Priority | None = None
    request_data: Object | None = None
    client_reference: References | None = None
    eval_prompt: Text | None = None
    eval_model: Text | None = None
    evaluator: Text | None = None
    expected: Expected = None
    meta_prompt: Text | None = None
    meta_model: Text | None = None
    eval_result: Object | None = None
    suggested_prompt_id: Text | None = None
    response_format: Format = None
    max_attempts: MaxAttempts | None = None
    not_before: Instant = None
    response_data: Annotated[Any, AfterValidator(_storable)] = None
    error_data: JobErrorReport | None = None
    lease_seconds: int | None = Field(None, ge=1, le=3600)
    lease_token: int | None = None

    def edit(self) -> JobEdit:
        given = ((name, getattr(self, field)) for field, name in _EDITABLE.items())
        fields: dict[str, Any] = {name: value for name, value in given if value is not None}
        fields.update((name, None) for name in _REMOVABLE if fields.get(name) == "")
        if self.evaluator == "":
            fields.setdefault("expected", None)
        prompts = self.working_prompts if self.working_prompts is not None else self.prompts
        if prompts is not None:
            fields["working_prompts"] = tuple(prompts)
        return JobEdit(
            status=self.status,
            fields=fields,
            response_data=as_object(self.response_data),
            failure=self._failure(),
            lease_seconds=self.lease_seconds,
            lease_token=self.lease_token,
        )

    def _failure(self) -> ReportedFailure | None:
        told = self.error_data
        if told is None:
            return None
        return ReportedFailure(error_type=told.error_type, message=told.error_message, raw=told.failed_response_data)


class JobBatchUpdateItem(JobUpdateRequest):
    job_id: str


class JobBatchUpdateRequest(Body):
    jobs: Annotated[list[JobBatchUpdateItem], FailFast(), Field(min_length=1), _not_too_many(MOST_JOBS)]


class JobBatchDeleteRequest(Body):
    job_ids: Annotated[list[str], FailFast(), Field(min_length=1), _not_too_many(MOST_IDS)] = Field(
        validation_alias=AliasChoices("jobIds", "ids")
    )


def as_object(value: Any) -> JsonObject | None:
    """A result as it is stored: an object stays, null is none, anything else becomes {"value": …}."""
    return value if value is None or isinstance(value, dict) else {"value": value}
