"""What clients of Anthropic's API send. Fields that are not named here go to the provider as they came."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.models.openai_requests import MOST_MESSAGES, Name, OpenAiBody


class AnthropicMessage(OpenAiBody):
    """What a message holds is the provider's to judge."""

    role: Literal["user", "assistant"]
    content: Any


class MessagesRequest(OpenAiBody):
    """A request to Anthropic's Messages API. `model` is the name of a model here, which may be a router."""

    model: Name
    messages: Annotated[list[AnthropicMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1, strict=True)]
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None


class AnthropicProblem(BaseModel):
    type: str
    message: str


class AnthropicErrorResponse(BaseModel):
    type: Literal["error"]
    error: AnthropicProblem


def anthropic_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of errors under /v1/messages."""
    return {status: {"model": AnthropicErrorResponse} for status in statuses}
