"""Limits, fallbacks and routers over HTTP."""

from typing import Any

import pytest

from tests.support.api import Api, model_body

NO_LIMITS = {"requestsPerMinute": None, "tokensPerMinute": None, "concurrency": None}


def router_body(*targets: str, **fields: Any) -> dict[str, Any]:
    """All that a router needs."""
    return {"name": "router", "sdk": "router", "targets": [{"model": name} for name in targets], **fields}


def changed(api: Api, model: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The model after a PATCH of these fields."""
    answer = api.http.patch(f"/models/{model['model_id']}", json=fields, headers=api.admin)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def refused(api: Api, fields: dict[str, Any], model: dict[str, Any] | None = None) -> tuple[list[Any], str]:
    """Where and why a model is refused: a new one with these fields, or `model` changed to them."""
    if model is None:
        answer = api.http.post("/models", json=fields, headers=api.admin)
    else:
        answer = api.http.patch(f"/models/{model['model_id']}", json=fields, headers=api.admin)
    assert answer.status_code == 422, answer.text
    (problem,) = answer.json()["detail"]
    return problem["loc"], problem["msg"]


def test_a_model_without_them(api: Api) -> None:
    """A model that is given neither limits nor fallbacks shows none, and no strategy."""
    made = api.new_model()
    assert (made["limits"], made["fallbacks"], made["fallbackAfter"]) == (NO_LIMITS, [], None)
    assert (made["targets"], made["strategy"]) == ([], None)


def test_limits_and_fallbacks_are_kept(api: Api) -> None:
    """What is given comes back; a change leaves what it does not name, within limits too, and null removes."""
    for name in ("a", "b"):
        api.new_model(name=name)
    limits = {"requestsPerMinute": 60, "tokensPerMinute": 9000, "concurrency": 4}
    made = api.new_model(limits=limits, fallbacks=["b", "a"], fallbackAfter=12.5)
    assert (made["limits"], made["fallbacks"], made["fallbackAfter"]) == (limits, ["b", "a"], 12.5)

    fewer = changed(api, made, limits={"tokensPerMinute": None, "concurrency": 5}, fallbackAfter=0)
    assert fewer["limits"] == {"requestsPerMinute": 60, "tokensPerMinute": None, "concurrency": 5}
    assert (fewer["fallbacks"], fewer["fallbackAfter"]) == (["b", "a"], 0)
    none = changed(api, made, limits=None, fallbacks=None, fallbackAfter=None)
    assert (none["limits"], none["fallbacks"], none["fallbackAfter"]) == (NO_LIMITS, [], None)
    assert api.http.get(f"/models/{made['model_id']}", headers=api.admin).json() == none


def test_a_router_needs_targets_alone(api: Api) -> None:
    """A router is made of name, sdk and targets; the rest is empty, free, and shown in the usual types."""
    for name in ("a", "b"):
        api.new_model(name=name)
    made = api.http.post("/models", json=router_body("a", "b", fallbacks=["a"]), headers=api.admin)
    assert made.status_code == 201, made.text
    shown = made.json()
    assert shown["targets"] == [{"model": "a", "weight": 1}, {"model": "b", "weight": 1}]
    assert (shown["strategy"], shown["fallbacks"]) == ("weighted", ["a"])
    assert {shown[name] for name in ("endpoint", "apiType", "apiVersion", "deployment", "key")} == {""}
    assert (shown["cost"]["input"], shown["cost"]["output"]) == (0, 0)

    targets = [{"model": "b", "weight": 7}]
    after = changed(api, shown, targets=targets, strategy="leastBusy", fallbacks=[])
    assert (after["targets"], after["strategy"]) == (targets, "leastBusy")
    assert changed(api, shown, strategy=None)["strategy"] == "weighted"


UNFIT: list[tuple[dict[str, Any], list[Any]]] = [
    ({"limits": {"requestsPerMinute": 0}}, ["limits", "requestsPerMinute"]),
    ({"limits": {"tokensPerMinute": 1.5}}, ["limits", "tokensPerMinute"]),
    ({"limits": {"concurrency": 2**53}}, ["limits", "concurrency"]),
    ({"fallbacks": ["a", "a"]}, ["fallbacks"]),
    ({"fallbacks": [""]}, ["fallbacks", 0]),
    ({"fallbacks": [f"m{number}" for number in range(11)]}, ["fallbacks"]),
    ({"fallbacks": ["a", "unknown"]}, ["fallbacks", 1]),
    ({"fallbackAfter": -1}, ["fallbackAfter"]),
    ({"fallbackAfter": 86_401}, ["fallbackAfter"]),
    ({"targets": [{"model": "a"}, {"model": "a", "weight": 2}]}, ["targets"]),
    ({"targets": [{"model": "a", "weight": 0}]}, ["targets", 0, "weight"]),
    ({"targets": [{"model": "a", "weight": 1001}]}, ["targets", 0, "weight"]),
    ({"targets": [{"model": f"m{number}"} for number in range(51)]}, ["targets"]),
    ({"targets": [{"model": "unknown"}]}, ["targets", 0, "model"]),
    ({"targets": []}, ["targets"]),
    ({"targets": None}, ["targets"]),
    ({"strategy": "best"}, ["strategy"]),
]


@pytest.mark.parametrize(("fields", "place"), UNFIT, ids=repr)
def test_what_does_not_fit_is_422(local_api: Api, fields: dict[str, Any], place: list[Any]) -> None:
    """Each field has its limits, in POST and in PATCH, and the answer says which field and which part of it."""
    local_api.new_model(name="a")
    made = local_api.http.post("/models", json=router_body("a", name="other"), headers=local_api.admin).json()
    assert refused(local_api, {**router_body("a"), **fields})[0] == ["body", *place]
    assert refused(local_api, fields, made)[0] == ["body", *place]


def test_targets_are_for_routers(local_api: Api) -> None:
    """Another model with targets is refused, and one that is to become a router, or one no more, without the rest."""
    plain = local_api.new_model(name="a")
    targets = [{"model": "a"}]
    assert refused(local_api, model_body(targets=targets))[0] == ["body", "targets"]
    assert refused(local_api, {"targets": targets}, plain)[0] == ["body", "targets"]
    assert refused(local_api, {"sdk": "router"}, plain)[0] == ["body", "targets"]
    router = local_api.http.post("/models", json=router_body("a"), headers=local_api.admin).json()
    assert refused(local_api, {"sdk": "test"}, router)[0] == ["body", "sdk"]
    assert refused(local_api, {"sdk": "test", "targets": []}, router)[0] == ["body", "endpoint"]


@pytest.mark.parametrize("missing", ["name", "targets"])
def test_a_router_needs_a_name_and_targets(local_api: Api, missing: str) -> None:
    """What a router cannot do without is required of it."""
    local_api.new_model(name="a")
    body = router_body("a")
    del body[missing]
    assert refused(local_api, body)[0] == ["body", missing]


def test_loops_are_refused_whoever_closes_them(api: Api) -> None:
    """A model that leads back to itself, at once or through others, is refused with the way shown: when it is made,
    when its fallbacks are changed, and when it takes the name that another one leads to."""
    assert refused(api, model_body(name="a", fallbacks=["a"])) == (
        ["body", "fallbacks", 0],
        "leads back to the model itself: a → a",
    )
    first = api.new_model(name="a")
    api.new_model(name="b", fallbacks=["a"])
    router = api.http.post("/models", json=router_body("b"), headers=api.admin).json()
    place, why = refused(api, {"fallbacks": ["router"]}, first)
    assert (place, why.rpartition(": ")[2]) == (["body", "fallbacks", 0], "a → router → b → a")

    api.http.delete(f"/models/{first['model_id']}", headers=api.admin)
    assert refused(api, {"name": "a"}, router) == (["body", "name"], "leads back to the model itself: a → b → a")


def test_a_named_model_may_be_deleted(api: Api) -> None:
    """A model that others name can be deleted; those keep the name until they are given others."""
    first, _ = api.new_model(name="a"), api.new_model(name="c")
    second = api.new_model(name="b", fallbacks=["a"])
    assert api.http.delete(f"/models/{first['model_id']}", headers=api.admin).status_code == 204
    assert changed(api, second, maxToken=5, fallbacks=["a"])["fallbacks"] == ["a"]
    assert refused(api, {"fallbacks": ["c", "a"]}, second)[0] == ["body", "fallbacks", 1]
