"""Prompt flows that jobs name in place of prompts: pure but for the one query."""

from collections.abc import Iterable, Mapping

from api.services.references import User
from engine.errors import InvalidField, UnknownReference
from engine.records.store import RecordStore
from engine.records.values import PromptFlow

KIND = "prompt flow"
FIELD = "promptFlow"
MOST_PROMPTS = 1_000
"""Of one job, as where prompts are named one by one."""

Flows = Mapping[str, PromptFlow]
NONE: Flows = {}


def flows_of(store: RecordStore[PromptFlow], named: Iterable[str | None]) -> Flows:
    """Those of the named flows that exist, as they are now: with one query, or none where nobody names one."""
    wanted = sorted({name for name in named if name is not None})
    return store.get_many(wanted) if wanted else NONE


def check_flow(named: str | None, flows: Flows, user: User) -> None:
    """Raises UnknownReference for a flow that `user` may not name, InvalidField for one that is no job's prompts."""
    if named is None:
        return
    flow = flows.get(named)
    if flow is None or not (user.any_prompt or flow.is_public or flow.client_id == user.client_id):
        raise UnknownReference(KIND, named)
    if not flow.prompt_ids:
        raise InvalidField(FIELD, f"prompt flow {named} has no prompts")
    if len(flow.prompt_ids) > MOST_PROMPTS:
        raise InvalidField(FIELD, f"prompt flow {named} has more than {MOST_PROMPTS} prompts")
