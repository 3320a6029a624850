"""The step of a search that is under way in this process: its items, and what is known of their jobs.

It lives in memory alone. A process that takes a run over makes another one from the stored state, and finds in the
queue what was asked already.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from engine.jobs.job import Job, Totals
from engine.jobs.states import JobState
from engine.records.runs import sum_of
from llm_optimizer.asking import Asked, Asking
from llm_optimizer.rollouts import Role, RolloutSpec, is_awaited, job_id_of, job_of, paid, was_dropped
from llm_optimizer.strategies.interface import Answer
from llm_optimizer.withdrawal import OwnJobs

_LOOKED_UP_AT_ONCE = 1_000

Find = Callable[[Sequence[str]], Mapping[str, Job]]


class Desk:
    """At most `most` items are begun and unanswered at a time, in the plan's order. Synchronous, for one thread."""

    def __init__(self, asking: Asking, items: Sequence[Asked], most: int) -> None:
        self._asking = asking
        self._most = most
        self._open = {item.key: item for item in items}
        self._keys = tuple(self._open)
        self._waiting = deque(self._keys)
        self._begun: dict[str, None] = {}
        self._news: set[str] = set()
        self._askers: dict[str, set[str]] = {}
        self._answers: dict[str, Answer] = {}
        self._jobs: dict[str, Job | None] = {}
        self._specs: dict[str, RolloutSpec] = {}
        self._untaken: dict[str, Job] = {}

    @property
    def is_done(self) -> bool:
        return not self._open

    @property
    def answers(self) -> list[Answer]:
        """In the plan's order."""
        return [self._answers[key] for key in self._keys if key in self._answers]

    @property
    def awaited(self) -> list[str]:
        """Ids of jobs that are not known to have ended."""
        return [job_id for job_id, job in self._jobs.items() if job is not None and is_awaited(job)]

    def looked_at(self, asked: Sequence[str], found: Mapping[str, Job]) -> None:
        """Jobs as they are now; those of `asked` that are not found were deleted."""
        self._learn({job_id: found.get(job_id) for job_id in asked if job_id in self._jobs or job_id in found})

    def known_before(self, find: Find) -> set[str]:
        """The keys of items that earlier steps have paid for in full; what is there already is looked up."""
        free: set[str] = set()
        items = list(self._open.values())
        while items:
            unknown: dict[str, RolloutSpec] = {}
            left: list[Asked] = []
            for item in items:
                standing = self._asking.standing(item, self._jobs)
                unknown |= {job_id_of(self._asking.owner, spec): spec for spec in standing.wanted}
                if standing.answer is not None and not self._fresh(standing.jobs):
                    free.add(item.key)
                elif standing.answer is None and standing.wanted:
                    left.append(item)
            found = _looked_up(find, list(unknown))
            self._jobs |= found
            self._specs |= {job_id: unknown[job_id] for job_id in found}
            items = left if found else []
        return free

    def cut(self, keys: Iterable[str]) -> None:
        """Only these items are to be asked."""
        kept = set(keys)
        self._open = {key: item for key, item in self._open.items() if key in kept}
        self._keys = tuple(self._open)
        self._waiting = deque(self._keys)

    def go_on(self, find: Find, jobs: OwnJobs, now: datetime) -> None:
        """Answers what can be answered, and makes the calls that are next."""
        self._reopen(jobs, now)
        while wanted := self._advanced():
            found = _looked_up(find, list(wanted))
            missing = [spec for job_id, spec in wanted.items() if job_id not in found]
            made = [job_of(self._asking.owner, spec, now) for spec in missing]
            if made:
                jobs.insert(made)
            self._learn({**found, **{job.id: job for job in made}})
            self._reopen(jobs, now)

    def take_results(self) -> list[Job]:
        """The results that came since the last time, for whoever consumes them."""
        taken = list(self._untaken.values())
        self._untaken.clear()
        return taken

    def spent(self) -> dict[str, Totals]:
        """What this step's own jobs took, by role."""
        fresh = [job for job in self._jobs.values() if job is not None and self._asking.is_fresh(job)]
        by_role: dict[str, list[Totals]] = {}
        for job in fresh:
            by_role.setdefault(role_of(job), []).append(paid(job))
        return {role: sum_of(totals) for role, totals in by_role.items()}

    def own_jobs(self) -> list[tuple[RolloutSpec, Job]]:
        """This step's own ended jobs with what they were asked, in the order of their ids."""
        known = ((job_id, self._jobs.get(job_id)) for job_id in sorted(self._specs))
        return [(self._specs[job_id], job) for job_id, job in known if job is not None and self._asking.is_fresh(job)]

    def _advanced(self) -> dict[str, RolloutSpec]:
        """The calls that begun items need next, by the ids of their jobs; only items with news are looked at."""
        wanted: dict[str, RolloutSpec] = {}
        while True:
            self._begin()
            news = [key for key in self._begun if key in self._news]
            self._news.clear()
            if not news:
                self._specs |= wanted
                return wanted
            for key in news:
                wanted |= self._looked_over(key)

    def _begin(self) -> None:
        """Takes up items, in the plan's order, as long as there is room."""
        while self._waiting and len(self._begun) < self._most:
            key = self._waiting.popleft()
            self._begun[key] = None
            self._news.add(key)

    def _looked_over(self, key: str) -> dict[str, RolloutSpec]:
        standing = self._asking.standing(self._open[key], self._jobs)
        if standing.answer is not None:
            self._answers[key] = standing.answer
            del self._open[key], self._begun[key]
            return {}
        for job_id in standing.jobs:
            self._askers.setdefault(job_id, set()).add(key)
        return {job_id_of(self._asking.owner, spec): spec for spec in standing.wanted}

    def _learn(self, found: Mapping[str, Job | None]) -> None:
        self._jobs.update(found)
        results = (job for job in found.values() if job is not None and job.status is JobState.PROCESSED)
        self._untaken.update({job.id: job for job in results})
        for job_id in found:
            self._news |= self._askers.get(job_id, set()) & self._begun.keys()

    def _fresh(self, job_ids: Sequence[str]) -> bool:
        known = (self._jobs.get(job_id) for job_id in job_ids)
        return any(job is not None and self._asking.is_fresh(job) for job in known)

    def _reopen(self, jobs: OwnJobs, now: datetime) -> None:
        """Jobs that a pause took back are asked for again."""
        dropped = [job for job in self._jobs.values() if job is not None and was_dropped(job)]
        if dropped:
            jobs.reopen(dropped, now)
            self._jobs |= {job.id: replace(job, status=JobState.PENDING) for job in dropped}


def role_of(job: Job) -> str:
    return str((job.client_reference or {}).get("role", Role.WORK))


def _looked_up(find: Find, job_ids: list[str]) -> dict[str, Job]:
    found: dict[str, Job] = {}
    for start in range(0, len(job_ids), _LOOKED_UP_AT_ONCE):
        found |= find(job_ids[start : start + _LOOKED_UP_AT_ONCE])
    return found
