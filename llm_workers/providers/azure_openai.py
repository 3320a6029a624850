"""Azure OpenAI: OpenAI's wire format under a deployment's path, with the key and the request id in Azure's headers."""

from typing import TYPE_CHECKING, ClassVar

from yarl import URL

from engine.llm import CompletionRequest
from llm_workers.providers.compatible import Compatible
from llm_workers.providers.openai import OpenAiProvider, is_reasoning
from llm_workers.providers.rehearsal import Rehearsal, rehearse

if TYPE_CHECKING:
    import httpx2

_FIRST_WITH_NEWER_LIMIT = "2024-09"
"""API versions are dates; older ones know `max_tokens` only."""


class AzureOpenAiProvider(OpenAiProvider):
    sdk = "AzureOpenAI"
    key_variable: ClassVar[str | None] = "AZURE_OPENAI_API_KEY"
    habits = Compatible(sdk="AzureOpenAI")
    attempt_header = "x-ms-client-request-id"

    def rehearse(self, request: CompletionRequest) -> Rehearsal:
        import openai  # noqa: PLC0415 - half a second to import, and only where some model needs it

        def call(client: "httpx2.Client") -> object:
            sdk = openai.AzureOpenAI(
                api_key=request.endpoint.key,
                azure_endpoint=resource_url(request.endpoint.base_url),
                api_version=request.endpoint.api_version,
                max_retries=0,
                http_client=client,
            )
            return sdk.chat.completions.with_raw_response.create(**self.body(request))

        return rehearse(call)

    def takes_newer_limit(self, request: CompletionRequest) -> bool:
        newer = request.endpoint.api_version >= _FIRST_WITH_NEWER_LIMIT
        return newer or is_reasoning(request.endpoint.deployment)


def resource_url(endpoint: str) -> str:
    """The resource's URL, also of one that was copied with a deployment's path and query behind it."""
    url = URL(endpoint.strip())
    return str(url.with_path(url.path.partition("/openai")[0], encoded=False)).rstrip("/")
