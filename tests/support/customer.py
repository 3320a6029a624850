"""Someone with a client, a prompt, a model at the fake provider and workers: all made over REST, at any replica."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from engine.jobs.job import Job
from engine.jobs.states import JobState
from engine.records.store import Storage
from tests.support.api import ADMIN
from tests.support.backends import Database
from tests.support.fake_provider import FakeProvider
from tests.support.rig import ENDED
from tests.support.service import PROVIDER_KEY, Replica, fleet
from tests.support.waiting import eventually

MODEL = "fake"


class Customer:
    """`accepted` are the ids of all jobs whose posting was acknowledged. `storage` looks behind the service's back."""

    def __init__(self, replica: Replica, storage: Storage, fake: FakeProvider) -> None:
        self.storage = storage
        self.fake = fake
        self.accepted: list[str] = []
        self._headers = dict(ADMIN)
        made = self.call(replica, "POST", "/clients", {"name": "customer"})
        self.client_id = str(made["clientId"])
        self.call(replica, "POST", "/models", _model(fake.openai_url))
        self._headers = {"client_id": self.client_id, "client_api_key": made["api_key"]}
        prompt = {"name": "p", "type": "SYSTEM", "status": "PUBLISHED", "prompt": "Answer as JSON.", "isPublic": False}
        self._prompt = self.call(replica, "POST", "/prompts", prompt)["promptId"]

    @property
    def headers(self) -> dict[str, str]:
        return dict(self._headers)

    def call(self, replica: Replica, method: str, path: str, body: Any = None) -> Any:
        """The body of an answer that must be a good one."""
        options = {} if body is None else {"json": body}
        answer = replica.http.request(method, path, headers=self._headers, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def employ(self, replica: Replica, capacity: int = 10) -> str:
        """The id of a new worker that shall run from now on."""
        config = {"pollInterval": 1, "maxItemsPerBatch": capacity}
        worker = str(self.call(replica, "POST", "/workers", {"workerId": "w", "config": config})["workerId"])
        self.call(replica, "POST", f"/workers/{worker}/start")
        return worker

    @property
    def evaluated(self) -> dict[str, str]:
        """The fields of a job whose result is evaluated in a call of its own."""
        return {"evalPrompt": self._prompt, "evalModel": MODEL}

    def body(self, text: str, **fields: Any) -> dict[str, Any]:
        """A job for POST /jobs."""
        return {
            "operation": "test",
            "prompts": [self._prompt],
            "model": MODEL,
            "temperature": 0.0,
            "priority": 5,
            "requestData": {"text": text},
            **fields,
        }

    def post(self, replica: Replica, *texts: str, **fields: Any) -> list[str]:
        """One job per text, in one request; their ids."""
        made = self.call(replica, "POST", "/jobs/batch", {"jobs": [self.body(text, **fields) for text in texts]})
        ids = [str(job["jobId"]) for job in made]
        assert len(ids) == len(texts)
        self.accepted += ids
        return ids

    def post_until_it_breaks(self, replica: Replica, enough: threading.Event, at_least: int = 20) -> list[str]:
        """Posts one job after another until a connection breaks; the ids of those that were acknowledged."""
        acknowledged: list[str] = []
        with httpx.Client(base_url=replica.http.base_url, timeout=20, trust_env=False) as http:
            while True:
                body = self.body(f"job {len(acknowledged)}")
                try:
                    answer = http.post("/jobs", json=body, headers=self._headers)
                except httpx.TransportError:
                    return acknowledged
                assert answer.status_code == 201, answer.text
                acknowledged.append(str(answer.json()["jobId"]))
                if len(acknowledged) >= at_least:
                    enough.set()

    def job(self, job_id: str) -> Job:
        found = self.storage.jobs.get(job_id)
        assert found is not None, f"job {job_id} was accepted and is not there"
        return found

    def jobs(self, ids: Sequence[str] | None = None) -> list[Job]:
        """Accepted jobs, all of which must be there."""
        wanted = self.accepted if ids is None else ids
        found = self.storage.jobs.get_many(wanted)
        assert set(found) == set(wanted)
        return [found[job_id] for job_id in wanted]

    def statuses(self, ids: Sequence[str]) -> set[JobState]:
        return {job.status for job in self.jobs(ids)}

    def wait(self, ids: Sequence[str] | None = None, within: float = 40.0) -> list[Job]:
        """The jobs, all accepted ones by default, once every one of them has ended."""

        def ended() -> list[Job] | None:
            jobs = self.jobs(ids)
            return jobs if all(job.status in ENDED for job in jobs) else None

        return eventually(ended, within=within, what="all jobs ended")


@contextmanager
def serving(
    database: Database, folder: Path, replicas: int = 1, **settings: object
) -> Iterator[tuple[Customer, list[Replica]]]:
    """A customer and the replicas that serve it, all gone when the block ends. `settings` hold for each replica."""
    with FakeProvider() as fake, fleet(database.url, database.name, folder, **settings) as launched:
        running = launched.launch(replicas)
        yield Customer(running[0], database.open(), fake), running


def pid_of(owner: str) -> int:
    """The process that a lease's owner, worker@host-pid-random, names."""
    return int(owner.rsplit("-", 2)[1])


def _model(url: str) -> dict[str, Any]:
    return {
        "name": MODEL,
        "sdk": "OpenAI",
        "endpoint": url,
        "apiType": "chat",
        "apiVersion": "1",
        "deployment": "fake",
        "key": PROVIDER_KEY,
        "minTemperature": 0.0,
        "maxTemperature": 1.0,
        "cost": {"tokens": 1000, "currency": "USD", "input": 1.0, "output": 2.0},
    }
