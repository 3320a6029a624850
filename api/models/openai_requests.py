"""What clients of OpenAI's API send. Fields that are not named here go to the provider as they came."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_MESSAGES = 10_000
LONGEST_NAME = 255

Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class OpenAiBody(BaseModel):
    model_config = ConfigDict(extra="allow")


class ChatMessage(OpenAiBody):
    """What a message holds is the provider's to judge."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Any = None


class StreamOptions(OpenAiBody):
    include_usage: bool = False


class ChatRequest(OpenAiBody):
    """A request to chat completions. `model` is the name of a model here, which may be a router."""

    model: Name
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None


class EmbeddingsRequest(OpenAiBody):
    """A request to embeddings. `input` is a text, tokens, or a list of either."""

    model: Name
    input: str | list[Any]
    dimensions: Annotated[int, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


class OpenAiProblem(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAiErrorResponse(BaseModel):
    error: OpenAiProblem


def openai_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of errors under /v1."""
    return {status: {"model": OpenAiErrorResponse} for status in statuses}
