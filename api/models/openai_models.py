"""Models as OpenAI's API shows them."""

from typing import Any, Literal

from pydantic import BaseModel

from engine.records.values import Model


class OpenAiModel(BaseModel):
    """`created` is in seconds since 1970; `owned_by` is the sdk that a model is called by."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAiModelList(BaseModel):
    object: Literal["list"]
    data: list[OpenAiModel]


def openai_model_to_wire(model: Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.metadata.created_at.timestamp()),
        "owned_by": model.sdk.lower(),
    }
