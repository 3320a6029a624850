"""The whole HTTP application over a real storage, called in this process."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import build_api
from api.services.wiring import Services, build_services
from api.settings import ApiSettings
from engine.batches.assembly import Batches, build_batches
from engine.jobs.signals import JobSignals
from engine.llm import Provider, ProviderRegistry, Timeouts
from engine.records.store import Storage
from engine.records.values import Worker, WorkerLease
from llm_optimizer.assembly import Optimizer, build_optimizer
from llm_optimizer.subject import Subjects
from llm_workers.catalogue import Catalogue
from llm_workers.lanes import Lanes
from llm_workers.model_states import LaneStates
from llm_workers.providers.registry import ProviderSet, Registry
from llm_workers.providers.scripted import ScriptedProvider
from llm_workers.streaming import Streaming, StreamTerms
from llm_workers.trials import Trials
from llm_workers.wallets import Wallets
from tests.support.runs import Runs, inline
from utilities.clock import Clock, SystemClock
from utilities.ids import ObjectIds
from utilities.secrets import ProviderSecrets

ADMIN_KEY = "the-admin-key-of-the-tests"
PEPPER = "the-pepper-of-the-tests"
DOCS_USER = "reader"
DOCS_SECRET = "the-docs-secret-of-the-tests"
ADMIN = {"admin_api_key": ADMIN_KEY}
TRIAL_TIMEOUTS = Timeouts(connect=1.0, read=1.0, total=2.0)
MOST_BODY_BYTES = 8 * 1024 * 1024
MOST_DIRECT = 100

Headers = dict[str, str]


class RecordingControl:
    """A WorkerControl that places workers on a replica named `here`. `nudges` counts; `nudged` wakes who waits."""

    def __init__(self) -> None:
        self.nudges = 0
        self.nudged = threading.Event()

    def placed(self, worker: Worker, now: datetime) -> Worker:
        lease = WorkerLease("here", now + timedelta(seconds=15))
        return replace(worker, lease=lease, thread_id="llm-worker-1", started_at=now)

    def nudge(self) -> None:
        self.nudges += 1
        self.nudged.set()


@dataclass
class Api:
    """One replica's HTTP side. `signals` is what its workers would listen to, `lanes` what their calls would take.

    `runs` are jobs that callers wait for. `optimizer` and `batches` drive nothing until they are started.
    """

    http: TestClient
    app: FastAPI
    services: Services
    storage: Storage
    control: RecordingControl
    signals: JobSignals
    clock: Clock
    lanes: Lanes
    runs: Runs
    optimizer: Optimizer
    batches: Batches
    admin: Headers = field(default_factory=lambda: dict(ADMIN))

    def new_client(self, name: str = "a client") -> Headers:
        """A client made over HTTP; answers the headers it calls with."""
        answer = self.http.post("/clients", json={"name": name}, headers=self.admin)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        return {"client_id": made["clientId"], "client_api_key": made["api_key"]}

    def new_prompt(self, headers: Headers, **fields: Any) -> dict[str, Any]:
        """A prompt of the client with these headers, or a public one with `isPublic` and an admin's."""
        body = {"name": "summary", "type": "SYSTEM", "status": "PUBLISHED", "prompt": "Summarize.", **fields}
        answer = self.http.post("/prompts", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def new_model(self, **fields: Any) -> dict[str, Any]:
        """A model of the `test` provider, named gpt-test."""
        answer = self.http.post("/models", json=model_body(**fields), headers=self.admin)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


def model_body(**fields: Any) -> dict[str, Any]:
    """A valid body for POST /models."""
    return {
        "name": "gpt-test",
        "sdk": "test",
        "endpoint": "http://127.0.0.1:1",
        "apiType": "chat",
        "apiVersion": "1",
        "deployment": "gpt-test",
        "key": "GPT_TEST",
        "minTemperature": 0.0,
        "maxTemperature": 1.0,
        "cost": {"tokens": 1_000_000, "currency": "USD", "input": 2.5, "output": 10.0},
        **fields,
    }


class HastyRegistry(Registry):
    """The providers, of which `test` streams without its pauses."""

    def create(self, sdk: str, transport: Any) -> Provider:
        return ScriptedProvider(transport, pause=_none) if sdk == "test" else super().create(sdk, transport)


async def _none(_seconds: float) -> None:
    """No pause."""


def _catalogue(storage: Storage, clock: Clock) -> Catalogue:
    return Catalogue(
        models=storage.models,
        prompts=storage.prompts,
        evaluators=storage.evaluators,
        hop=inline,
        clock=clock,
        seconds=0.0,
    )


def _trials(storage: Storage, clock: Clock, secrets: ProviderSecrets) -> Trials:
    return Trials(
        providers=ProviderSet(Registry()),
        models=_catalogue(storage, clock).models,
        secrets=secrets,
        clock=clock,
        ids=ObjectIds(),
        hop=inline,
        timeouts=TRIAL_TIMEOUTS,
    )


def new_streaming(
    storage: Storage,
    clock: Clock,
    *,
    lanes: Lanes | None = None,
    secrets: ProviderSecrets | None = None,
    registry: Registry | None = None,
) -> Streaming:
    """What the event loop that it is first used on streams by; to be closed there."""
    return Streaming(
        StreamTerms(replica="here"),
        store=storage.streams,
        providers=ProviderSet(registry or HastyRegistry()),
        catalogue=_catalogue(storage, clock),
        secrets=secrets or ProviderSecrets({}),
        clock=clock,
        hop=inline,
        lanes=lanes or Lanes(storage, clock=clock, hop=inline, replica="here"),
        wallets=Wallets(storage, clock=clock, hop=inline, replica="here"),
        timeouts=TRIAL_TIMEOUTS,
    )


def _optimizer(storage: Storage, signals: JobSignals, clock: Clock, subjects: Subjects | None) -> Optimizer:
    return build_optimizer(
        storage, signals=signals, clock=clock, ids=ObjectIds(), replica="here", subjects=subjects, poll=0.2
    )


def _settings(most_body_bytes: int) -> ApiSettings:
    return ApiSettings(
        docs_user=DOCS_USER,
        docs_secret=DOCS_SECRET,
        admin_key=ADMIN_KEY,
        pepper=PEPPER,
        database="metasync-test",
        max_body_bytes=most_body_bytes,
    )


@contextmanager
def running_api(
    storage: Storage,
    *,
    clock: Clock | None = None,
    registry: ProviderRegistry | None = None,
    environment: Mapping[str, str] | None = None,
    most_body_bytes: int = MOST_BODY_BYTES,
    most_direct: int = MOST_DIRECT,
    subjects: Subjects | None = None,
) -> Iterator[Api]:
    """The application over `storage`, which stays the caller's; several of them are several replicas.

    Models find their keys in `environment`.
    """
    control, signals, clock = RecordingControl(), JobSignals(), clock or SystemClock()
    secrets = ProviderSecrets(environment or {})
    trials = _trials(storage, clock, secrets)
    lanes = Lanes(storage, clock=clock, hop=inline, replica="here")
    streaming = new_streaming(storage, clock, lanes=lanes, secrets=secrets)
    runs = Runs(storage, signals=signals, clock=clock, lanes=lanes, environment=environment or {}, most=most_direct)
    batches = build_batches(storage, signals=signals, clock=clock, ids=ObjectIds(), replica="here", poll=0.2)
    optimizer = _optimizer(storage, signals, clock, subjects)
    services = build_services(
        storage=storage,
        registry=registry or Registry(),
        control=control,
        trials=trials,
        live=streaming,
        states=LaneStates(lanes, storage, clock=clock, replica="here"),
        runs=runs.port,
        optimizer=optimizer,
        wake_batches=batches.wake,
        signals=signals,
        clock=clock,
        ids=ObjectIds(),
        admin_key=ADMIN_KEY,
        pepper=PEPPER,
    )
    app = build_api(services, _settings(most_body_bytes), None)
    with TestClient(app, raise_server_exceptions=False) as http:
        yield Api(http, app, services, storage, control, signals, clock, lanes, runs, optimizer, batches)
        assert http.portal is not None
        http.portal.call(streaming.aclose)
        http.portal.call(trials.aclose)
    optimizer.close()
    batches.close()
    runs.close()
    services.close()
