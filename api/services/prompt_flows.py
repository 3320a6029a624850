"""Prompt flows: named lists of prompts, public or a client's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from api.core.authentication import Caller
from api.services.changing import changed
from api.services.flow_canaries import CanaryWish, FlowCanaries
from api.services.prompt_access import NEEDS_ADMIN, creator, deletable, editable, readable
from engine.errors import Forbidden, InvalidField, Refused
from engine.jobs.queue import Page
from engine.metadata import Metadata
from engine.records.store import RecordStore, Where
from engine.records.values import PromptFlow
from utilities.clock import Clock
from utilities.ids import ObjectIds

KIND = "Prompt flow"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEdit:
    """What shall change; None leaves a field as it is."""

    name: str | None = None
    prompt_ids: Sequence[str] | None = None
    is_public: bool | None = None
    canaries: CanaryWish = field(default=CanaryWish())


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """A run's better prompt, the prompt that it was made of, and what scored both."""

    prompt_id: str
    parent_id: str
    evaluator_id: str


class PromptFlowService:
    """Synchronous. Callers see public flows and their own, an admin all."""

    def __init__(self, flows: RecordStore[PromptFlow], canaries: FlowCanaries, *, clock: Clock, ids: ObjectIds) -> None:
        self._flows = flows
        self._canaries = canaries
        self._clock = clock
        self._ids = ids

    def create(self, name: str, prompt_ids: Sequence[str], is_public: bool, caller: Caller) -> PromptFlow:
        """Raises Forbidden and Unauthenticated as `creator` does."""
        client_id = creator(caller, public=is_public)
        flow = PromptFlow(
            id=self._ids.new(),
            name=name,
            prompt_ids=tuple(prompt_ids),
            client_id=client_id,
            is_public=is_public,
            metadata=Metadata(created_at=self._clock.now(), created_by=client_id or caller.by),
        )
        self._flows.add(flow)
        return flow

    def list(self, page: Page, caller: Caller) -> tuple[list[PromptFlow], int]:
        """A page of the flows, and how many there are."""
        where = Where(visible_to=caller.visible_to)
        return self._flows.find(where, page), self._flows.count(where)

    def get(self, flow_id: str, caller: Caller) -> PromptFlow:
        """Raises NotFound."""
        return readable(self._flows.get(flow_id), KIND, flow_id, caller)

    def update(self, flow_id: str, edit: FlowEdit, caller: Caller) -> PromptFlow:
        """Raises UnknownReference, Forbidden, Unprocessable, InvalidField where a private flow would have no owner."""

        def change(found: PromptFlow | None) -> PromptFlow:
            flow = editable(found, KIND, flow_id, caller)
            wanted = self._canaries.settled(flow, _edited(flow, edit, caller), edit.canaries)
            if wanted == flow:
                return flow
            return replace(wanted, metadata=flow.metadata.touched(self._clock.now(), caller.by))

        return changed(self._flows, flow_id, change)

    def try_out(self, flow_id: str, winner: Winner, share: float, caller: Caller) -> PromptFlow:
        """The flow with a run's winner as a canary beside those that it has. Raises as `update`, and Refused."""
        flow = editable(self._flows.get(flow_id), KIND, flow_id, caller)
        if winner.parent_id not in flow.prompt_ids:
            raise Refused(f"prompt flow {flow_id} lacks prompt {winner.parent_id}, of which the winner was made")
        shares = {**flow.shares, winner.prompt_id: share}
        return self.update(flow_id, FlowEdit(canaries=CanaryWish(shares=shares, evaluator=winner.evaluator_id)), caller)

    def delete(self, flow_id: str, caller: Caller) -> None:
        """Raises NotFound and Forbidden."""
        now = self._clock.now()

        def change(found: PromptFlow | None) -> PromptFlow:
            flow = deletable(found, KIND, flow_id, caller)
            return replace(flow, metadata=flow.metadata.deleted(now, caller.by))

        changed(self._flows, flow_id, change)


def _edited(flow: PromptFlow, edit: FlowEdit, caller: Caller) -> PromptFlow:
    wanted = replace(
        flow,
        name=flow.name if edit.name is None else edit.name,
        prompt_ids=flow.prompt_ids if edit.prompt_ids is None else tuple(edit.prompt_ids),
    )
    if edit.is_public is None:
        return wanted
    if edit.is_public:
        if not caller.admin:
            raise Forbidden(NEEDS_ADMIN)
        return replace(wanted, is_public=True, client_id=None)
    owner = flow.client_id or caller.client_id
    if owner is None:
        raise InvalidField("isPublic", "a private flow needs a client: send its client_id and client_api_key too")
    return replace(wanted, is_public=False, client_id=owner)
