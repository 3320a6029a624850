"""Answers are built as plain dicts; these tests hold them to the models that the OpenAPI document shows."""

import json
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from api.core.answers import Json
from api.models.base import Answer
from api.models.clients import ClientCreateResponse, ClientResponse, ClientRotateKeyResponse
from api.models.direct import AcceptedJobResponse
from api.models.job_answer import JobResponse
from api.models.model_status import ModelStatusResponse
from api.models.model_trial import ModelTestResponse
from api.models.models import ModelCreateResponse, ModelResponse
from api.models.prompt_flows import PromptFlowResponse
from api.models.prompts import PromptResponse
from api.models.runs import RunResponse, run_to_wire
from engine.jobs.job import Totals
from llm_optimizer.refinement import after
from tests.support.api import Api, Headers, model_body
from tests.support.jobs_http import open_shop


def assert_fits(body: dict[str, Any], model: type[Answer]) -> None:
    """`body` has exactly the fields of `model`, and each is valid."""
    assert set(body) == {field.alias or name for name, field in model.model_fields.items()}
    TypeAdapter(model).validate_python(body)


def test_client_answers_fit(api: Api) -> None:
    """Create, read, change and rotate answer exactly what is documented."""
    made = api.http.post("/clients", json={"name": "n"}, headers=api.admin).json()
    path = f"/clients/{made['clientId']}"
    assert_fits(made, ClientCreateResponse)
    assert_fits(api.http.get(path, headers=api.admin).json(), ClientResponse)
    assert_fits(api.http.patch(path, json={"name": "m"}, headers=api.admin).json(), ClientResponse)
    assert_fits(api.http.post(f"{path}/toggle", headers=api.admin).json(), ClientResponse)
    assert_fits(api.http.post(f"{path}/rotate-key", headers=api.admin).json(), ClientRotateKeyResponse)


def test_model_answers_fit(api: Api) -> None:
    """Create and read answer exactly what is documented."""
    made = api.http.post("/models", json=model_body(), headers=api.admin).json()
    assert_fits(made, ModelCreateResponse)
    assert_fits(api.http.get(f"/models/{made['model_id']}", headers=api.admin).json(), ModelResponse)
    assert_fits(api.http.get("/models", headers=api.admin).json()[0], ModelResponse)
    assert_fits(api.http.post(f"/models/{made['model_id']}/test", headers=api.admin).json(), ModelTestResponse)
    assert_fits(api.http.get(f"/models/{made['model_id']}/status", headers=api.admin).json(), ModelStatusResponse)
    refused = api.new_model(sdk="Groq", endpoint="http://127.0.0.1:1", key="nowhere")
    assert_fits(api.http.post(f"/models/{refused['model_id']}/test", headers=api.admin).json(), ModelTestResponse)


def test_prompt_answers_fit(api: Api, client: Headers) -> None:
    """Create and list answer exactly what is documented, texts and numbers as versions."""
    assert_fits(api.new_prompt(client), PromptResponse)
    assert_fits(api.new_prompt(client, version="v"), PromptResponse)
    assert_fits(api.http.get("/prompts", headers=client).json()[0], PromptResponse)


def test_flow_answers_fit(api: Api, client: Headers) -> None:
    """Create and list answer exactly what is documented."""
    body = {"name": "f", "promptIds": ["a"]}
    assert_fits(api.http.post("/prompt-flows", json=body, headers=client).json(), PromptFlowResponse)
    assert_fits(api.http.get("/prompt-flows", headers=client).json()[0], PromptFlowResponse)


def test_direct_answers_fit(api: Api) -> None:
    """A direct call's job that has ended, and one that goes on, are answered exactly as documented."""
    shop = open_shop(api)
    assert_fits(shop.call("POST", "/complete", shop.body()).json(), JobResponse)
    assert_fits(shop.call("POST", "/complete?timeout=0", shop.body()).json(), AcceptedJobResponse)


def test_run_answers_fit(api: Api) -> None:
    """A run is answered as documented, also after it has gone a step."""
    shop = open_shop(api)
    names = ("evalPromptId", "metaPromptId", "evalModel", "metaModel")
    body = {name: shop.model if "Model" in name else shop.prompt for name in names}
    lists = {"initialWorkingPromptIds": [shop.prompt], "workingModels": [shop.model]}
    made = shop.call("POST", "/runs", {**body, **lists, "maxIterations": 1, "requestData": {}}).json()
    assert_fits(made, RunResponse)
    stored = api.storage.runs.get(made["runId"])
    job = api.storage.jobs.get(made["currentJobId"])
    assert stored is not None
    assert job is not None
    spent = {"work": Totals(calls=1, input_tokens=2, currencies=frozenset({"EUR"}))}
    done = replace(after(stored, job, "next", stored.metadata.created_at), spent=spent)
    assert_fits(json.loads(Json(run_to_wire(done)).body), RunResponse)
