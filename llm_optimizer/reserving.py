"""How much of a plan may be asked: what it may take at most, against what the run's budget has left. Pure."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from engine.jobs.job import Job
from engine.records.searches import Phase, RunBudget
from llm_optimizer.allowance import Need, Seen, fits, longest_answer, most_of_call, need_of_call
from llm_optimizer.asking import Asked, Asking, Rescore, Standing
from llm_optimizer.rollouts import FREELY, MAX_ATTEMPTS, Leave, Role, RolloutSpec, unknown_calls
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

    def most_of(self, item: Evaluate) -> Need:
        """The most that an item can take in one call each, with answers as long as they are expected."""
        spec = self._asking.work(item.candidate, item.example, item.arm)
        specs = (spec, *self.after(item, Standing(jobs=(), wanted=(spec,))))
        return sum((self.most(one, self.answer(one, brief=True)) for one in specs), Need())

    def most(self, spec: RolloutSpec, answer: int) -> Need:
        """The most that one call can take whose answer may have so many tokens."""
        return most_of_call(spec.sent, spec.schema, answer, self._subject.tariffs[spec.model])

    def answer(self, spec: RolloutSpec, *, brief: bool) -> int:
        """Tokens that an answer may have."""
        seen = self._seen.get(seen_name(spec.role, spec.model))
        return longest_answer(self._subject.tariffs[spec.model], seen, brief=brief)

    def after(self, item: Asked, standing: Standing) -> tuple[RolloutSpec, ...]:
        """The judges' calls that follow the calls that are wanted now, for answers as long as they are expected."""
        if not any(spec.role is Role.WORK for spec in standing.wanted) or isinstance(item, Propose):
            return ()
        example, scoring = self._subject.examples[item.example], self._asking.scoring(item)
        answer = "x" * (self._longest_seen() * _CHARACTERS_PER_TOKEN)
        if isinstance(item, Compare):
            return scoring.compares(example, answer, answer)
        return scoring.asks(example, answer) * (item.judgements if isinstance(item, Evaluate) else 1)

    def _longest_seen(self) -> int:
        return max((seen.answer for name, seen in self._seen.items() if name.startswith("work ")), default=256)

    def _working(self, candidate: str, example: str, arm: int) -> Need:
        spec = self._asking.work(candidate, example, arm)
        return self._call(Role.WORK, spec.model, spec.characters)

    def _judging(self, item: Evaluate | Compare | Rescore, answers: int) -> Need:
        known = self._subject.examples[item.example]
        texts = len(orjson.dumps([known.input, known.expected], option=orjson.OPT_NON_STR_KEYS))
        characters = _JUDGE_OVERHEAD + texts + answers * self._longest_seen() * _CHARACTERS_PER_TOKEN
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

    While nothing was found that could be proven, half of it. The last pair needs room for the most that it may take.
    """
    if search.phase is Phase.HOLDOUT or not search.split.holdout:
        return Need()
    example, times = search.split.holdout[0], judgements(search)
    second, arm = (FIRST, 0) if search.leader is None else (search.leader.candidate, search.leader.arm)
    both = [
        Evaluate(candidate=which, example=example, arm=place, reference=True, judgements=times)
        for which, place in ((FIRST, 0), (second, arm))
    ]
    pair, last = sum(map(reserve.of, both), Need()), sum(map(reserve.most_of, both), Need())
    pairs = len(search.split.holdout) if improved(search) else math.ceil(len(search.split.holdout) / 2)
    tokens, amount = pair.tokens * pairs + last.tokens, pair.amount * pairs + last.amount
    calls = pair.calls // MAX_ATTEMPTS * pairs
    cap = budget.amount.amount if budget.amount is not None else None
    return Need(
        calls if budget.calls is None else min(calls, int(budget.calls * _LARGEST_SHARE_KEPT)),
        tokens if budget.tokens is None else min(tokens, int(budget.tokens * _LARGEST_SHARE_KEPT)),
        amount if cap is None else min(amount, cap * 4 / 10),
    )


@dataclass(frozen=True, slots=True)
class Grant:
    """What an item may take: `calls` of each of its jobs that may cost something, and `need` of all of them together,
    None does not restrict. `brief`: answers are held to what they are expected to have at most."""

    calls: int
    need: Need | None
    brief: bool = False

    def less(self, need: Need) -> "Grant":
        return self if self.need is None else replace(self, need=self.need - need)


UNBOUND = Grant(MAX_ATTEMPTS, None)
NOTHING = Grant(MAX_ATTEMPTS, Need())
_TERMS = (NOTHING, Grant(1, Need()), Grant(1, Need(), brief=True))
"""From the best one on: with fewer calls what a provider refuses is still tried again, for it costs nothing."""


class Till:
    """What one step may use of its run's budget: `used` before it, `kept` for later."""

    def __init__(self, reserve: Reserve, budget: RunBudget, *, used: Need, kept: Need) -> None:
        self._reserve = reserve
        self._budget = budget
        self._used = used + kept
        self._bounds_answers = budget.tokens is not None or budget.amount is not None
        self.restricts = self._bounds_answers or budget.calls is not None

    def most(self, specs: Iterable[RolloutSpec], grant: Grant) -> Need:
        """The most that the jobs of these can take with what is granted to each."""
        needs = (self._reserve.most(spec, self._reserve.answer(spec, brief=grant.brief)) for spec in specs)
        return sum(needs, Need()).times(grant.calls)

    def leave(self, spec: RolloutSpec, grant: Grant) -> Leave:
        """With which bounds a job is made."""
        if not self.restricts:
            return FREELY
        return Leave(grant.calls, self._reserve.answer(spec, brief=grant.brief) if self._bounds_answers else None)

    def withheld(self, spec: RolloutSpec, job: Job | None) -> Need:
        """What a job may have taken beyond what is known of it; None: it was deleted."""
        if job is None:
            return self.most([spec], NOTHING)
        untold, lost = unknown_calls(job)
        answer = self._reserve.answer(spec, brief=False) if job.most_output is None else job.most_output
        return replace(self._reserve.most(spec, answer).times(untold + lost), calls=lost)

    def granted(
        self, items: Sequence[Asked], standing: Callable[[Asked], Standing], taken: Need, *, fewest: int = 1
    ) -> list[Grant]:
        """What the items may take, from the first one on as many as fit together after `taken`.

        On terms on which `fewest` of them fit; fewer than those are of no use.
        """
        for terms in _TERMS:
            grants = self._fitting(items, standing, self._used + taken, terms)
            if len(grants) >= fewest:
                return grants
        return []

    def _fitting(
        self, items: Sequence[Asked], standing: Callable[[Asked], Standing], used: Need, terms: Grant
    ) -> list[Grant]:
        grants: list[Grant] = []
        if not fits(self._budget, used, Need()):
            return grants
        for item in items:
            stands = standing(item)
            need = self.most((*stands.wanted, *self._reserve.after(item, stands)), terms)
            used += need
            if not fits(self._budget, used, Need()):
                break
            grants.append(replace(terms, need=need))
        return grants
