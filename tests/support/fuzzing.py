"""What tests of the HTTP side by generated requests share: things that exist, and the way of a generated case."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.api import Api, Headers, model_body
from tests.support.jobs_http import Shop, open_shop

LONGEST_SECONDS = 10.0
_EACH = 4
_CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@dataclass(frozen=True)
class Stock:
    """Ids that exist, by the names of path parameters. `shop` is the client that owns them and none of them."""

    shop: Shop
    ids: dict[str, list[str]]

    def real(self, value: Any) -> Any:
        """`value` with its references to other things replaced by ones that exist."""
        if isinstance(value, list):
            return [self.real(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {name: self._member(name, item) for name, item in value.items()}

    def _member(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if name in ("prompts", "workingPrompts", "promptIds"):
            return [self.shop.prompt]
        known = {
            "model": self.shop.model,
            "evalModel": self.shop.model,
            "metaModel": self.shop.model,
            "fallbacks": [self.shop.model],
            "evalPrompt": self.shop.prompt,
            "metaPrompt": self.shop.prompt,
            "jobId": self.ids["job_id"][0],
            "jobIds": self.ids["job_id"][:1],
            "workerIds": self.ids["worker_id"],
            "group": "stock",
            "clientId": self.shop.client_id,
        }
        return known[name] if name in known else self.real(value)


def new_stock(api: Api, shop: Shop) -> Stock:
    """Some of everything, new, in several states."""
    ids: dict[str, list[str]] = {
        "client_id": [api.new_client()["client_id"] for _ in range(_EACH)],
        "model_id": [api.new_model(**model_body(name="stock"))["model_id"] for _ in range(_EACH)],
        "prompt_id": [api.new_prompt(shop.headers)["_id"], api.new_prompt(api.admin, isPublic=True)["_id"]],
        "flow_id": [_made(shop, "/prompt-flows", {"name": "f", "promptIds": []}) for _ in range(_EACH)],
        "worker_id": [_made(shop, "/workers", worker) for worker in _workers(shop)],
        "job_id": [shop.bring_to(status) for status in ("PENDING", "PROCESSING", "PROCESSED", "CANCELED")],
    }
    return Stock(shop, ids)


def _workers(shop: Shop) -> Iterator[dict[str, Any]]:
    taken = int(shop.call("GET", "/workers").headers["X-Total-Count"])
    for number in range(taken, taken + _EACH):
        config = {"pollInterval": 1, "maxItemsPerBatch": 1}
        yield {"workerId": f"stock-{time.monotonic_ns()}-{number}", "config": config, "group": "stock"}


def _made(shop: Shop, path: str, body: dict[str, Any]) -> str:
    answer = shop.call("POST", path, body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["_id"])


def open_stock(api: Api) -> Stock:
    return new_stock(api, open_shop(api))


def send(api: Api, case: schemathesis.Case, headers: Headers) -> None:
    """Sends a generated request as somebody, and holds the answer to what is documented.

    Path parameters that are empty or hold slashes ask for another path: of these only the absence of a 5xx counts.
    """
    case.headers = {**(case.headers or {}), **headers}
    prepared = requests.Request(**_arguments(case)).prepare()
    started = time.monotonic()
    answer = api.http.request(
        prepared.method or "", prepared.path_url, headers=dict(prepared.headers), content=prepared.body or b""
    )
    seconds = time.monotonic() - started
    assert answer.status_code < 500, (prepared.method, prepared.path_url, prepared.body, answer.text)
    assert seconds < LONGEST_SECONDS, (prepared.method, prepared.path_url, prepared.body, seconds)
    if all(str(value).strip("./") and "/" not in str(value) for value in (case.path_parameters or {}).values()):
        case.validate_response(answer, checks=_CHECKS)


def _arguments(case: schemathesis.Case) -> dict[str, Any]:
    known = {"method", "url", "headers", "params", "data", "json", "cookies", "files"}
    arguments = case.as_transport_kwargs(base_url="http://testserver")
    return {name: value for name, value in arguments.items() if name in known}
