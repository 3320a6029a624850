"""Generated requests from the service's own OpenAPI document: whatever comes, no 5xx, no hang, a documented answer."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation

from tests.support.api import Api, Headers
from tests.support.backends import SQLITE
from tests.support.fuzzing import Stock, new_stock, open_stock, send

EXAMPLES = {SQLITE: {"valid": 8, "invalid": 5}}
FEWER = {"valid": 3, "invalid": 2}
MODES = {"valid": GenerationMode.POSITIVE, "invalid": GenerationMode.NEGATIVE}
BOUNDS = ["integer", "number", "boolean", "enum", "pattern", "format", "minLength", "maxLength"]
FUZZED = {"valid": 54, "invalid": 27}


def operations(api: Api, mode: str) -> Iterator[APIOperation]:
    """Every operation that the service documents; for unfit requests, every one that takes more than ids and texts."""
    for result in schemathesis.openapi.from_dict(api.app.openapi()).get_all_operations():
        operation = result.ok()
        bounded = [word for word in BOUNDS if word in json.dumps(operation.definition.raw.get("parameters"))]
        if mode == "valid" or operation.body or bounded:
            yield operation


def fuzz(api: Api, operation: APIOperation, stock: Stock, headers: Headers, *, mode: str, examples: int) -> None:
    """Sends so many requests to one operation; half of the ids and references in them exist."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(MODES[mode]), real=st.booleans(), data=st.data())
    def tried(case: schemathesis.Case, real: bool, data: Any) -> None:
        if real:
            known = {name: stock.ids[name] for name in case.path_parameters or {} if name in stock.ids}
            found = {name: data.draw(st.sampled_from(ids)) for name, ids in known.items()}
            case.path_parameters = {**(case.path_parameters or {}), **found}
            case.body = stock.real(case.body)
        send(api, case, headers)

    tried()


def fuzz_all(api: Api, stock: Stock, headers: Headers, *, mode: str, examples: int) -> None:
    """Sends so many requests to every operation; who is let in at all may change what exists, and finds it new."""
    fuzzed = []
    for operation in operations(api, mode):
        if operation.method != "get" and headers:
            stock = new_stock(api, stock.shop)
        fuzz(api, operation, stock, headers, mode=mode, examples=examples)
        fuzzed.append(operation.label)
    assert len(fuzzed) >= FUZZED[mode], fuzzed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("who", ["admin", "client"])
def test_whatever_comes_is_answered_as_documented(api: Api, backend: str, who: str, mode: str) -> None:
    """Requests that fit the document and ones that do not, by an admin and by a client, over every operation: each
    answer comes soon, is none of 5xx, and has a documented status, content type, headers and body."""
    stock = open_stock(api)
    headers = {
        "admin": {**api.admin, "client_id": stock.shop.client_id},
        "client": {**stock.shop.headers, "admin_api_key": "wrong"},
    }[who]
    fuzz_all(api, stock, headers, mode=mode, examples=EXAMPLES.get(backend, FEWER)[mode])


@pytest.mark.parametrize("mode", MODES)
def test_nobody_is_answered_as_documented(local_api: Api, mode: str) -> None:
    """The same for requests without credentials, which are turned away before any back-end is asked."""
    fuzz_all(local_api, open_stock(local_api), {}, mode=mode, examples=2)
