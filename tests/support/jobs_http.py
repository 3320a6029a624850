"""What tests of jobs over HTTP share: a client with a prompt and a model, and the bodies it sends."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import httpx

from engine.jobs.job import Job
from engine.jobs.queue import ClaimFilter, ClaimRequest
from tests.support.api import Api, Headers

T = TypeVar("T")


@dataclass(frozen=True)
class Shop:
    """One client that can post jobs: `prompt` is its own, `model` anybody's."""

    api: Api
    headers: Headers
    prompt: str
    model: str

    @property
    def client_id(self) -> str:
        return self.headers["client_id"]

    def body(self, **fields: Any) -> dict[str, Any]:
        """A valid body for POST /jobs; a field given as None is left out."""
        values = {
            "operation": "summarize",
            "prompts": [self.prompt],
            "model": self.model,
            "temperature": 0.5,
            "priority": 5,
            "requestData": {"text": "hello"},
            **fields,
        }
        return {name: value for name, value in values.items() if value is not None}

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        if body is not None:
            options["json"] = body
        return self.api.http.request(method, path, headers=headers, **options)

    def as_admin(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """The same by an admin, who names nobody."""
        return self.api.http.request(method, path, headers=self.api.admin, **({} if body is None else {"json": body}))

    def post(self, **fields: Any) -> dict[str, Any]:
        """A new job, as it was answered."""
        answer = self.call("POST", "/jobs", self.body(**fields))
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def get(self, job_id: str) -> dict[str, Any]:
        answer = self.call("GET", f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def bring_to(self, status: str, **fields: Any) -> str:
        """The id of a new job in that status, brought there by the ways the contract has."""
        job_id = str(self.post(**fields)["jobId"])
        for surface, wanted in WAYS[status]:
            answer = self.call("PATCH", f"/jobs/{job_id}{surface}", {"status": wanted})
            assert answer.status_code == 200, answer.text
        return job_id

    def claim(self, owner: str = "worker@replica", seconds: float = 60.0) -> list[Job]:
        """What a worker of this client claims now."""
        now = self.api.clock.now()
        wanted = ClaimFilter(client_id=self.client_id)
        request = ClaimRequest(filter=wanted, owner=owner, expires_at=now + timedelta(seconds=seconds), limit=100)
        return self.api.storage.jobs.claim(request, now)


_CLAIM, _COMPLETE = ("/full", "PROCESSING"), ("/full", "PROCESSED")
WAYS: dict[str, list[tuple[str, str]]] = {
    "PENDING": [],
    "PROCESSING": [_CLAIM],
    "PROCESSED": [_CLAIM, _COMPLETE],
    "CONSUMED": [_CLAIM, _COMPLETE, ("", "CONSUMED")],
    "ERROR_PROCESSING": [_CLAIM, ("/full", "ERROR_PROCESSING")],
    "ERROR_CONSUMING": [_CLAIM, _COMPLETE, ("", "ERROR_CONSUMING")],
    "CANCELED": [("", "CANCELED")],
}
STATUSES = tuple(WAYS)


def open_shop(api: Api) -> Shop:
    """A new client with a private prompt of its own; the model is made when it is missing."""
    headers = api.new_client()
    models = {model["name"] for model in api.http.get("/models", headers=api.admin).json()}
    if "gpt-test" not in models:
        api.new_model()
    return Shop(api, headers, str(api.new_prompt(headers)["_id"]), "gpt-test")


def together(count: int, act: Callable[[int], T]) -> list[T]:
    """The results of `act(0)` to `act(count - 1)`, run at the same time."""
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(act, range(count)))
