"""From what a strategy asks for to calls, and from their jobs to its answers. Pure.

Nothing is remembered here: looked at again with more jobs known, an item needs its next calls or has its answer. A call
that was made before, by whichever step, is the same job, and so costs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import orjson

from engine.jobs.job import Job
from engine.llm import JsonObject
from llm_optimizer.rollouts import Owner, Role, RolloutSpec, is_awaited, job_id_of, paid, problem_of, response_of
from llm_optimizer.strategies import meta_prompts
from llm_optimizer.strategies.interface import (
    Answer,
    Compare,
    Compared,
    Evaluate,
    Propose,
    Proposed,
    Scored,
    State,
)
from llm_optimizer.subject import Example, Mark, Scoring, Subject

META_TEMPERATURE = 1.0

MOST_JUDGEMENTS = 5
_AGAIN = ("", " again", *(f" again {number}" for number in range(2, MOST_JUDGEMENTS)))

Jobs = Mapping[str, Job | None]
"""What is known of jobs by their ids; None: it was deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescore:
    """The first prompt's answer to an example is judged once more, to see how far the judge agrees with itself."""

    example: str

    @property
    def key(self) -> str:
        return f"rescore/{self.example}"


Asked = Evaluate | Propose | Compare | Rescore


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an item stands: with an answer, or with calls that are still to be made, or waiting for its `jobs`."""

    jobs: tuple[str, ...]
    answer: Answer | None = None
    wanted: tuple[RolloutSpec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One step of a run. `texts` are the candidates' by their ids, `state` the strategy's once there is one."""

    owner: Owner
    subject: Subject
    step: int
    temperature: float
    texts: Mapping[str, str]
    state: State | None = None

    def standing(self, item: Asked, jobs: Jobs) -> Standing:
        """Where `item` stands, by what is known of jobs."""
        if isinstance(item, Propose):
            return self._proposed(item, jobs)
        if isinstance(item, Compare):
            return self._compared(item, jobs)
        return self._scored(item, jobs)

    def scoring(self, item: Evaluate | Compare | Rescore) -> Scoring:
        """By whom the answers are scored."""
        if isinstance(item, Rescore):
            return self.subject.scoring
        return self.subject.scoring_of(item.arm, reference=item.reference)

    def work(self, candidate: str, example: str, arm: int = 0, sample: int = 0) -> RolloutSpec:
        """The call in which a candidate answers an example."""
        return RolloutSpec(
            role=Role.WORK,
            model=self.subject.arms[arm].working,
            instructions=self.subject.instructions(self.texts[candidate]),
            request_data=self.subject.examples[example].request_data,
            temperature=self.temperature,
            tag=f"sample {sample}" if sample else "",
            reference={"step": self.step, "candidate": candidate, "example": example},
        )

    def meta(self, item: Propose) -> RolloutSpec:
        """The call in which the meta-model writes new texts."""
        assert self.state is not None
        text = meta_prompts.request(self.state, item, self._shown(item), template=self.subject.template)
        return RolloutSpec(
            role=Role.META,
            model=self.subject.arms[item.arm].meta,
            instructions=text,
            request_data={"request": "Answer as the instructions say."},
            temperature=META_TEMPERATURE,
            tag=item.key,
            reference={"step": self.step, "candidate": item.parent},
        )

    def is_fresh(self, job: Job) -> bool:
        """Whether this step made the job; what an earlier one made is paid for already."""
        return bool(job.client_reference) and (job.client_reference or {}).get("step") == self.step

    def _scored(self, item: Evaluate | Rescore, jobs: Jobs) -> Standing:
        """Of a rescore only what the judges cost and say differs; of several judgements the mean counts."""
        again = isinstance(item, Rescore)
        work = self.work("c0", item.example) if again else self._work_of(item)
        first = _looked_up(self.owner, (work,), jobs)
        if not first.complete:
            return first.standing()
        example = self.subject.examples[item.example]
        output = output_of(first.responses[0])
        if output is None:
            return first.standing(
                Scored(
                    key=item.key,
                    score=None,
                    problem=first.problem,
                    cost=self._cost(first),
                    fresh=self._any_fresh(first),
                )
            )
        scoring, rounds = self.scoring(item), _rounds(item)
        each = () if scoring.settled(example, output) else scoring.asks(example, output)
        asks = tuple(self._judge(spec, item.example, number) for number in rounds for spec in each)
        judged = _looked_up(self.owner, asks, jobs, before=first)
        if not judged.complete:
            return judged.standing()
        said = [judged.responses[place * len(each) : (place + 1) * len(each)] for place in range(len(rounds))]
        mark = _mean_of([scoring.mark(example, output, responses) for responses in said])
        return judged.standing(
            Scored(
                key=item.key,
                score=mark.score,
                output=output,
                feedback=mark.feedback,
                problem=mark.problem or judged.problem,
                tells=meta_prompts.tells(mark.feedback, _text(example.expected)),
                cost=self._cost(judged),
                fresh=self._any_fresh(judged),
            )
        )

    def _work_of(self, item: Evaluate | Rescore) -> RolloutSpec:
        assert isinstance(item, Evaluate)
        return self.work(item.candidate, item.example, item.arm, item.sample)

    def _proposed(self, item: Propose, jobs: Jobs) -> Standing:
        asked = _looked_up(self.owner, (self.meta(item),), jobs)
        if not asked.complete:
            return asked.standing()
        cost = self._cost(asked)
        output = output_of(asked.responses[0])
        if output is None:
            return asked.standing(Proposed(key=item.key, problem=asked.problem, cost=cost))
        assert self.state is not None
        return asked.standing(meta_prompts.read(self.state, item, self._shown(item), output, cost))

    def _compared(self, item: Compare, jobs: Jobs) -> Standing:
        works = tuple(self.work(each, item.example, item.arm) for each in (item.first, item.second))
        both = _looked_up(self.owner, works, jobs)
        if not both.complete:
            return both.standing()
        first, second = (output_of(response) for response in both.responses)
        if first is None or second is None:
            return both.standing(
                Compared(
                    key=item.key, winner=None, problem=both.problem, cost=self._cost(both), fresh=self._any_fresh(both)
                )
            )
        example = self.subject.examples[item.example]
        scoring = self.scoring(item)
        asks = scoring.compares(example, first, second)
        judged = _looked_up(self.owner, tuple(self._judge(spec, item.example, 0) for spec in asks), jobs, before=both)
        if not judged.complete:
            return judged.standing()
        winner, why = scoring.winner(judged.responses)
        return judged.standing(
            Compared(
                key=item.key,
                winner=winner,
                feedback=why,
                problem=judged.problem,
                cost=self._cost(judged),
                fresh=self._any_fresh(judged),
            )
        )

    def _judge(self, spec: RolloutSpec, example: str, number: int) -> RolloutSpec:
        """The judge's call for the `number`-th time about the same answer."""
        return RolloutSpec(
            role=Role.EVAL,
            model=spec.model,
            prompts=spec.prompts,
            instructions=spec.instructions,
            request_data=spec.request_data,
            temperature=spec.temperature,
            response_format=spec.response_format,
            tag=spec.tag + _AGAIN[number],
            reference={"step": self.step, "example": example},
        )

    def _shown(self, item: Propose) -> dict[str, meta_prompts.Example]:
        known = self.subject.examples
        return {one: _for_meta(known[one]) for one in meta_prompts.shown_ids(item)}

    def _any_fresh(self, found: "_Found") -> bool:
        return any(self.is_fresh(job) for job in found.known)

    def _cost(self, found: "_Found") -> float:
        totals = [paid(job) for job in found.known if self.is_fresh(job)]
        return float(sum(each.input_cost + each.output_cost for each in totals))


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of some calls' jobs, and of those before them."""

    ids: tuple[str, ...]
    wanted: tuple[RolloutSpec, ...]
    jobs: tuple[Job | None, ...]
    complete: bool
    earlier: tuple[Job | None, ...] = ()

    @property
    def known(self) -> list[Job]:
        return [job for job in (*self.earlier, *self.jobs) if job is not None]

    @property
    def responses(self) -> list[JsonObject | None]:
        return [None if job is None else response_of(job) for job in self.jobs]

    @property
    def problem(self) -> str | None:
        """Why the first of them without an answer has none."""
        return next((problem_of(job) for job in self.jobs if job is None or response_of(job) is None), None)

    def standing(self, answer: Answer | None = None) -> Standing:
        return Standing(self.ids, answer, self.wanted)


def _looked_up(owner: Owner, specs: Sequence[RolloutSpec], jobs: Jobs, before: _Found | None = None) -> _Found:
    ids = tuple(job_id_of(owner, spec) for spec in specs)
    wanted = tuple(spec for spec, job_id in zip(specs, ids, strict=True) if job_id not in jobs)
    found = tuple(jobs.get(job_id) for job_id in ids)
    complete = not wanted and not any(job is not None and is_awaited(job) for job in found)
    if before is None:
        return _Found(ids, wanted, found, complete)
    return _Found((*before.ids, *ids), wanted, found, complete, before.jobs)


def _rounds(item: Evaluate | Rescore) -> range:
    """Which judgements of the answer it is about."""
    return range(1, 2) if isinstance(item, Rescore) else range(item.judgements)


def _mean_of(marks: Sequence[Mark]) -> Mark:
    """Of the judgements that gave a score; the words are the first one's."""
    scores = [mark.score for mark in marks if mark.score is not None]
    if len(marks) == 1 or not scores:
        return marks[0]
    told = next(mark for mark in marks if mark.score is not None)
    return Mark(score=fmean(scores), feedback=told.feedback)


def output_of(response: JsonObject | None) -> str | None:
    """The text of a working call's answer."""
    if response is None:
        return None
    text = response.get("text")
    return text if isinstance(text, str) else orjson.dumps(response, option=orjson.OPT_NON_STR_KEYS).decode()


def _for_meta(example: Example) -> meta_prompts.Example:
    return meta_prompts.Example(input=_text(example.input) or "", expected=_text(example.expected))


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
