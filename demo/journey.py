"""What a newcomer does over REST, in order: client, prompt, model, worker, jobs, results."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from demo.provider import MODEL_NAME, Choice

TEXTS = Path(__file__).with_name("texts.jsonl")
OPERATION = "describe"
PROMPT = """\
You are given a short text: a product review, a support ticket or a passage from a book.
Answer with one JSON object and nothing else:
{"topic": "at most four words", "mood": "positive, neutral or negative", "summary": "one short sentence"}"""
FINAL = ("PROCESSED", "CONSUMED", "ERROR_PROCESSING", "ERROR_CONSUMING", "CANCELED")
POLL_SECONDS = 0.1

Json = dict[str, Any]


class Refused(Exception):
    """The service answered a request with an error; the text says which and why."""

    def __init__(self, response: httpx.Response) -> None:
        request = response.request
        super().__init__(
            f"{request.method} {request.url.path} was answered {response.status_code}: {response.text[:500]}"
        )
        self.status = response.status_code


def read_texts(path: Path = TEXTS, limit: int | None = None) -> list[Json]:
    """The texts of a JSON Lines file: objects with id, kind, text and source."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()][:limit]


class Journey:
    """One client's way through the service. Raises Refused, and httpx.TransportError when the service is gone."""

    def __init__(self, url: str, admin_key: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self._admin = {"admin_api_key": admin_key}
        self._client: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def prepare(self, choices: Sequence[Choice]) -> tuple[str, Choice]:
        """Creates client, prompt, model and a started worker. Answers the prompt's id and the provider in use."""
        client = self._post("/clients", {"name": "demo"}, self._admin)
        self._client = {"client_id": client["clientId"], "client_api_key": client["api_key"]}
        prompt = self._post(
            "/prompts",
            {"name": OPERATION, "type": "system", "status": "PUBLISHED", "prompt": PROMPT, "isPublic": False},
            self._client,
        )
        choice = self._create_model(choices)
        config = {"pollInterval": 1, "maxItemsPerBatch": 50, "operationFilter": OPERATION}
        worker = self._post("/workers", {"workerId": "demo-worker", "config": config}, self._client)
        self._post(f"/workers/{worker['workerId']}/start", None, self._client)
        return prompt["promptId"], choice

    def _create_model(self, choices: Sequence[Choice]) -> Choice:
        *others, last = choices
        for choice in others:
            try:
                self._post("/models", choice.body(), self._admin)
            except Refused as error:
                if error.status != 422:
                    raise
            else:
                return choice
        self._post("/models", last.body(), self._admin)
        return last

    def enqueue(self, prompt_id: str, texts: Sequence[Json]) -> None:
        """Posts one job per text, all in one request."""
        jobs = [
            {
                "operation": OPERATION,
                "prompts": [prompt_id],
                "model": MODEL_NAME,
                "temperature": 0.2,
                "priority": 100,
                "id": text["id"],
                "requestData": {"text": text["text"]},
                "clientReference": {"kind": text["kind"]},
            }
            for text in texts
        ]
        self._post("/jobs/batch", {"jobs": jobs}, self._client)

    def summaries(self) -> Iterator[Json]:
        """The counts per status again and again, until every job is in a final one."""
        while True:
            summary = self._get("/jobs/summary", operation=OPERATION)
            yield summary
            if sum(summary[status] for status in FINAL) >= summary["total"]:
                return
            time.sleep(POLL_SECONDS)

    def jobs(self, status: str, limit: int) -> list[Json]:
        """Up to `limit` jobs of a status, oldest first."""
        found: list[Json] = self._get("/jobs", status=status, limit=limit)
        return found

    def explain_one_waiting(self) -> str:
        """The service's own explanation of why a waiting job waits."""
        waiting = self.jobs("PENDING", 1) + self.jobs("PROCESSING", 1)
        return json.dumps(self._get(f"/jobs/{waiting[0]['jobId']}/explain"), indent=2) if waiting else "nothing waits"

    def _get(self, path: str, **query: Any) -> Any:
        return self._answer(self._http.get(path, params=query, headers=self._client))

    def _post(self, path: str, body: Json | None, headers: dict[str, str]) -> Any:
        return self._answer(self._http.post(path, json=body, headers=headers))

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        if response.is_error:
            raise Refused(response)
        return response.json()
