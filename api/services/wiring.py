"""All services, built over given ports."""

from collections.abc import Callable
from dataclasses import dataclass

from api.core.authentication import Authenticator
from api.core.gate import Gate
from api.services.batches import BatchService
from api.services.clients import ClientService
from api.services.data import DataServices, build_data
from api.services.direct import DirectService
from api.services.explain import Explainer
from api.services.files import FileService
from api.services.flow_canaries import FlowCanaries
from api.services.health import HealthService
from api.services.idempotency import IdempotencyKeys
from api.services.jobs import JobService
from api.services.jobs_intake import JobIntake
from api.services.model_states import ModelStateService
from api.services.model_trials import ModelTrialService
from api.services.models import ModelService
from api.services.openai_calls import OpenAiCalls
from api.services.prompt_flows import PromptFlowService
from api.services.prompts import PromptService
from api.services.references import Catalogue
from api.services.runs import RunService
from api.services.stream_keys import StreamKeys
from api.services.streams import StreamService
from api.services.usage import UsageService
from api.services.waits import Waits
from api.services.workers import WorkerService
from engine.budgets import Budgets
from engine.jobs.signals import JobSignals
from engine.llm import ProviderRegistry
from engine.records.control import DirectRuns, LiveStreams, ModelStates, ModelTrials, RunControl, WorkerControl
from engine.records.store import Storage
from utilities.clock import Clock
from utilities.ids import ObjectIds
from utilities.keys import KeyHasher


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What routes work with. Services are synchronous and called through the gate, unless they say otherwise."""

    gate: Gate
    authenticator: Authenticator
    clock: Clock
    health: HealthService
    clients: ClientService
    models: ModelService
    model_states: ModelStateService
    model_trials: ModelTrialService
    prompts: PromptService
    prompt_flows: PromptFlowService
    jobs: JobService
    intake: JobIntake
    direct: DirectService
    openai_calls: OpenAiCalls
    explainer: Explainer
    waits: Waits
    workers: WorkerService
    usage: UsageService
    streams: StreamService
    runs: RunService
    files: FileService
    batches: BatchService
    data: DataServices

    def close(self) -> None:
        """Ends what the services opened themselves; storage and pool are their owner's."""
        self.gate.close()
        self.data.close()


def build_services(
    *,
    storage: Storage,
    registry: ProviderRegistry,
    control: WorkerControl,
    trials: ModelTrials,
    states: ModelStates,
    live: LiveStreams,
    runs: DirectRuns,
    optimizer: RunControl,
    wake_batches: Callable[[str | None], None],
    signals: JobSignals,
    clock: Clock,
    ids: ObjectIds,
    admin_key: str,
    pepper: str,
) -> Services:
    """Services for one event loop. Nothing is opened but threads, and those on first use."""
    gate = Gate(storage.jobs)
    authenticator = Authenticator(storage.clients, KeyHasher(pepper), admin_key, gate, clock)
    catalogue = Catalogue(storage.models, storage.prompts, storage.evaluators, clock)
    intake = JobIntake(storage.jobs, storage.prompt_flows, catalogue, signals=signals, clock=clock, ids=ids)
    explainer, waits = _explaining(storage, states, clock)
    files = FileService(storage.files, storage.contents, storage.batches, storage.jobs, clock=clock, ids=ids)
    direct = DirectService(runs, intake, explainer, gate, queue=storage.jobs, signals=signals, clock=clock)
    return Services(
        gate=gate,
        authenticator=authenticator,
        clock=clock,
        health=HealthService(storage.ping, registry, gate),
        clients=_clients(storage, control, KeyHasher(pepper), authenticator, clock),
        models=(models := ModelService(storage.models, registry, clock=clock, ids=ids, forget=catalogue.forget)),
        model_states=ModelStateService(models, states),
        model_trials=ModelTrialService(models, trials, gate),
        prompts=PromptService(storage.prompts, storage.clients, clock=clock, ids=ids, forget=catalogue.forget),
        prompt_flows=_flows(storage, clock, ids),
        jobs=JobService(storage.jobs, catalogue, signals, clock),
        intake=intake,
        direct=direct,
        openai_calls=OpenAiCalls(direct, runs, gate, queue=storage.jobs, signals=signals, clock=clock),
        explainer=explainer,
        waits=waits,
        usage=UsageService(storage.usage),
        files=files,
        batches=BatchService(storage.batches, files, storage.jobs, waits, wake=wake_batches, clock=clock, ids=ids),
        runs=RunService(storage.runs, optimizer, catalogue, clock=clock, ids=ids),
        data=build_data(storage, catalogue, direct, gate, wake=optimizer.wake_evaluation, clock=clock, ids=ids),
        streams=_streams(storage, live, catalogue, clock, ids),
        workers=WorkerService(storage.workers, storage.clients, control, Budgets(storage), clock=clock, ids=ids),
    )


def _explaining(storage: Storage, states: ModelStates, clock: Clock) -> tuple[Explainer, Waits]:
    explainer = Explainer(storage, states, clock)
    return explainer, Waits(storage.jobs, explainer)


def _streams(storage: Storage, live: LiveStreams, catalogue: Catalogue, clock: Clock, ids: ObjectIds) -> StreamService:
    keys = StreamKeys(storage.streams, IdempotencyKeys(storage.jobs), clock)
    return StreamService(storage.streams, storage.prompt_flows, live, catalogue, keys, clock=clock, ids=ids)


def _flows(storage: Storage, clock: Clock, ids: ObjectIds) -> PromptFlowService:
    canaries = FlowCanaries(storage.prompts, storage.evaluators, clock=clock, ids=ids)
    return PromptFlowService(storage.prompt_flows, canaries, clock=clock, ids=ids)


def _clients(
    storage: Storage, control: WorkerControl, hasher: KeyHasher, authenticator: Authenticator, clock: Clock
) -> ClientService:
    return ClientService(
        storage.clients,
        storage.workers,
        control,
        Budgets(storage),
        hasher=hasher,
        clock=clock,
        forget=authenticator.forget,
    )
