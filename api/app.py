"""The HTTP application: routers and middleware around given services."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

from api.core.docs import docs_router
from api.middleware import errors
from api.middleware.access_log import AccessLog
from api.middleware.body_limit import BodyLimit
from api.middleware.correlation import CorrelationId
from api.routers import (
    anthropic_messages,
    clients,
    complete,
    datasets,
    evaluations,
    evaluators,
    health,
    jobs,
    models,
    openai_batches,
    openai_calls,
    openai_files,
    openai_models,
    prompt_flows,
    prompts,
    runs,
    streams,
    usage,
    workers,
)
from api.services.files import LARGEST
from api.services.wiring import Services
from api.settings import ApiSettings

ROUTERS: tuple[APIRouter, ...] = (
    jobs.single,
    jobs.batches,
    jobs.router,
    complete.router,
    openai_calls.router,
    anthropic_messages.router,
    health.router,
    clients.router,
    models.listing,
    models.administration,
    prompts.router,
    prompt_flows.router,
    workers.router,
    runs.router,
    datasets.router,
    evaluators.router,
    evaluations.router,
    streams.router,
    openai_models.router,
    openai_files.router,
    openai_batches.router,
    usage.router,
)
"""In the order in which the documentation shows them, and in which they are tried: the busiest first."""

_FORM_BYTES = 1024 * 1024
"""What a form may have beside its file."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_api(services: Services, settings: ApiSettings, lifespan: Lifespan | None = None) -> FastAPI:
    """The application over `services`, which the caller closes. Nothing is opened here.

    The routers' routes become its own: `include_router` would add a layer to each request's look-up.
    """
    app = FastAPI(
        title="Metasync",
        version=settings.version,
        description="Runs LLM prompts from a durable queue.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        routes=[route for router in (*ROUTERS, docs_router(settings)) for route in router.routes],
        middleware=[
            Middleware(CorrelationId),
            Middleware(AccessLog),
            Middleware(errors.UnhandledErrors),
            Middleware(BodyLimit, most=settings.max_body_bytes, larger={"/v1/files": LARGEST + _FORM_BYTES}),
        ],
    )
    app.state.services = services
    app.state.settings = settings
    errors.register(app)
    return app
