"""/usage: what calls have used and cost, for administrators and clients."""

from fastapi import APIRouter, Response

from api.core.access import Accessed
from api.core.answers import Csv, Json
from api.core.paging import Paged
from api.core.routes import EitherRoute
from api.models.base import problems
from api.models.usage import UsageResponse, usage_to_csv, usage_to_wire
from api.routers.usage_query import Asked, Format, Formatted

router = APIRouter(prefix="/usage", tags=["usage"], route_class=EitherRoute, responses=problems(401, 503))

_CSV = {"content": {"text/csv": {"schema": {"type": "string"}}}}


@router.get("", response_model=UsageResponse, responses={200: _CSV})
async def show_usage(query: Asked, form: Formatted, page: Paged, access: Accessed) -> Response:
    """Calls, tokens and costs of every attempt, by day, client, model and operation; deleted jobs' too.
    Trials of models (POST /models/{model_id}/test) are nobody's, and are not in it."""
    visible_to = (await access.caller()).visible_to
    found = await access.call(access.services.usage.page, query, visible_to, page)
    if form is Format.CSV:
        return Csv(usage_to_csv(found), name="usage", total=found.total)
    return Json(usage_to_wire(found), headers={"X-Total-Count": str(found.total)})
