"""Azure AI model inference (foundry endpoints), known by its retired client's name, ChatCompletionsClient.

That client's package never left its beta and Microsoft points its users to OpenAI's; so OpenAI's client prepares the
request here, with the API version in the query and, as the old one did, the key in both headers that endpoints look at.
The contract suite compares the two.
"""

from typing import TYPE_CHECKING, ClassVar

from engine.llm import CompletionRequest
from llm_workers.providers.compatible import Compatible
from llm_workers.providers.openai import OpenAiProvider, base_url
from llm_workers.providers.rehearsal import Rehearsal, rehearse

if TYPE_CHECKING:
    import httpx2


class ChatCompletionsProvider(OpenAiProvider):
    sdk = "ChatCompletionsClient"
    key_variable: ClassVar[str | None] = "AZURE_INFERENCE_CREDENTIAL"
    # Which of the many models behind such endpoints know JSON mode is not told.
    habits = Compatible(sdk="ChatCompletionsClient", json_mode=False)
    attempt_header = "x-ms-client-request-id"

    def rehearse(self, request: CompletionRequest) -> Rehearsal:
        import openai  # noqa: PLC0415 - half a second to import, and only where some model needs it

        def call(client: "httpx2.Client") -> object:
            sdk = openai.OpenAI(
                api_key=request.endpoint.key,
                base_url=base_url(request.endpoint.base_url.partition("?")[0]),
                default_query={"api-version": request.endpoint.api_version},
                default_headers={"api-key": request.endpoint.key or ""},
                max_retries=0,
                http_client=client,
            )
            return sdk.chat.completions.with_raw_response.create(**self.body(request))

        return rehearse(call)
