"""Whether anything can be gained by another text: a look before a search begins, with two rewrites. Pure.

One rewrite is made as any other, one by a meta-model that is shown what was wanted of the very examples that both are
tried on. Where neither changes the score by more than the judge does by itself, the text does not matter here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.evaluation.statistics import scaled_to_mean
from llm_optimizer.strategies import candidates
from llm_optimizer.strategies.interface import (
    Answer,
    Evaluate,
    ProposalKind,
    Propose,
    Proposed,
    Scored,
    Setup,
    Shown,
    State,
)
from llm_optimizer.strategies.phases import opening

REWRITE = "rewrite"
ORACLE = "oracle"
NAMES = (REWRITE, ORACLE)

TRIED_ON = 10
FEWEST = 8
ROOM = 0.6
"""A first prompt with a lower mean leaves room, whatever two rewrites say: without this, one in eleven simulated
searches that had something to find would have been ended, all of first prompts under 0.4."""

LARGEST_SHARE = 0.05
"""Of a run's rollouts: a smaller run does without the look."""

MOST_SHOWN = 6
LONGEST_FIELD = 1_500
ERRORS = 1.645
"""Standard errors of a difference of two means, by the judge's own noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """`examples` are those of validation that it is made on, none where there is no look; `golds` of them have an
    expected answer.

    `shown` are the first prompt's answers. `texts` and `scores` are by NAMES; a text is None where none could be used.
    """

    examples: tuple[str, ...] = ()
    golds: tuple[str, ...] = ()
    shown: tuple[Shown, ...] = ()
    texts: Mapping[str, str | None] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)


def probe_of(validation: Sequence[str], golds: Sequence[str], rollouts: int) -> Probe:
    """The look that a run with so many rollouts can have; `golds` are examples with an expected answer."""
    examples = tuple(validation[:TRIED_ON])
    shown = tuple(one for one in examples if one in set(golds))
    if len(examples) < FEWEST or not shown or len(NAMES) * len(examples) > LARGEST_SHARE * rollouts:
        return Probe()
    return Probe(examples=examples, golds=shown)


def state_of(setup: Setup) -> State:
    """What the meta calls are about: the first prompt and nothing else."""
    return opening("checks", setup, "checks")


def seen(probe: Probe, answers: Mapping[str, Scored]) -> Probe:
    """After the first prompt's answers, by their examples."""
    rows = [
        Shown(
            example=one,
            output=answer.output[:LONGEST_FIELD],
            score=answer.score,
            feedback=answer.feedback[:LONGEST_FIELD],
        )
        for one in probe.examples
        if (answer := answers.get(one)) is not None and answer.score is not None
    ]
    return replace(probe, shown=(*probe.shown, *rows))


def plan(probe: Probe) -> tuple[Propose | Evaluate, ...]:
    """Both rewrites, then their answers; nothing where there is no look or one of them cannot be used."""
    missing = [name for name in NAMES if name not in probe.texts]
    if not probe.examples or not probe.shown:
        return ()
    if missing:
        return tuple(_proposal(probe, name) for name in missing)
    if None in probe.texts.values():
        return ()
    return tuple(
        Evaluate(candidate=name, example=one, reference=True)
        for one in probe.examples
        for name in NAMES
        if one not in probe.scores.get(name, {})
    )


def _proposal(probe: Probe, name: str) -> Propose:
    worst = sorted(probe.shown, key=lambda one: one.score)[:MOST_SHOWN]
    golds = probe.golds if name == ORACLE else ()
    serial, kind = NAMES.index(name), ProposalKind.EDIT
    return Propose(serial=serial, kind=kind, parent="c0", shown=tuple(worst), golds=golds)


def applied(probe: Probe, setup: Setup, answers: Sequence[Answer]) -> Probe:
    """After some or all of a plan was answered."""
    known = {answer.key: answer for answer in answers}
    texts = dict(probe.texts)
    scores = {name: dict(rows) for name, rows in probe.scores.items()}
    for item in plan(probe):
        answer = known.get(item.key)
        if isinstance(item, Propose) and isinstance(answer, Proposed):
            texts[NAMES[item.serial]] = _usable(setup, answer)
        elif isinstance(item, Evaluate) and isinstance(answer, Scored):
            scores.setdefault(item.candidate, {})[item.example] = answer.score
    return replace(probe, texts=texts, scores=scores)


def _usable(setup: Setup, answer: Proposed) -> str | None:
    if not answer.proposals:
        return None
    made = candidates.add(state_of(setup), answer.proposals[0], ("c0",), ProposalKind.EDIT.value)
    return None if made.rejected is not None else made.text


def gaps(probe: Probe, first: Mapping[str, float | None], weights: Mapping[str, float]) -> dict[str, list[float]]:
    """Of each rewrite's scores over the first prompt's, such that their mean is the weighted one."""
    found: dict[str, list[float]] = {}
    for name, scores in probe.scores.items():
        rows = [
            (after - before, weights.get(one, 1.0))
            for one in probe.examples
            if (after := scores.get(one)) is not None and (before := first.get(one)) is not None
        ]
        found[name] = scaled_to_mean([gap for gap, _ in rows], [weight for _, weight in rows])
    return found


def noise_of_mean(noise: float, count: int) -> float:
    """How far apart two means over `count` answers may be by the judge alone."""
    return ERRORS * noise * math.sqrt(2 / count) if count else 0.0


def is_flat(found: Mapping[str, Sequence[float]], noise: float) -> bool:
    """Whether both rewrites score as the first prompt does, as far as the judge can tell."""
    return all(len(found.get(name, ())) >= FEWEST for name in NAMES) and all(
        abs(math.fsum(each) / len(each)) <= noise_of_mean(noise, len(each)) + 1e-9 for each in found.values()
    )


def to_document(probe: Probe) -> dict[str, Any]:
    return {
        "examples": list(probe.examples),
        "golds": list(probe.golds),
        "shown": [[one.example, one.output, one.score, one.feedback] for one in probe.shown],
        "texts": dict(probe.texts),
        "scores": {name: dict(rows) for name, rows in probe.scores.items()},
    }


def from_document(document: Mapping[str, Any] | None) -> Probe:
    """None: a search that began before there were such looks."""
    if document is None:
        return Probe()
    shown = [Shown(example=row[0], output=row[1], score=row[2], feedback=row[3]) for row in document["shown"]]
    return Probe(
        examples=tuple(document["examples"]),
        golds=tuple(document["golds"]),
        shown=tuple(shown),
        texts=document["texts"],
        scores=document["scores"],
    )
