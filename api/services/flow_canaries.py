"""Canaries of a prompt flow as they are asked for: which prompt each stands for, and what stays of those before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from api.core.unprocessable import Unprocessable
from engine.errors import UnknownReference
from engine.records.canaries import MOST_CANARIES, MOST_SHARE, Canary, replaced_by
from engine.records.evaluators import Evaluator
from engine.records.store import PromptStore, RecordStore
from engine.records.values import Prompt, PromptFlow
from utilities.clock import Clock
from utilities.ids import ObjectIds

_MOST_REMEMBERED = 10
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryWish:
    """What shall change; None leaves a field as it is, and no `shares` at all end the canaries of now."""

    shares: Mapping[str, float] | None = None
    evaluator: str | None = None
    sample: float | None = None

    @property
    def is_empty(self) -> bool:
        return self.shares is None and self.evaluator is None and self.sample is None


class FlowCanaries:
    """Synchronous; raises StorageUnavailable."""

    def __init__(
        self, prompts: PromptStore, evaluators: RecordStore[Evaluator], *, clock: Clock, ids: ObjectIds
    ) -> None:
        self._prompts = prompts
        self._evaluators = evaluators
        self._clock = clock
        self._ids = ids

    def settled(self, before: PromptFlow, edited: PromptFlow, wish: CanaryWish) -> PromptFlow:
        """`edited`, which was `before`, with the canaries that it has from now on.

        A canary goes on with its pairs where only its share changes. Raises Unprocessable and UnknownReference.
        """
        flow = replace(
            edited,
            canary_evaluator=edited.canary_evaluator if wish.evaluator is None else wish.evaluator,
            canary_sample=edited.canary_sample if wish.sample is None else wish.sample,
        )
        shares = before.shares if wish.shares is None else wish.shares
        same_test = (flow.prompt_ids, flow.canary_evaluator, flow.canary_sample) == (
            before.prompt_ids,
            before.canary_evaluator,
            before.canary_sample,
        )
        if wish.is_empty and same_test and flow.client_id == before.client_id:
            return flow
        if shares:
            self._check(flow, shares)
        known = {each.prompt_id: each for each in before.canaries if each.has_share} if same_test else {}
        found = self._found(flow, shares)
        now = [self._canary(flow, prompt, share, known.get(prompt.id)) for prompt, share in found]
        return replace(flow, canaries=(*now, *_rolled_back(before, shares)))

    def _check(self, flow: PromptFlow, shares: Mapping[str, float]) -> None:
        if flow.client_id is None:
            raise _refused("a public flow has no client for whom its canaries could be scored", shares)
        if len(shares) > MOST_CANARIES:
            raise _refused(f"a flow has at most {MOST_CANARIES} canaries", shares)
        if sum(shares.values()) > MOST_SHARE + _ROUNDING:
            raise _refused(f"the shares add up to more than {MOST_SHARE:g}", shares)
        if flow.canary_evaluator is None:
            raise Unprocessable(("body", "canaryEvaluator"), "canaries need an evaluator that scores them", None)
        evaluator = self._evaluators.get(flow.canary_evaluator)
        if evaluator is None or evaluator.client_id != flow.client_id:
            raise UnknownReference("evaluator", flow.canary_evaluator)

    def _found(self, flow: PromptFlow, shares: Mapping[str, float]) -> Sequence[tuple[Prompt, float]]:
        found = self._prompts.get_many(list(shares)) if shares else {}
        for prompt_id in shares:
            prompt = found.get(prompt_id)
            if prompt is None or not (prompt.is_public or prompt.client_id == flow.client_id):
                raise UnknownReference("prompt", prompt_id)
        return [(found[prompt_id], share) for prompt_id, share in shares.items()]

    def _canary(self, flow: PromptFlow, prompt: Prompt, share: float, known: Canary | None) -> Canary:
        if known is not None:
            return replace(known, share=share)
        if prompt.id in flow.prompt_ids:
            raise _refused(f"prompt {prompt.id} is one of the flow's own", prompt.id)
        others = self._prompts.get_many(flow.prompt_ids)
        replaces = replaced_by(prompt, [others[each] for each in flow.prompt_ids if each in others])
        if replaces is None:
            told = "descends from none of the flow's prompts: neither was it made of one, nor has one the same name"
            raise _refused(f"prompt {prompt.id} {told}", prompt.id)
        return Canary(id=self._ids.new(), prompt_id=prompt.id, replaces=replaces, share=share, since=self._clock.now())


def _rolled_back(flow: PromptFlow, shares: Mapping[str, float]) -> Sequence[Canary]:
    """The latest ones, but for those whose prompts are tried again."""
    ended = [each for each in flow.canaries if not each.has_share and each.prompt_id not in shares]
    return ended[-_MOST_REMEMBERED:]


def _refused(reason: str, value: object) -> Unprocessable:
    return Unprocessable(("body", "canary"), reason, value)
