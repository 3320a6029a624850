"""The end of a search: whether its winner is better on examples that the search never saw, and what becomes of it."""

import hashlib
import math
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime

from engine.errors import Duplicate, Refused, StorageUnavailable, UnknownReference
from engine.evaluation.statistics import LEVEL, Paired, paired
from engine.llm import JsonObject
from engine.metadata import Metadata
from engine.records.runs import OPTIMIZER, Run
from engine.records.searches import Promotion, SearchProgress, Verdict
from engine.records.store import PromptStore
from engine.records.values import Lineage, Prompt, PromptStatus
from llm_optimizer import headroom
from llm_optimizer.search import FIRST, WINNER, Search, judge_noise, judgements, verdict_without_test

_TRIES = 20


def tested(search: Search) -> Paired:
    """The winner against the first prompt, on the holdout examples on which both have a score."""
    before, after = search.holdout.get(FIRST, {}), search.holdout.get(WINNER, {})
    pairs = ((one, before.get(one), after.get(one)) for one in search.split.holdout)
    gaps = {one: theirs - ours for one, ours, theirs in pairs if ours is not None and theirs is not None}
    weights = [search.weights.get(one, 1.0) for one in gaps] if search.weights else None
    return paired(list(gaps.values()), search.setup.seed, weights=weights, level=level_of(search))


def level_of(search: Search) -> float:
    """What p has to be below: the more runs have looked at the holdout, the sooner one of them is better by luck."""
    return LEVEL / search.looks


def numbers_of(search: Search, test: Paired | None) -> JsonObject:
    """The figures behind a verdict, by their wire names."""
    numbers: JsonObject = {
        "baseline": search.baseline,
        "judgeNoise": judge_noise(search),
        "validated": search.split.validated,
        "examples": {
            "feedback": len(search.split.feedback),
            "validation": len(search.split.validation),
            "holdout": len(search.split.holdout),
        },
        "weighted": bool(search.weights or search.setup.weights),
    }
    if search.probe.scores:
        numbers["headroom"] = _headroom_numbers(search)
    return numbers if test is None else {**numbers, "test": _test_numbers(search, test)}


def _headroom_numbers(search: Search) -> JsonObject:
    """What each rewrite of the checks gained, and what the judge alone may make of it."""
    found = headroom.gaps(search.probe, search.first, search.setup.weights)
    count = min(map(len, found.values()))
    gains = {name: math.fsum(each) / len(each) if each else None for name, each in found.items()}
    return {**gains, "noise": headroom.noise_of_mean(judge_noise(search), count), "examples": count}


def _test_numbers(search: Search, test: Paired) -> JsonObject:
    numbers = asdict(test)
    interval = numbers.pop("interval") or {"low": 0.0, "high": 0.0}
    told = {"looks": search.looks, "level": level_of(search), "judgements": judgements(search)}
    return {**numbers, **interval, **told}


class Proving:
    """Synchronous; raises StorageUnavailable."""

    def __init__(self, prompts: PromptStore) -> None:
        self._prompts = prompts

    def concluded(self, run: Run, search: Search, now: datetime) -> SearchProgress:
        """The run's progress with the verdict. The winner is a prompt when this returns, also when it is repeated."""
        assert run.progress is not None
        assert run.search is not None
        verdict, test = verdict_without_test(search), None
        if verdict is None:
            test = tested(search)
            verdict = Verdict.PROVEN if test.proves(run.search.min_gain, level_of(search)) else Verdict.NOT_PROVEN
        if verdict is Verdict.PROVEN and run.search.promote is Promotion.WHEN_PROVEN:
            verdict = Verdict.PROMOTED
        winner_id = None
        if search.winner is not None and search.winner != search.setup.prompt:
            winner_id = self._kept(run, search, published=verdict is Verdict.PROMOTED, now=now)
        return replace(
            run.progress,
            verdict=verdict,
            numbers=numbers_of(search, test),
            best_text=search.winner,
            winner_id=winner_id,
        )

    def published(self, run: Run, now: datetime, *, by: str, force: bool) -> Run:
        """The run after its winner was published, which is done when this returns. Raises Refused."""
        progress = run.progress
        if progress is None or progress.winner_id is None or progress.verdict is None:
            raise Refused(f"run {run.id} has no better prompt that could be promoted")
        if progress.verdict is Verdict.PROMOTED:
            return run
        if progress.verdict is not Verdict.PROVEN and not force:
            raise Refused(f"run {run.id}: its prompt is {progress.verdict}; force=true promotes it all the same")
        self._publish(run, None if force else progress.best_text, now, by)
        return replace(
            run, progress=replace(progress, verdict=Verdict.PROMOTED), metadata=run.metadata.touched(now, by)
        )

    def _publish(self, run: Run, proven: str | None, now: datetime, by: str) -> None:
        """`proven` is the text that it has to have, None: any."""
        assert run.progress is not None
        prompt_id = run.progress.winner_id or ""
        for _ in range(_TRIES):
            prompt = self._prompts.get(prompt_id)
            if prompt is None:
                raise UnknownReference("Prompt", prompt_id)
            if proven not in (None, prompt.text):
                reason = "its prompt was edited after it was proven; force=true promotes it all the same"
                raise Refused(f"run {run.id}: {reason}")
            changed = replace(prompt, status=PromptStatus.PUBLISHED, metadata=prompt.metadata.touched(now, by))
            if prompt.status is PromptStatus.PUBLISHED or self._prompts.compare_and_set(changed):
                return
        raise StorageUnavailable(f"prompt {prompt_id} is being changed by many at once")

    def _kept(self, run: Run, search: Search, *, published: bool, now: datetime) -> str | None:
        """The id of the winner as a version of the first prompt: the client's own, unless that is one already."""
        parent = self._prompts.get(run.initial_prompt_ids[0])
        assert search.winner is not None
        prompt = _version_of(run, parent, search, published=published, now=now)
        for _ in range(_TRIES):
            if self._prompts.get(prompt.id) is not None:
                return prompt.id
            highest = self._prompts.highest_version(prompt.name, prompt.type, prompt.client_id)
            with suppress(Duplicate):
                self._prompts.add(replace(prompt, version=highest + 1))
                return prompt.id
        raise StorageUnavailable(f"the next versions of prompt {prompt.name} are being taken by many at once")


def _version_of(run: Run, parent: Prompt | None, search: Search, *, published: bool, now: datetime) -> Prompt:
    """A private one of the run's client. A prompt that was deleted meanwhile has left its id as a name."""
    digest = hashlib.sha256(f"{run.id} winner".encode()).hexdigest()
    return Prompt(
        id=f"{int(run.metadata.created_at.timestamp()):08x}{digest[:16]}",
        name=run.initial_prompt_ids[0] if parent is None else parent.name,
        version=1,
        type="SYSTEM" if parent is None else parent.type,
        status=PromptStatus.PUBLISHED if published else PromptStatus.DRAFT,
        text=search.winner or "",
        client_id=run.client_id,
        is_public=False,
        metadata=Metadata(created_at=now, created_by=OPTIMIZER),
        lineage=Lineage(parent_id=run.initial_prompt_ids[0], run_id=run.id, step=search.step),
    )
