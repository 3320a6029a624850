"""/v1/models: the models that requests to the OpenAI surface may name."""

from fastapi import APIRouter, Response

from api.core.access import Accessed
from api.core.answers import Json
from api.core.paging import HIGHEST_LIMIT
from api.core.routes import EitherRoute
from api.models.openai_models import OpenAiModel, OpenAiModelList, openai_model_to_wire
from api.models.openai_requests import openai_problems
from engine.jobs.queue import Page

router = APIRouter(prefix="/v1", tags=["openai"], route_class=EitherRoute, responses=openai_problems(400, 401, 503))


@router.get("/models", response_model=OpenAiModelList)
async def list_openai_models(access: Accessed) -> Response:
    """The models by name, at most 10,000 of them: OpenAI's list has no pages."""
    await access.caller()
    models, _ = await access.call(access.services.models.list, Page(limit=HIGHEST_LIMIT))
    return Json({"object": "list", "data": [openai_model_to_wire(model) for model in models]})


@router.get("/models/{name:path}", response_model=OpenAiModel, responses=openai_problems(404, 422))
async def get_openai_model(name: str, access: Accessed) -> Response:
    await access.caller()
    return Json(openai_model_to_wire(await access.call(access.services.models.named, name)))
