"""Lines of a batch's input and of its results: pure.

Source of the shapes: OpenAI's guide to the Batch API.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from engine.jobs.job import Failure, Job
from engine.jobs.states import JobState
from engine.llm import JsonObject
from engine.records.batches import BatchProblem, BatchStatus
from utilities.json_depth import DEEPEST, may_be_too_deep, too_deep

MOST_LINES = 50_000
LONGEST_LINE = 8 * 1024 * 1024
LONGEST_CUSTOM_ID = 255
MOST_PROBLEMS = 100
ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings")
_NEEDED = {"/v1/chat/completions": "messages", "/v1/embeddings": "input"}
MOST_TEXT_LINES = 4 * MOST_LINES
"""Blank ones too: each of them costs time, and nobody needs that many."""
_DEEP = "invalid_request", f"this line is nested more than {DEEPEST} levels deep", None
_FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class Line:
    """A request of the input. `number` counts the file's lines from 1, blank ones too."""

    number: int
    custom_id: str
    body: JsonObject

    @property
    def model(self) -> str:
        return str(self.body["model"])


class Lines:
    """Cuts a content that comes in pieces into lines; `offset` is where the next one begins."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self._rest = bytearray()
        self.too_long = False

    def fed(self, piece: bytes) -> Iterator[bytes]:
        """The lines that end in `piece`, without their ends. Stops where one is longer than LONGEST_LINE."""
        self._rest += piece
        start = 0
        while (end := self._rest.find(b"\n", start)) >= 0:
            line = bytes(self._rest[start:end])
            self.offset += end + 1 - start
            start = end + 1
            if len(line) > LONGEST_LINE:
                self.too_long = True
                return
            yield line
        del self._rest[:start]
        self.too_long = len(self._rest) > LONGEST_LINE

    def last(self) -> bytes:
        """What comes after the last line's end."""
        self.offset += len(self._rest)
        return bytes(self._rest)


class Validation:
    """Judges an input line by line; `known` tells whether there is a model of that name."""

    def __init__(self, endpoint: str, known: Callable[[str], bool]) -> None:
        self.problems: list[BatchProblem] = []
        self.total = 0
        self.model: str | None = None
        self._endpoint = endpoint
        self._known = known
        self._models: dict[str, bool] = {}
        self._seen: set[str] = set()

    @property
    def full(self) -> bool:
        """No further problem would be told."""
        return len(self.problems) >= MOST_PROBLEMS

    def take(self, number: int, text: bytes) -> None:
        """A line that is not blank."""
        self.total += 1
        if self.total == MOST_LINES + 1:
            self.fault("too_many_requests", f"the file has more than {MOST_LINES} requests", None, number)
        if self.total <= MOST_LINES:
            self._judge(number, text)

    def _judge(self, number: int, text: bytes) -> None:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            self.fault("invalid_json_line", f"this line is not valid JSON: {error}", None, number)
            return
        problem = _DEEP if may_be_too_deep(text) and too_deep(value) else self._problem(value)
        if problem is not None:
            code, message, param = problem
            self.fault(code, message, param, number)
            return
        self._seen.add(value["custom_id"])
        self.model = self.model or value["body"]["model"]

    def fault(self, code: str, message: str, param: str | None, number: int | None) -> None:
        if not self.full:
            self.problems.append(BatchProblem(code=code, message=message, param=param, line=number))

    def ended(self) -> None:
        """There is no further line."""
        if self.total == 0 and not self.problems:
            self.fault("empty_file", "the input file has no requests", "input_file_id", None)

    def _problem(self, value: Any) -> tuple[str, str, str | None] | None:
        if not isinstance(value, dict):
            return "invalid_request", "a line is a JSON object", None
        missing = next((name for name in _FIELDS if value.get(name) is None), None)
        if missing is not None:
            return "missing_required_parameter", f"{missing} is missing", missing
        return self._of_envelope(value) or self._of_body(value["body"])

    def _of_envelope(self, value: JsonObject) -> tuple[str, str, str | None] | None:
        custom_id = value["custom_id"]
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_CUSTOM_ID:
            return "invalid_custom_id", f"custom_id is a text of 1 to {LONGEST_CUSTOM_ID} characters", "custom_id"
        if custom_id in self._seen:
            return "duplicate_custom_id", f"custom_id {custom_id!r} is that of an earlier line too", "custom_id"
        if value["method"] != "POST":
            return "invalid_method", "method must be POST", "method"
        if value["url"] != self._endpoint:
            return "mismatched_url", f"url must be the batch's endpoint, {self._endpoint}", "url"
        return None

    def _of_body(self, body: Any) -> tuple[str, str, str | None] | None:
        if not isinstance(body, dict):
            return "invalid_request", "body is a JSON object", "body"
        model, needed = body.get("model"), _NEEDED[self._endpoint]
        if not isinstance(model, str) or not model:
            return "missing_required_parameter", "body.model is missing", "body.model"
        if not body.get(needed):
            return "missing_required_parameter", f"body.{needed} is missing", f"body.{needed}"
        if body.get("stream"):
            return "unsupported_parameter", "answers of a batch cannot be streamed", "body.stream"
        if model not in self._models:
            self._models[model] = self._known(model)
        if not self._models[model]:
            return "model_not_found", f"there is no model named {model!r}", "body.model"
        return None


def line_of(number: int, text: bytes) -> Line:
    """A line that was found valid."""
    value = orjson.loads(text)
    return Line(number, value["custom_id"], value["body"])


_ENDED_AS = {
    BatchStatus.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    BatchStatus.CANCELLED: ("batch_cancelled", "This request was not executed, because the batch was cancelled."),
}
_TAKEN_AWAY = ("request_canceled", "The job of this request was canceled or deleted before it had a result.")


def is_answered(job: Job | None) -> bool:
    return job is not None and job.response_data is not None and job.failure is None


def result_line(batch_id: str, line: Line, job: Job | None, ending: BatchStatus) -> bytes:
    """What a request came to, with the line's end. `job` None: it was never made, or is gone."""
    named = f"{batch_id.removeprefix('batch_')}_{line.number}" if job is None else job.id
    shown: JsonObject = {"id": f"batch_req_{named}", "custom_id": line.custom_id, "response": None, "error": None}
    if job is not None and job.response_data is not None and job.failure is None:
        shown["response"] = {"status_code": 200, "request_id": job.id, "body": job.response_data}
    elif job is not None and job.status is JobState.ERROR_PROCESSING and job.failure is not None:
        shown |= _failed(job, job.failure)
    else:
        code, message = _ENDED_AS.get(ending, _TAKEN_AWAY)
        shown["error"] = {"code": code, "message": message}
    return orjson.dumps(shown) + b"\n"


def _failed(job: Job, failure: Failure) -> JsonObject:
    """Where a vendor answered, with its status and OpenAI's body of an error; else Metasync's own words."""
    complaint = failure.complaint
    code = (complaint.code if complaint is not None else None) or failure.error_type
    if failure.status is None:
        return {"error": {"code": code, "message": failure.message}}
    error = {
        "message": failure.message,
        "type": (complaint.type if complaint is not None else None) or "provider_error",
        "param": complaint.param if complaint is not None else None,
        "code": code,
    }
    return {"response": {"status_code": failure.status, "request_id": job.id, "body": {"error": error}}}
