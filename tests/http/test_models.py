"""Models over HTTP: contract, section 4."""

from typing import Any

import pytest

from tests.support.api import Api, Headers, model_body


def test_a_new_model_comes_back_whole(api: Api) -> None:
    """POST is 201 with `model_id` and every field, `key` among them: the only answer that shows it."""
    body = model_body(service="metasync", maxToken=4096, maxCompletionToken=1024)
    answer = api.http.post("/models", json=body, headers=api.admin)
    assert answer.status_code == 201
    made = answer.json()
    assert {name: made[name] for name in body} == body
    shown = api.http.get(f"/models/{made['model_id']}", headers=api.admin).json()
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert api.http.get("/models", headers=api.admin).json() == [shown]


def test_the_optional_fields_may_be_left_out(api: Api) -> None:
    """service, maxToken and maxCompletionToken may be absent, and are null then."""
    made = api.new_model()
    assert (made["service"], made["maxToken"], made["maxCompletionToken"]) == (None, None, None)


def test_prices_come_back_as_they_went_in(api: Api) -> None:
    """Prices keep their decimal value, however small."""
    cost = {"tokens": 1000, "currency": "EUR", "input": 0.1, "output": 1e-7}
    assert api.new_model(cost=cost)["cost"] == cost
    assert api.new_model(cost={**cost, "cachedInput": 0.01})["cost"] == {**cost, "cachedInput": 0.01}


@pytest.mark.parametrize("sdk", ["OpenAI", "test"])
def test_registered_sdks_are_accepted(api: Api, sdk: str) -> None:
    """The registered names are valid."""
    assert api.new_model(sdk=sdk)["sdk"] == sdk


@pytest.mark.parametrize("sdk", ["openai", "", "Nothing"])
def test_an_unknown_sdk_is_422(api: Api, sdk: str) -> None:
    """An unknown sdk is 422 whose detail[].msg mentions SDK, in POST and in PATCH."""
    made = api.new_model()
    created = api.http.post("/models", json=model_body(sdk=sdk), headers=api.admin)
    changed = api.http.patch(f"/models/{made['model_id']}", json={"sdk": sdk}, headers=api.admin)
    for answer in (created, changed):
        assert answer.status_code == 422
        (problem,) = answer.json()["detail"]
        assert "SDK" in problem["msg"]
        assert (problem["loc"], problem["input"]) == (["body", "sdk"], sdk)


INVALID: list[dict[str, Any]] = [
    {"name": ""},
    {"name": "n" * 256},
    {"endpoint": ""},
    {"apiType": ""},
    {"apiVersion": ""},
    {"deployment": ""},
    {"service": ""},
    {"key": ""},
    {"maxToken": 0},
    {"maxToken": 2**53},
    {"maxCompletionToken": -1},
    {"minTemperature": -0.1},
    {"maxTemperature": 2.1},
    {"minTemperature": 0.9, "maxTemperature": 0.8},
    {"cost": {"tokens": 0, "currency": "USD", "input": 1, "output": 1}},
    {"cost": {"tokens": 1, "currency": "", "input": 1, "output": 1}},
    {"cost": {"tokens": 1, "currency": "USD", "input": -1, "output": 1}},
    {"cost": {"tokens": 1, "currency": "USD", "input": 1}},
]


@pytest.mark.parametrize("fields", INVALID, ids=repr)
def test_fields_out_of_their_limits_are_422(local_api: Api, fields: dict[str, Any]) -> None:
    """Each field has the contract's limits, in POST and in PATCH."""
    made = local_api.new_model()
    path = f"/models/{made['model_id']}"
    assert local_api.http.post("/models", json=model_body(**fields), headers=local_api.admin).status_code == 422
    assert local_api.http.patch(path, json=fields, headers=local_api.admin).status_code == 422


@pytest.mark.parametrize("missing", ["name", "sdk", "endpoint", "apiType", "apiVersion", "deployment", "key", "cost"])
def test_required_fields_are_required(local_api: Api, missing: str) -> None:
    """A body without a required field is 422."""
    body = model_body()
    del body[missing]
    assert local_api.http.post("/models", json=body, headers=local_api.admin).status_code == 422


def test_patch_checks_temperatures_against_the_stored_half(api: Api) -> None:
    """PATCH re-checks max >= min against what is stored."""
    path = f"/models/{api.new_model(minTemperature=0.4, maxTemperature=0.6)['model_id']}"
    for fields in ({"minTemperature": 0.7}, {"maxTemperature": 0.3}):
        assert api.http.patch(path, json=fields, headers=api.admin).status_code == 422
    moved = api.http.patch(path, json={"minTemperature": 0.7, "maxTemperature": 0.8}, headers=api.admin)
    assert (moved.status_code, moved.json()["minTemperature"]) == (200, 0.7)


def test_patch_changes_what_is_given(api: Api) -> None:
    """PATCH changes each given field and no other; null leaves a field as it is."""
    made = api.new_model(maxToken=100)
    path = f"/models/{made['model_id']}"
    cost = {"tokens": 10, "currency": "CHF", "input": 1.5, "output": 2.0}
    changes = {"deployment": "other", "maxCompletionToken": 50, "maxToken": None, "cost": cost, "key": "OTHER"}
    changed = api.http.patch(path, json=changes, headers=api.admin)
    assert changed.status_code == 200
    assert changed.json()["deployment"] == "other"
    assert (changed.json()["maxCompletionToken"], changed.json()["maxToken"]) == (50, 100)
    assert changed.json()["cost"] == cost
    assert "key" not in changed.json()
    stored = api.storage.models.get(made["model_id"])
    assert stored is not None
    assert stored.key == "OTHER"


def test_an_empty_patch_changes_nothing(api: Api) -> None:
    """An empty PATCH is 200 and leaves the model as it was, updatedAt included."""
    made = api.new_model()
    del made["key"]
    answer = api.http.patch(f"/models/{made['model_id']}", json={}, headers=api.admin)
    assert (answer.status_code, answer.json()) == (200, made)


def test_a_deleted_model_is_gone(api: Api) -> None:
    """DELETE is 204 and soft; afterwards GET, PATCH and DELETE are 404 and the list is without it."""
    path = f"/models/{api.new_model()['model_id']}"
    assert api.http.delete(path, headers=api.admin).status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        answer = api.http.request(method, path, json={} if method == "PATCH" else None, headers=api.admin)
        assert answer.status_code == 404
        assert "not found" in answer.json()["detail"]
    assert api.http.get("/models", headers=api.admin).json() == []


def test_clients_see_the_list_alone(api: Api, client: Headers) -> None:
    """The list is for clients too, everything else is not."""
    made = api.new_model()
    assert [one["model_id"] for one in api.http.get("/models", headers=client).json()] == [made["model_id"]]
    assert api.http.get(f"/models/{made['model_id']}", headers=client).status_code == 401
    assert api.http.post("/models", json=model_body(), headers=client).status_code == 401


def test_two_models_may_share_a_name(api: Api) -> None:
    """A name is no key: jobs take the oldest live model of a name."""
    first, second = api.new_model(), api.new_model()
    assert first["model_id"] != second["model_id"]
