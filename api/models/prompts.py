"""Prompts: bodies in and out."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from api.models.base import Body, Plain, Resource, Safe, Short, resource_to_wire
from api.services.prompts import PromptDraft, PromptEdit
from engine.llm import JsonObject
from engine.records.values import Lineage, Prompt, PromptStatus

LONGEST_PROMPT = 2_000_000
"""In characters: beyond every model's context, and within every database's document."""


def _fitting(value: str) -> str:
    if len(value) > LONGEST_PROMPT:
        raise ValueError(f"is longer than {LONGEST_PROMPT} characters")
    return value


Text = Annotated[str, Field(min_length=1), Short]
PromptText = Annotated[str, AfterValidator(_fitting)]
Version = Annotated[Annotated[str, Short, Plain] | int, Safe]
"""3 and "3" are two versions."""


class PromptCreateRequest(Body):
    name: Text
    version: Version | None = Field(None, description="The next whole number if absent.")
    type: Annotated[Text, Plain]
    status: PromptStatus
    prompt: Annotated[PromptText, Field(min_length=1)]
    is_public: bool = False

    def draft(self) -> PromptDraft:
        return PromptDraft(
            name=self.name,
            version=self.version,
            type=self.type,
            status=self.status,
            text=self.prompt,
            is_public=self.is_public,
        )


class PromptUpdateRequest(Body):
    version: Version | None = None
    status: PromptStatus | None = None
    prompt: PromptText | None = None
    is_public: bool | None = None
    client_id: Annotated[str, Short] | None = Field(
        None, description="The new owner of a private prompt; for the administrator."
    )

    def edit(self) -> PromptEdit:
        return PromptEdit(
            version=self.version,
            status=self.status,
            text=self.prompt,
            is_public=self.is_public,
            client_id=self.client_id,
        )


class PromptResponse(Resource):
    prompt_id: str
    name: str
    version: str | int
    type: str
    status: PromptStatus
    prompt: str
    client_id: str | None = None
    is_public: bool
    lineage: JsonObject | None = Field(None, description="parentPromptId, runId and step, where a run made it.")


def prompt_to_wire(prompt: Prompt) -> dict[str, Any]:
    return {
        "promptId": prompt.id,
        "name": prompt.name,
        "version": prompt.version,
        "type": prompt.type,
        "status": prompt.status,
        "prompt": prompt.text,
        "clientId": prompt.client_id,
        "isPublic": prompt.is_public,
        "lineage": _lineage_to_wire(prompt.lineage),
        **resource_to_wire(prompt),
    }


def _lineage_to_wire(lineage: Lineage | None) -> JsonObject | None:
    if lineage is None:
        return None
    return {"parentPromptId": lineage.parent_id, "runId": lineage.run_id, "step": lineage.step}
