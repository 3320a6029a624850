"""Clients, models, prompts, prompt flows and workers to documents and back.

A `Kind` says all a back-end needs to know of one kind of record: its collection, its unique key and its two
translations. `uniqueKey` is stored on every document; a deleted record's gives way to one nobody else can have.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, Protocol, TypeVar

import orjson

from engine.errors import StorageCorrupt
from engine.metadata import Metadata
from engine.pricing import Prices
from engine.records.canaries import DEFAULT_SAMPLE
from engine.records.values import (
    Budget,
    BudgetPeriod,
    Client,
    Limits,
    Lineage,
    Model,
    Money,
    Prompt,
    PromptFlow,
    PromptStatus,
    Strategy,
    Target,
    Worker,
    WorkerConfig,
    WorkerLease,
    WorkerScope,
    WorkerStatus,
)
from engine.storage.canary_codec import canary_from_document, canary_to_document
from engine.storage.codec import (
    Document,
    certain_instant,
    instant,
    lease_from_document,
    lease_to_document,
    metadata_from_document,
    metadata_to_document,
)


class Record(Protocol):
    """What all records share."""

    @property
    def id(self) -> str: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def revision(self) -> int: ...


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[R]):
    """`collection` is the stored name, `noun` what errors call it; `indexed` are further fields queried by equality."""

    collection: str
    noun: str
    indexed: tuple[str, ...]
    unique_key: Callable[[R], str]
    encode: Callable[[R], Document]
    decode: Callable[[Mapping[str, Any]], R]

    def to_document(self, record: R) -> Document:
        """The whole stored form, with `_id`, `uniqueKey`, `revision` and `_metadata`."""
        deleted = record.metadata.is_deleted
        return {
            "_id": record.id,
            "uniqueKey": f"deleted:{record.id}" if deleted else self.unique_key(record),
            "revision": record.revision,
            **self.encode(record),
            "_metadata": metadata_to_document(record.metadata),
        }

    def from_document(self, document: Mapping[str, Any]) -> R:
        """Raises StorageCorrupt naming the document where it cannot be read."""
        try:
            return self.decode(document)
        except (KeyError, TypeError, ValueError) as error:
            raise StorageCorrupt(f"{self.noun} {document.get('_id')} cannot be read: {error!r}") from error


def _common(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(document["_id"]),
        "metadata": metadata_from_document(document["_metadata"]),
        "revision": document["revision"],
    }


def _encode_money(money: Money | None) -> Document | None:
    """As text, like prices: an amount is compared and shown, never added up by a database."""
    return None if money is None else {"amount": str(money.amount), "currency": money.currency}


def _decode_money(document: Mapping[str, Any] | None) -> Money | None:
    return None if document is None else Money(Decimal(document["amount"]), document["currency"])


def _encode_budget(budget: Budget | None) -> Document | None:
    return None if budget is None else {"limit": _encode_money(budget.limit), "period": str(budget.period)}


def _decode_budget(document: Mapping[str, Any] | None) -> Budget | None:
    limit = None if document is None else _decode_money(document["limit"])
    return None if document is None or limit is None else Budget(limit, BudgetPeriod(document["period"]))


def _encode_client(client: Client) -> Document:
    return {
        "name": client.name,
        "enabled": client.enabled,
        "keyLookup": client.key_lookup,
        "keySalt": client.key_salt,
        "keyHash": client.key_hash,
        "budget": _encode_budget(client.budget),
    }


def _decode_client(document: Mapping[str, Any]) -> Client:
    return Client(
        name=document["name"],
        enabled=document["enabled"],
        key_lookup=document["keyLookup"],
        key_salt=document["keySalt"],
        key_hash=document["keyHash"],
        budget=_decode_budget(document.get("budget")),
        **_common(document),
    )


def _encode_model(model: Model) -> Document:
    return {
        "name": model.name,
        "sdk": model.sdk,
        "endpoint": model.endpoint,
        "apiType": model.api_type,
        "apiVersion": model.api_version,
        "deployment": model.deployment,
        "service": model.service,
        "key": model.key,
        "maxToken": model.max_token,
        "maxCompletionToken": model.max_completion_token,
        "minTemperature": model.min_temperature,
        "maxTemperature": model.max_temperature,
        "cost": {
            "tokens": model.prices.tokens,
            "currency": model.prices.currency,
            "input": str(model.prices.input),
            "output": str(model.prices.output),
            "cachedInput": None if model.prices.cached_input is None else str(model.prices.cached_input),
        },
        **_encode_routes(model),
    }


def _encode_routes(model: Model) -> Document:
    return {
        "limits": {
            "requestsPerMinute": model.limits.requests_per_minute,
            "tokensPerMinute": model.limits.tokens_per_minute,
            "concurrency": model.limits.concurrency,
        },
        "fallbacks": list(model.fallbacks),
        "fallbackAfter": model.fallback_after,
        "targets": [{"model": target.model, "weight": target.weight} for target in model.targets],
        "strategy": str(model.strategy),
    }


def _decode_model(document: Mapping[str, Any]) -> Model:
    cost = {"cachedInput": None, **document["cost"]}
    cached = cost["cachedInput"]
    return Model(
        name=document["name"],
        sdk=document["sdk"],
        endpoint=document["endpoint"],
        api_type=document["apiType"],
        api_version=document["apiVersion"],
        deployment=document["deployment"],
        service=document["service"],
        key=document["key"],
        max_token=document["maxToken"],
        max_completion_token=document["maxCompletionToken"],
        min_temperature=document["minTemperature"],
        max_temperature=document["maxTemperature"],
        prices=Prices(
            tokens=cost["tokens"],
            currency=cost["currency"],
            input=Decimal(cost["input"]),
            output=Decimal(cost["output"]),
            cached_input=None if cached is None else Decimal(cached),
        ),
        **_decode_routes(document),
        **_common(document),
    )


def _decode_routes(document: Mapping[str, Any]) -> dict[str, Any]:
    """Models that were stored before there were limits and routes have none."""
    limits = document.get("limits", {})
    return {
        "limits": Limits(
            requests_per_minute=limits.get("requestsPerMinute"),
            tokens_per_minute=limits.get("tokensPerMinute"),
            concurrency=limits.get("concurrency"),
        ),
        "fallbacks": tuple(document.get("fallbacks", ())),
        "fallback_after": document.get("fallbackAfter"),
        "targets": tuple(Target(target["model"], target["weight"]) for target in document.get("targets", ())),
        "strategy": Strategy(document.get("strategy", Strategy.WEIGHTED)),
    }


def _encode_prompt(prompt: Prompt) -> Document:
    return {
        "name": prompt.name,
        "version": prompt.version,
        "type": prompt.type,
        "status": str(prompt.status),
        "prompt": prompt.text,
        "clientId": prompt.client_id,
        "isPublic": prompt.is_public,
        "lineage": _encode_lineage(prompt.lineage),
    }


def _encode_lineage(lineage: Lineage | None) -> Document | None:
    if lineage is None:
        return None
    return {"parentId": lineage.parent_id, "runId": lineage.run_id, "step": lineage.step}


def _decode_lineage(document: Mapping[str, Any] | None) -> Lineage | None:
    if document is None:
        return None
    return Lineage(parent_id=document["parentId"], run_id=document["runId"], step=document["step"])


def _decode_prompt(document: Mapping[str, Any]) -> Prompt:
    return Prompt(
        name=document["name"],
        version=document["version"],
        type=document["type"],
        status=PromptStatus(document["status"]),
        text=document["prompt"],
        client_id=document["clientId"],
        is_public=document["isPublic"],
        lineage=_decode_lineage(document.get("lineage")),
        **_common(document),
    )


def _prompt_key(prompt: Prompt) -> str:
    scope = None if prompt.is_public else prompt.client_id
    return orjson.dumps([scope, prompt.name, prompt.type, prompt.version]).decode()


def _encode_flow(flow: PromptFlow) -> Document:
    return {
        "name": flow.name,
        "promptIds": list(flow.prompt_ids),
        "clientId": flow.client_id,
        "isPublic": flow.is_public,
        "canaryOpen": flow.canary_open,
        "canaries": [canary_to_document(canary) for canary in flow.canaries],
        "canaryEvaluator": flow.canary_evaluator,
        "canarySample": flow.canary_sample,
        "lease": lease_to_document(flow.lease),
    }


def _decode_flow(document: Mapping[str, Any]) -> PromptFlow:
    """Flows that were stored before there were canaries have none."""
    return PromptFlow(
        name=document["name"],
        prompt_ids=tuple(document["promptIds"]),
        client_id=document["clientId"],
        is_public=document["isPublic"],
        canaries=tuple(canary_from_document(each) for each in document.get("canaries", ())),
        canary_evaluator=document.get("canaryEvaluator"),
        canary_sample=document.get("canarySample", DEFAULT_SAMPLE),
        lease=lease_from_document(document.get("lease")),
        **_common(document),
    )


def _encode_worker(worker: Worker) -> Document:
    config = worker.config
    filters = config.client_reference_filters
    lease = worker.lease
    return {
        "name": worker.name,
        "clientId": worker.client_id,
        "scope": str(worker.scope),
        "status": str(worker.status),
        "config": {
            "pollInterval": config.poll_interval,
            "maxItemsPerBatch": config.max_items_per_batch,
            "modelFilter": config.model_filter,
            "operationFilter": config.operation_filter,
            "clientReferenceFilters": None if filters is None else orjson.dumps(dict(filters)).decode(),
            "maxCost": _encode_money(config.max_cost),
        },
        "group": worker.group,
        "lease": None if lease is None else {"owner": lease.owner, "expiresAt": lease.expires_at},
        "threadId": worker.thread_id,
        "startedAt": worker.started_at,
    }


def _decode_worker(document: Mapping[str, Any]) -> Worker:
    config, lease = document["config"], document["lease"]
    filters = config["clientReferenceFilters"]
    return Worker(
        name=document["name"],
        client_id=document["clientId"],
        scope=WorkerScope(document["scope"]),
        status=WorkerStatus(document["status"]),
        config=WorkerConfig(
            poll_interval=config["pollInterval"],
            max_items_per_batch=config["maxItemsPerBatch"],
            model_filter=config["modelFilter"],
            operation_filter=config["operationFilter"],
            client_reference_filters=None if filters is None else orjson.loads(filters),
            max_cost=_decode_money(config.get("maxCost")),
        ),
        group=document["group"],
        lease=None if lease is None else WorkerLease(lease["owner"], certain_instant(lease["expiresAt"])),
        thread_id=document["threadId"],
        started_at=instant(document["startedAt"]),
        **_common(document),
    )


CLIENTS: Kind[Client] = Kind(
    collection="clients",
    noun="Client",
    indexed=("keyLookup",),
    unique_key=lambda client: client.id,
    encode=_encode_client,
    decode=_decode_client,
)
MODELS: Kind[Model] = Kind(
    collection="models",
    noun="Model",
    indexed=("name",),
    unique_key=lambda model: model.id,
    encode=_encode_model,
    decode=_decode_model,
)
PROMPTS: Kind[Prompt] = Kind(
    collection="prompts",
    noun="Prompt",
    indexed=("clientId", "name"),
    unique_key=_prompt_key,
    encode=_encode_prompt,
    decode=_decode_prompt,
)
PROMPT_FLOWS: Kind[PromptFlow] = Kind(
    collection="prompt-flows",
    noun="Prompt flow",
    indexed=("clientId", "canaryOpen"),
    unique_key=lambda flow: flow.id,
    encode=_encode_flow,
    decode=_decode_flow,
)
WORKERS: Kind[Worker] = Kind(
    collection="workers",
    noun="Worker",
    indexed=("clientId", "status"),
    unique_key=lambda worker: orjson.dumps([worker.client_id, worker.name]).decode(),
    encode=_encode_worker,
    decode=_decode_worker,
)
