"""Azure OpenAI and Azure AI inference: OpenAI's bodies under other paths and headers."""

from typing import Any, ClassVar

from aiohttp import web

from tests.support.fake_provider.wire.openai import OpenAiWire
from tests.support.fake_provider.wire.port import Asked


class AzureOpenAiWire(OpenAiWire):
    name: ClassVar[str] = "azure_openai"
    paths: ClassVar[tuple[str, ...]] = ("/openai/deployments/{deployment}/chat/completions",)

    def read(self, request: web.Request, body: dict[str, Any]) -> Asked:
        _needs_version(request)
        return self.asked(body, request.match_info["deployment"], request.headers["api-key"], request)


class ChatCompletionsWire(OpenAiWire):
    name: ClassVar[str] = "chat_completions"
    paths: ClassVar[tuple[str, ...]] = ("/models/chat/completions",)

    def read(self, request: web.Request, body: dict[str, Any]) -> Asked:
        _needs_version(request)
        return self.asked(body, str(body["model"]), request.headers["api-key"], request)


def _needs_version(request: web.Request) -> None:
    if not request.query.get("api-version"):
        raise web.HTTPBadRequest(text='{"error": {"code": "MissingApiVersionParameter", "message": "api-version"}}')
