"""How much of a plan may be asked: what it may take at most, against what the run's budget has left. Pure."""

from collections.abc import Collection, Mapping, Sequence

import orjson

from engine.jobs.job import Totals
from engine.records.searches import Phase, RunBudget
from llm_optimizer.allowance import Need, Seen, fits, how_many_fit, need_of_call, spent_of
from llm_optimizer.asking import Asked, Asking, Rescore
from llm_optimizer.rollouts import Role
from llm_optimizer.search import FIRST, Search, improved, judgements
from llm_optimizer.strategies.interface import Compare, Evaluate, Propose
from llm_optimizer.subject import Subject

_CHARACTERS_PER_TOKEN = 8
_JUDGE_OVERHEAD = 1_000
"""Characters of a judge's own instructions, before anything is known of them."""

_LARGEST_SHARE_KEPT = 0.4
"""Of a budget for the proof at the end: what a search does not find, needs no proof."""


class Reserve:
    """What calls are expected to take, by what this run has seen of its models so far."""

    def __init__(self, asking: Asking, seen: Mapping[str, Seen]) -> None:
        self._asking = asking
        self._subject: Subject = asking.subject
        self._seen = seen

    def of(self, item: Asked) -> Need:
        """The most that an item is expected to take."""
        if isinstance(item, Propose):
            spec = self._asking.meta(item)
            return self._call(Role.META, spec.model, spec.characters)
        if isinstance(item, Compare):
            both = [self._working(each, item.example, item.arm) for each in (item.first, item.second)]
            judging = self._judging(item, 2)
            return both[0] + both[1] + judging + judging
        judging = self._judging(item, 1)
        if isinstance(item, Rescore):
            return judging
        need = self._working(item.candidate, item.example, item.arm)
        for _ in range(item.judgements):
            need += judging
        return need

    def _working(self, candidate: str, example: str, arm: int) -> Need:
        spec = self._asking.work(candidate, example, arm)
        return self._call(Role.WORK, spec.model, spec.characters)

    def _judging(self, item: Evaluate | Compare | Rescore, answers: int) -> Need:
        known = self._subject.examples[item.example]
        texts = len(orjson.dumps([known.input, known.expected], option=orjson.OPT_NON_STR_KEYS))
        longest = max((seen.answer for name, seen in self._seen.items() if name.startswith("work ")), default=256)
        characters = _JUDGE_OVERHEAD + texts + answers * longest * _CHARACTERS_PER_TOKEN
        need = Need()
        for model in self._asking.scoring(item).models:
            need += self._call(Role.EVAL, model, characters)
        return need

    def _call(self, role: Role, model: str, characters: int) -> Need:
        return need_of_call(characters, self._subject.tariffs[model], self._seen.get(seen_name(role, model)))


def seen_name(role: str, model: str) -> str:
    return f"{role} {model}"


def kept_back(search: Search, reserve: Reserve, budget: RunBudget) -> Need:
    """What the proof on the holdout is expected to take, at most a part of the budget.

    While nothing was found that could be proven, half of it.
    """
    if search.phase is Phase.HOLDOUT or not search.split.holdout:
        return Need()
    example = search.split.holdout[0]
    once = reserve.of(Evaluate(candidate=FIRST, example=example, reference=True, judgements=judgements(search)))
    pairs = 2 * len(search.split.holdout) if improved(search) else len(search.split.holdout)
    calls, tokens, amount = once.calls // 3 * pairs, once.tokens * pairs // 2, once.amount * pairs / 2
    cap = budget.amount.amount if budget.amount is not None else None
    return Need(
        calls if budget.calls is None else min(calls, int(budget.calls * _LARGEST_SHARE_KEPT)),
        tokens if budget.tokens is None else min(tokens, int(budget.tokens * _LARGEST_SHARE_KEPT)),
        amount if cap is None else min(amount, cap * 4 / 10),
    )


def admitted(
    items: Sequence[Asked],
    free: Collection[str],
    reserve: Reserve,
    *,
    budget: RunBudget,
    spent: Mapping[str, Totals],
    kept: Need,
) -> list[str]:
    """The keys of the items that may be asked, from the first one on; what is `free` is paid for already."""
    used = spent_of(spent.values()) + kept
    needs = [Need() if item.key in free else reserve.of(item) for item in items]
    if fits(budget, used, Need()):
        return [item.key for item in items[: how_many_fit(budget, used, needs)]]
    return [item.key for item in items if item.key in free]
