"""Prompts as they were when something began that is to keep them, whatever becomes of them: JSON by their ids. Pure."""

from collections.abc import Iterable, Mapping

from engine.errors import InvalidField
from engine.llm import JsonObject
from engine.metadata import Metadata
from engine.records.values import Prompt, PromptStatus

LARGEST_TEXTS = 1_000_000
"""Characters of all prompts that are kept for one run, or sent along with a job."""


def pinned(prompts: Iterable[Prompt], field: str) -> JsonObject:
    """{id: {"text", "name", "type"}}. Raises InvalidField for `field` where they are too long together."""
    kept = {each.id: {"text": each.text, "name": each.name, "type": each.type} for each in prompts}
    if sum(len(each["text"]) for each in kept.values()) > LARGEST_TEXTS:
        raise InvalidField(field, f"the prompts have more than {LARGEST_TEXTS} characters")
    return kept


def unpinned(pins: Mapping[str, JsonObject], prompt_id: str, client_id: str, metadata: Metadata) -> Prompt | None:
    """The prompt as it was, for a client's own use; None where it is not among the pins."""
    pin = pins.get(prompt_id)
    if pin is None:
        return None
    return Prompt(
        id=prompt_id,
        name=pin["name"],
        version=1,
        type=pin["type"],
        status=PromptStatus.ARCHIVE,
        text=pin["text"],
        client_id=client_id,
        is_public=False,
        metadata=metadata,
    )
