"""/models: for the administrator; the list is for clients too."""

from fastapi import APIRouter, Response

from api.core.access import Accessed
from api.core.answers import Json, listed, no_content
from api.core.paging import Paged
from api.core.routes import AdminRoute, EitherRoute
from api.models.base import problems
from api.models.model_status import ModelStatusResponse, model_status_to_wire
from api.models.model_trial import ModelTestResponse, trial_to_wire
from api.models.models import (
    ModelCreateRequest,
    ModelCreateResponse,
    ModelResponse,
    ModelUpdateRequest,
    created_model_to_wire,
    fields_of,
    model_to_wire,
)

administration = APIRouter(
    prefix="/models", tags=["models"], route_class=AdminRoute, responses=problems(401, 404, 413, 503)
)
listing = APIRouter(prefix="/models", tags=["models"], route_class=EitherRoute, responses=problems(401, 503))


@administration.post("", status_code=201, response_model=ModelCreateResponse)
async def create_model(body: ModelCreateRequest, access: Accessed) -> Response:
    """Makes a model. Its secret is not given here but looked up under `key` at each call."""
    model = await access.call(access.services.models.create, fields_of(body))
    return Json(created_model_to_wire(model), status_code=201)


@listing.get("", response_model=list[ModelResponse])
async def list_models(page: Paged, access: Accessed) -> Response:
    await access.caller()
    models, total = await access.call(access.services.models.list, page)
    return listed(map(model_to_wire, models), total)


@administration.get("/status", response_model=list[ModelStatusResponse])
async def list_model_states(page: Paged, access: Accessed) -> Response:
    """How models do now: whether they take calls, if not why and until when, and how the last calls went."""
    states, total = await access.call(access.services.model_states.list, page)
    return listed((model_status_to_wire(model, state) for model, state in states), total)


@administration.get("/{model_id}", response_model=ModelResponse)
async def get_model(model_id: str, access: Accessed) -> Response:
    return Json(model_to_wire(await access.call(access.services.models.get, model_id)))


@administration.get("/{model_id}/status", response_model=ModelStatusResponse)
async def get_model_state(model_id: str, access: Accessed) -> Response:
    """How the model does now: whether it takes calls, if not why and until when, and how the last calls went."""
    model, state = await access.call(access.services.model_states.get, model_id)
    return Json(model_status_to_wire(model, state))


@administration.patch("/{model_id}", response_model=ModelResponse)
async def update_model(model_id: str, body: ModelUpdateRequest, access: Accessed) -> Response:
    """Changes what is given; null leaves a field as it is, but removes limits, fallbacks and targets."""
    model = await access.call(access.services.models.update, model_id, fields_of(body))
    return Json(model_to_wire(model))


@administration.delete("/{model_id}", status_code=204)
async def delete_model(model_id: str, access: Accessed) -> Response:
    await access.call(access.services.models.delete, model_id)
    return no_content()


@administration.post("/{model_id}/test", response_model=ModelTestResponse)
async def test_model(model_id: str, access: Accessed) -> Response:
    """Makes one tiny call to the model and says what happened: 200 also when it failed. It costs what it costs, and is
    in no client's usage."""
    model, trial = await access.services.model_trials.run(model_id)
    return Json(trial_to_wire(model, trial))
