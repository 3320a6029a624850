"""One finished job of a canary beside what the flow's own prompts answer to the same: the calls that it takes, and what
came of them. Pure but for the measuring."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from engine.evaluation.answers import answer_of, as_text
from engine.jobs.job import Job
from engine.jobs.states import JobState
from engine.llm import AnswerCutOff, AnswerMisfits, AnswerRefused, ContentFiltered, UnusableAnswer
from engine.records.canaries import OPERATION, Canary, Pair
from engine.records.runs import OPTIMIZER
from engine.records.values import PromptFlow
from llm_optimizer.rollouts import Owner, Role, RolloutSpec, is_awaited, job_id_of, response_of
from llm_optimizer.subject import Example, Scoring

LOWEST_PRIORITY = 1000

TRIAL = "trial"
"""The name by which its jobs' references tell a canary's own id."""

ANSWER_ERRORS = frozenset(
    error.__name__ for error in (UnusableAnswer, AnswerRefused, ContentFiltered, AnswerCutOff, AnswerMisfits)
)
"""Failures that are the prompt's: there was an answer, and it could not be used."""

Jobs = Mapping[str, Job | None]
"""What is known of jobs by their ids; None: it was deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`wanted` are the calls that can be made now, by the ids of their jobs; `pair` is there once nothing is awaited.

    `jobs` are the ids of all calls that are known to be needed.
    """

    wanted: Mapping[str, RolloutSpec]
    jobs: tuple[str, ...]
    pair: Pair | None


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two answers: its `score` once it is `known`, None where it cannot have any."""

    known: bool
    score: float | None = None
    specs: tuple[RolloutSpec, ...] = ()


def owner_of(flow: PromptFlow, canary: Canary) -> Owner:
    assert flow.client_id is not None
    return Owner(
        id=canary.id,
        client_id=flow.client_id,
        operation=OPERATION,
        planned_at=canary.since,
        created_by=OPTIMIZER,
        priority=LOWEST_PRIORITY,
        reference={"promptFlowId": flow.id, "canary": canary.prompt_id, TRIAL: canary.id},
    )


def shadow_of(flow: PromptFlow, job: Job) -> RolloutSpec:
    """What the job asked, of the flow's own prompts."""
    return RolloutSpec(
        role=Role.WORK,
        model=job.model,
        prompts=flow.prompt_ids,
        request_data=job.request_data,
        temperature=job.temperature,
        response_format=job.response_format,
        tag=job.id,
        reference={"jobId": job.id},
    )


class Pairing:
    """The jobs of one canary. What has no score on either side gives a pair without a difference."""

    def __init__(self, flow: PromptFlow, canary: Canary, scoring: Scoring) -> None:
        self._flow = flow
        self._canary = canary
        self._scoring = scoring
        self.owner = owner_of(flow, canary)

    def standing(self, job: Job, jobs: Jobs) -> Standing:
        """How a job stands that has ended."""
        shadow = shadow_of(self._flow, job)
        shadow_id = job_id_of(self.owner, shadow)
        if self._canary.prompt_id not in job.working_prompts or not _counts(job):
            return Standing(wanted={}, jobs=(), pair=Pair(job.id, None))
        if shadow_id not in jobs:
            return Standing(wanted={shadow_id: shadow}, jobs=(shadow_id,), pair=None)
        baseline = jobs[shadow_id]
        if baseline is not None and is_awaited(baseline):
            return Standing(wanted={}, jobs=(shadow_id,), pair=None)
        if baseline is None or not _counts(baseline):
            return Standing(wanted={}, jobs=(shadow_id,), pair=Pair(job.id, None))
        return self._compared(job, baseline, shadow_id, jobs)

    def _compared(self, job: Job, baseline: Job, shadow_id: str, jobs: Jobs) -> Standing:
        ours, theirs = self._side("canary", job, job, jobs), self._side("baseline", job, baseline, jobs)
        asked = {job_id_of(self.owner, spec): spec for spec in (*ours.specs, *theirs.specs)}
        wanted = {job_id: spec for job_id, spec in asked.items() if job_id not in jobs}
        pair = Pair(job.id, _difference(ours.score, theirs.score)) if ours.known and theirs.known else None
        return Standing(wanted=wanted, jobs=(shadow_id, *asked), pair=pair)

    def _side(self, name: str, job: Job, answered: Job, jobs: Jobs) -> _Side:
        response = response_of(answered)
        if response is None:
            return _Side(known=True, score=0.0)
        example = Example(id=job.id, input=job.request_data, expected=job.expected)
        output = as_text(answer_of(response))
        asked = () if self._scoring.settled(example, output) else self._scoring.asks(example, output)
        specs = tuple(_told(spec, job, name) for spec in asked)
        ids = [job_id_of(self.owner, spec) for spec in specs]
        found = [jobs.get(job_id) for job_id in ids]
        if any(job_id not in jobs for job_id in ids) or any(each is not None and is_awaited(each) for each in found):
            return _Side(known=False, specs=specs)
        judged = [None if each is None else response_of(each) for each in found]
        return _Side(known=True, score=self._scoring.mark(example, output, judged).score, specs=specs)


def _difference(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def _counts(job: Job) -> bool:
    return response_of(job) is not None or _is_unusable(job)


def _is_unusable(job: Job) -> bool:
    failed = job.status is JobState.ERROR_PROCESSING
    return failed and job.failure is not None and job.failure.error_type in ANSWER_ERRORS


def _told(spec: RolloutSpec, job: Job, side: str) -> RolloutSpec:
    """A judge's call about one side's answer, which says whose it is."""
    return replace(spec, tag=f"{job.id}/{side}/{spec.tag}", reference={"jobId": job.id, "side": side})
