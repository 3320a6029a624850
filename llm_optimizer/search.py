"""A search from its checks to its verdict: pure. What is asked in each phase, and what the answers make of it.

checks: the first prompt answers the validation examples, a judge's answers are asked for twice, and two rewrites show
whether the text matters. search: the strategy's plans. holdout: the winner and the first prompt answer examples that
the search never saw. Where a judge can only say which of two answers is better, there are no checks, and the answers of
the two prompts are held against each other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from engine.evaluation.statistics import weighted_mean
from engine.llm import JsonObject
from engine.records.searches import Combination, Phase, SearchTerms, Verdict
from llm_optimizer import headroom
from llm_optimizer.allowance import (
    NOTHING,
    Need,
    Seen,
    need_from_document,
    need_to_document,
    seen_from_document,
    seen_to_document,
)
from llm_optimizer.asking import MOST_JUDGEMENTS, Asked, Rescore
from llm_optimizer.headroom import Probe
from llm_optimizer.strategies import state_codec
from llm_optimizer.strategies.interface import (
    Answer,
    Best,
    Compare,
    Compared,
    Evaluate,
    FinishReason,
    Scored,
    Setup,
    State,
    Strategy,
)
from llm_optimizer.strategies.splitting import Split

FIRST = "c0"
WINNER = "winner"
"""The names of the two prompts that the holdout compares, in its scores and jobs."""

CEILING = 0.97
"""A first prompt with a higher mean leaves nothing to be gained that could be told from noise."""

RESCORED = 10

STEADY = 0.1
"""How far off one judgement may be, as a standard deviation: so many are made that their mean is not further off."""

_COMPARING = frozenset({"auto", "duel"})
_SHARES = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5)}
_ROOT_TWO = math.sqrt(2.0)


@dataclass(slots=True, kw_only=True)
class Search:
    """All that is known of a search, as it is stored.

    `pinned` are texts as they were when the run began. `withheld` is what calls may have taken
    beyond what is known of them. `points` are for the report: how the best mean rose over calls.
    `first`, `again` and `holdout[which]` are scores by example. `winner` is the best text once the search has ended.
    `leader` is what the strategy holds for the best one so far. `arms` and `budget` are what the run has to work with.
    `weights` are those of the holdout's examples. `looks` says how many runs have looked at the holdout, with this one.
    """

    split: Split
    setup: Setup
    strategy_name: str
    pinned: JsonObject = field(default_factory=dict)
    phase: Phase = Phase.CHECKS
    step: int = 0
    state: State | None = None
    seen: dict[str, Seen] = field(default_factory=dict)
    first: dict[str, float | None] = field(default_factory=dict)
    again: dict[str, float | None] = field(default_factory=dict)
    holdout: dict[str, dict[str, float | None]] = field(default_factory=dict)
    withheld: Need = NOTHING
    points: list[JsonObject] = field(default_factory=list)
    finish: str | None = None
    winner: str | None = None
    winner_arm: int = 0
    problem: str | None = None
    weights: dict[str, float] = field(default_factory=dict)
    probe: Probe = field(default_factory=Probe)
    looks: int = 1
    leader: Best | None = None
    arms: tuple[Combination, ...] = ()
    budget: JsonObject = field(default_factory=dict)

    @property
    def baseline(self) -> float | None:
        return mean_of(self.first, self.setup.weights)

    @property
    def by_comparison(self) -> bool:
        """Whether prompts are known by comparisons alone, which need no scores."""
        return self.setup.pairwise_only and self.strategy_name in _COMPARING


def mean_of(scores: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    known = {one: score for one, score in scores.items() if score is not None}
    if weights:
        return weighted_mean(list(known.values()), [weights.get(one, 1.0) for one in known])
    return fmean(known.values()) if known else None


def texts(search: Search) -> dict[str, str]:
    """The candidates' texts by the ids that items name them by."""
    found = {FIRST: search.setup.prompt}
    if search.state is not None:
        found |= {name: candidate.text for name, candidate in search.state.candidates.items()}
    found |= {name: text for name, text in search.probe.texts.items() if text is not None}
    if search.winner is not None:
        found[WINNER] = search.winner
    return found


def plan(search: Search, strategy: Strategy, *, judged: bool) -> tuple[Asked, ...]:
    """What is to be asked next; empty where the phase has nothing left. `judged`: whether a judge has a say."""
    if search.phase is Phase.CHECKS:
        return () if search.by_comparison else _checks(search, judged) or _look(search)
    if search.phase is Phase.SEARCH:
        assert search.state is not None
        return () if strategy.done(search.state) is not None else strategy.plan(search.state)
    return _holdout(search)


def _checks(search: Search, judged: bool) -> tuple[Asked, ...]:
    examples = [one for one in search.split.validation if one not in search.first]
    twice = search.split.validation[:RESCORED] if judged else ()
    asked: list[Asked] = [_first(one) for one in examples]
    return (*asked, *(Rescore(example=one) for one in twice if one not in search.again))


def _look(search: Search) -> tuple[Asked, ...]:
    return headroom.plan(search.probe) if (search.baseline or 0.0) >= headroom.ROOM else ()


def _holdout(search: Search) -> tuple[Asked, ...]:
    """Pairs, so that a plan that is cut short has both of each."""
    done = search.holdout.get(WINNER, {})
    left = [one for one in search.split.holdout if one not in done]
    if search.by_comparison:
        return tuple(_comparison(search, one) for one in left)
    return tuple(_proof(search, which, one) for one in left for which in (FIRST, WINNER))


def _first(example: str) -> Evaluate:
    return Evaluate(candidate=FIRST, example=example, reference=True)


def _proof(search: Search, which: str, example: str) -> Evaluate:
    arm = search.winner_arm if which == WINNER else 0
    return Evaluate(candidate=which, example=example, arm=arm, reference=True, judgements=judgements(search))


def _comparison(search: Search, example: str) -> Compare:
    return Compare(first=FIRST, second=WINNER, example=example, arm=search.winner_arm, reference=True)


def applied(search: Search, strategy: Strategy, answers: Sequence[Answer]) -> Search:
    """After some or all of a plan was answered."""
    new = replace(search, step=search.step + 1)
    problem = next((answer.problem for answer in answers if answer.problem), None)
    new.problem = problem or search.problem
    if search.phase is Phase.CHECKS:
        scored = {answer.key: answer.score for answer in answers if isinstance(answer, Scored)}
        firsts = {_first(one).key: one for one in search.split.validation}
        new.first = search.first | _by_example(scored, firsts)
        said = {firsts[each.key]: each for each in answers if isinstance(each, Scored) and each.key in firsts}
        new.probe = headroom.seen(headroom.applied(search.probe, search.setup, answers), said)
        rescored = {Rescore(example=one).key: one for one in search.split.validation}
        new.again = search.again | _by_example(scored, rescored)
    elif search.phase is Phase.SEARCH:
        assert search.state is not None
        new.state = strategy.apply(search.state, answers)
        new.leader = strategy.best(new.state)
    else:
        new.holdout = _with_pairs(search, answers)
    return new


def _by_example(scored: Mapping[str, float | None], examples: Mapping[str, str]) -> dict[str, float | None]:
    return {examples[key]: score for key, score in scored.items() if key in examples}


def _with_pairs(search: Search, answers: Sequence[Answer]) -> dict[str, dict[str, float | None]]:
    found = _compared(search, answers) if search.by_comparison else _evaluated(search, answers)
    both = set(found[FIRST]) & set(found[WINNER])
    return {
        which: search.holdout.get(which, {}) | {one: score for one, score in found[which].items() if one in both}
        for which in (FIRST, WINNER)
    }


def _evaluated(search: Search, answers: Sequence[Answer]) -> dict[str, dict[str, float | None]]:
    scored = {answer.key: answer.score for answer in answers if isinstance(answer, Scored)}
    return {
        which: _by_example(scored, {_proof(search, which, one).key: one for one in search.split.holdout})
        for which in (FIRST, WINNER)
    }


def _compared(search: Search, answers: Sequence[Answer]) -> dict[str, dict[str, float | None]]:
    """The better answer counts as 1, a tie as a half for both."""
    asked = {_comparison(search, one).key: one for one in search.split.holdout}
    said = [each for each in answers if isinstance(each, Compared) and each.key in asked]
    shares = {asked[each.key]: _SHARES.get(each.winner or "", (None, None)) for each in said}
    return {which: {one: share[place] for one, share in shares.items()} for place, which in enumerate((FIRST, WINNER))}


def checked(search: Search, strategy: Strategy, terms: SearchTerms) -> Search:
    """After the checks: the strategy's start, or the end where nothing is to be gained."""
    noise = judge_noise(search)
    baseline = search.baseline
    if baseline is None and search.first:
        return ended(search, FinishReason.ERROR)
    is_flat = headroom.is_flat(headroom.gaps(search.probe, search.first, search.setup.weights), noise)
    if baseline is not None and (baseline >= CEILING or is_flat) and not terms.force:
        return ended(search, FinishReason.NO_HEADROOM)
    setup = replace(search.setup, judge_noise=noise)
    return replace(search, setup=setup, phase=Phase.SEARCH, state=strategy.start(setup))


def judge_noise(search: Search) -> float:
    """The standard deviation of one score when the same answer is judged again."""
    pairs = ((search.first.get(one), score) for one, score in search.again.items())
    gaps = [before - after for before, after in pairs if before is not None and after is not None]
    return math.sqrt(fmean([gap * gap for gap in gaps])) / _ROOT_TWO if gaps else 0.0


def judgements(search: Search) -> int:
    """How often the judge is asked about each answer of the holdout: more often the less it agrees with itself."""
    wanted = math.ceil((search.setup.judge_noise / STEADY) ** 2 - 1e-9)
    return max(1, min(wanted, MOST_JUDGEMENTS))


def searched(search: Search, strategy: Strategy, reason: FinishReason) -> Search:
    """After the strategy has ended, or its budget: with the winner to be proven, or without one."""
    assert search.state is not None
    best = strategy.best(search.state)
    text = search.state.candidates[best.candidate].text
    if reason is FinishReason.ERROR:
        return ended(search, reason)
    if text == search.setup.prompt and best.arm == 0:
        return ended(replace(search, winner=None), reason)
    found = replace(search, winner=text, winner_arm=best.arm, finish=str(reason))
    return replace(found, phase=Phase.HOLDOUT if search.split.holdout else Phase.ENDED)


def ended(search: Search, reason: FinishReason) -> Search:
    return replace(search, phase=Phase.ENDED, finish=str(reason))


def verdict_without_test(search: Search) -> Verdict | None:
    """The verdict where there is no winner to be proven; None where the holdout has to decide."""
    if search.finish == FinishReason.NO_HEADROOM:
        return Verdict.NO_HEADROOM
    return Verdict.NO_IMPROVEMENT if search.winner is None else None


def has_proof(search: Search) -> bool:
    """Whether some example of the holdout has told the winner from the first prompt, or that they are alike."""
    before, after = search.holdout.get(FIRST, {}), search.holdout.get(WINNER, {})
    return any(before.get(one) is not None and after.get(one) is not None for one in search.split.holdout)


def best_mean(search: Search) -> float | None:
    """The best candidate's mean on the validation examples so far; by comparisons alone there is none."""
    leader = None if search.by_comparison else search.leader
    return search.baseline if leader is None or leader.mean is None else leader.mean


def leading_text(search: Search) -> str:
    """The text of the best candidate so far."""
    if search.winner is not None:
        return search.winner
    if search.state is None or search.leader is None:
        return search.setup.prompt
    return search.state.candidates[search.leader.candidate].text


def improved(search: Search) -> bool:
    """Whether there is a candidate that would have to be proven if the search ended now."""
    if search.by_comparison or search.setup.own_judges:  # who leads may be another one after the next comparison
        return search.state is not None and len(search.state.candidates) > search.setup.arms
    return leading_text(search) != search.setup.prompt or (search.leader is not None and search.leader.arm != 0)


def to_document(search: Search) -> dict[str, Any]:
    """JSON; see state_codec for the strategy's part, which has the setup too."""
    return {
        "strategyName": search.strategy_name,
        "pinned": search.pinned,
        "split": {
            "feedback": list(search.split.feedback),
            "validation": list(search.split.validation),
            "holdout": list(search.split.holdout),
            "validated": search.split.validated,
        },
        "setup": None if search.state is not None else state_codec.to_document(_bare(search))["setup"],
        "phase": str(search.phase),
        "step": search.step,
        "state": None if search.state is None else state_codec.to_document(search.state),
        "seen": seen_to_document(search.seen),
        "first": search.first,
        "again": search.again,
        "holdout": search.holdout,
        "points": search.points,
        "withheld": need_to_document(search.withheld),
        "finish": search.finish,
        "winner": search.winner,
        "winnerArm": search.winner_arm,
        "problem": search.problem,
        "weights": search.weights,
        "probe": headroom.to_document(search.probe),
        "looks": search.looks,
        "leader": None if search.leader is None else asdict(search.leader),
        "arms": [asdict(arm) for arm in search.arms],
        "budget": search.budget,
    }


def from_document(document: Mapping[str, Any]) -> Search:
    parts = document["split"]
    split = Split(
        feedback=tuple(parts["feedback"]),
        validation=tuple(parts["validation"]),
        holdout=tuple(parts["holdout"]),
        validated=parts["validated"],
    )
    state = None if document["state"] is None else state_codec.from_document(document["state"])
    return Search(
        split=split,
        setup=state.setup if state is not None else _setup(document["setup"]),
        strategy_name=document["strategyName"],
        pinned=document["pinned"],
        phase=Phase(document["phase"]),
        step=document["step"],
        state=state,
        seen=seen_from_document(document["seen"]),
        first=dict(document["first"]),
        again=dict(document["again"]),
        holdout={which: dict(scores) for which, scores in document["holdout"].items()},
        points=list(document["points"]),
        withheld=need_from_document(document["withheld"]) if "withheld" in document else NOTHING,
        finish=document["finish"],
        winner=document["winner"],
        winner_arm=document["winnerArm"],
        problem=document["problem"],
        weights=document.get("weights", {}),
        probe=headroom.from_document(document.get("probe")),
        looks=document.get("looks", 1),
        leader=Best(**leader) if (leader := document.get("leader")) is not None else None,
        arms=tuple(Combination(**arm) for arm in document.get("arms", ())),
        budget=document.get("budget", {}),
    )


def _setup(document: Mapping[str, Any]) -> Setup:
    bare = {"strategy": "", "phase": "", "candidates": [], "scores": {}, "step": 0, "counters": {}, "scratch": {}}
    return state_codec.from_document({**bare, "setup": document, "finish": None}).setup


def _bare(search: Search) -> State:
    return State(strategy=search.strategy_name, setup=search.setup, phase="")
