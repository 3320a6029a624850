"""A client of a running service, as a benchmark needs one: with a prompt, a model, and jobs and workers in numbers."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any

from engine.jobs.states import JobState
from engine.records.store import Storage
from tests.support.api import ADMIN
from tests.support.service import PROVIDER_KEY, Replica

MODEL = "fake"
OPERATION = "benchmark"
BATCH = 1000
_MODEL = {
    "name": MODEL,
    "sdk": "OpenAI",
    "apiType": "chat",
    "apiVersion": "1",
    "deployment": "fake",
    "key": PROVIDER_KEY,
    "maxToken": 1000,
    "minTemperature": 0.0,
    "maxTemperature": 1.0,
    "cost": {"tokens": 1000, "currency": "USD", "input": 1.0, "output": 2.0},
}


class Account:
    """`headers` are the client's. `storage` looks behind the service's back."""

    def __init__(self, replicas: list[Replica], storage: Storage, openai_url: str) -> None:
        self.replicas = replicas
        self.storage = storage
        self.headers = dict(ADMIN)
        made = self.call("POST", "/clients", {"name": "benchmark"})
        self.client_id = str(made["clientId"])
        self.add_model(endpoint=openai_url)
        self.model = MODEL
        self.headers = {"client_id": self.client_id, "client_api_key": str(made["api_key"])}
        prompt = {"name": "p", "type": "SYSTEM", "status": "PUBLISHED", "prompt": "Answer as JSON.", "isPublic": False}
        self.prompt_id = str(self.call("POST", "/prompts", prompt)["promptId"])

    @property
    def replica(self) -> Replica:
        return self.replicas[0]

    @property
    def pid(self) -> int:
        return self.replica.pid

    def call(self, method: str, path: str, body: Any = None, at: int = 0) -> Any:
        """The body of an answer that must be a good one, from the replica of that number."""
        options = {} if body is None else {"json": body}
        answer = self.replicas[at].http.request(method, path, headers=self.headers, **options)
        if not answer.is_success:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    @contextmanager
    def plain(self, at: int = 0) -> Iterator[Callable[..., None]]:
        """`call` without reading the answer, over one connection: a richer client would measure itself."""
        url = self.replicas[at].http.base_url
        with closing(HTTPConnection(url.host, url.port, timeout=60)) as connection:

            def ask(method: str, path: str, body: Any = None) -> None:
                content = None if body is None else json.dumps(body)
                headers = self.headers if body is None else {**self.headers, "Content-Type": "application/json"}
                connection.request(method, path, content, headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status >= 300:
                    raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]!r}")

            yield ask

    def add_model(self, **fields: Any) -> None:
        """A model of everybody's, at OpenAI's by default."""
        body, self.headers, mine = {**_MODEL, **fields}, dict(ADMIN), self.headers
        self.call("POST", "/models", body)
        self.headers = mine

    def job(self) -> dict[str, Any]:
        """A job for POST /jobs."""
        return {
            "operation": OPERATION,
            "prompts": [self.prompt_id],
            "model": self.model,
            "temperature": 0.0,
            "priority": 5,
            "requestData": {"text": "a benchmark job, as long as a short sentence is"},
        }

    def post(self, count: int) -> None:
        """So many jobs."""
        for start in range(0, count, BATCH):
            self.call("POST", "/jobs/batch", {"jobs": [self.job()] * min(BATCH, count - start)})

    def hire(self, count: int, capacity: int, at: int = 0) -> list[str]:
        """Ids of workers that do not run yet."""
        config = {"pollInterval": 1, "maxItemsPerBatch": capacity}
        body = {"workerIdPrefix": f"w{at}", "count": count, "config": config}
        return [str(worker["workerId"]) for worker in self.call("POST", "/workers/batch", body, at)["created"]]

    def start(self, workers: list[str], at: int = 0) -> None:
        for worker in workers:
            self.call("POST", f"/workers/{worker}/start", at=at)

    def stop(self, workers: list[str], at: int = 0) -> None:
        for worker in workers:
            self.call("POST", f"/workers/{worker}/stop", at=at)

    def ended(self) -> int:
        """How many jobs have ended so far; raises where one has failed."""
        counts = self.call("GET", "/jobs/summary", at=len(self.replicas) - 1)
        if counts[JobState.ERROR_PROCESSING]:
            raise RuntimeError(f"{counts[JobState.ERROR_PROCESSING]} jobs failed")
        return int(counts[JobState.PROCESSED])

    def processed(self, count: int, begin: Callable[[], None], calls_came: Callable[[], object]) -> float:
        """Seconds from `begin` until `count` further jobs are settled. Asks only once `calls_came` is true."""
        before = self.ended()
        started = time.monotonic()
        begin()
        _wait(calls_came, 0.02)
        _wait(lambda: self.ended() >= before + count, 0.005)
        return time.monotonic() - started


def _wait(done: Callable[[], object], every: float, within: float = 300.0) -> None:
    deadline = time.monotonic() + within
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the jobs did not end within {within:g} seconds")
        time.sleep(every)
