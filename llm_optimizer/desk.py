"""The step of a search that is under way in this process: its items, and what is known of their jobs.

It lives in memory alone. A process that takes a run over makes another one from the stored state, and finds in the
queue what was asked already.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from engine.jobs.job import Job, Totals
from engine.jobs.states import JobState
from engine.records.runs import sum_of
from llm_optimizer.allowance import Need, spent_of
from llm_optimizer.asking import Asked, Asking
from llm_optimizer.reserving import NOTHING, UNBOUND, Grant, Till
from llm_optimizer.rollouts import (
    FREELY,
    Leave,
    Role,
    RolloutSpec,
    is_awaited,
    job_id_of,
    job_of,
    paid,
    was_dropped,
)
from llm_optimizer.strategies.interface import Answer
from llm_optimizer.withdrawal import OwnJobs

_LOOKED_UP_AT_ONCE = 1_000

Find = Callable[[Sequence[str]], Mapping[str, Job]]


class Desk:
    """At most `most` items are begun and unanswered at a time, in the plan's order. Synchronous, for one thread.

    A plan is taken up in parts, each of which fits into what `till` has left even if all of it takes as much as it can.
    So which items are asked depends on what was taken alone, and is the same for a process that takes the step over.
    """

    def __init__(self, asking: Asking, items: Sequence[Asked], most: int, till: Till) -> None:
        self._asking = asking
        self._most = most
        self._till = till
        self._open = {item.key: item for item in items}
        self._keys = tuple(self._open)
        self._left = list(self._keys)
        self._late: list[str] = []
        self._grants: dict[str, Grant] = {}
        self._leaves: dict[str, Leave] = {}
        self._waiting: deque[str] = deque()
        self._begun: dict[str, None] = {}
        self._news: set[str] = set()
        self._askers: dict[str, set[str]] = {}
        self._answers: dict[str, Answer] = {}
        self._jobs: dict[str, Job | None] = {}
        self._specs: dict[str, RolloutSpec] = {}
        self._untaken: dict[str, Job] = {}

    @property
    def is_done(self) -> bool:
        """Whether all that was taken up is answered, or is to be taken up anew."""
        return not self._begun and not self._waiting

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

    def take_up(self, free: Collection[str] = (), *, pairs: bool = False) -> bool:
        """The next part of the plan: whether there is one. Nothing may be under way.

        Where nothing fits, what is `free` is taken up all the same. `pairs`: two items belong together each.
        """
        if not self._till.restricts:
            keys = dict.fromkeys(self._left, UNBOUND)
        else:
            keys = self._affordable(pairs) or {key: NOTHING for key in self._left if key in free}
        self._grants |= keys
        self._left = [key for key in self._left if key not in keys]
        self._late = [key for key in self._late if key not in keys]
        self._waiting.extend(keys)
        return bool(keys)

    def _affordable(self, pairs: bool) -> dict[str, Grant]:
        known = {job_id: job for job_id, job in self._jobs.items() if self._counts(job_id, job)}
        order = [*self._late, *self._left]
        items = [self._open[key] for key in order]
        fewest = 2 if pairs and not self._late else 1
        grants = self._till.granted(
            items, lambda item: self._asking.standing(item, known), self._taken(), fewest=fewest
        )
        if pairs:
            begun = min(len(grants), len(self._late))
            grants = grants[: begun + (len(grants) - begun) // 2 * 2]
        return dict(zip(order, grants, strict=False))

    def _counts(self, job_id: str, job: Job | None) -> bool:
        """Not a job that another process made for an item that is not yet taken up here."""
        return job_id in self._leaves or job is None or not self._asking.is_fresh(job)

    def _taken(self) -> Need:
        """By this step so far: what is known, and what may have been taken beyond it."""
        known = [job for job_id in self._leaves if (job := self._jobs.get(job_id)) is not None]
        return spent_of(paid(job) for job in known if self._asking.is_fresh(job)) + self.withheld()

    def withheld(self) -> Need:
        """What this step's jobs may have taken beyond what is known of them."""
        asked = [job_id for job_id in sorted(self._leaves) if job_id in self._jobs]
        found = [(self._specs[job_id], self._jobs[job_id]) for job_id in asked]
        mine = [(spec, job) for spec, job in found if job is None or self._asking.is_fresh(job)]
        return sum((self._till.withheld(spec, job) for spec, job in mine), Need())

    def close(self, find: Find) -> None:
        """Answers what has ended; nothing more is to be asked."""
        found = _looked_up(find, self.awaited)
        self._learn({job_id: job for job_id, job in found.items() if not was_dropped(job)})
        self._advanced()
        self._jobs |= found

    def recover(self, find: Find) -> bool:
        """Answers what had ended of what a process before this one asked in this step; nothing more is to be asked.

        Whether it had asked anything: what that took is to be counted.
        """
        self.known_before(find)
        asked = {job_id: spec for job_id, spec in self._specs.items() if self._is_new(job_id)}
        self._leaves |= dict.fromkeys(asked, FREELY)
        kept = {job_id: job for job_id, job in self._jobs.items() if job is None or not was_dropped(job)}
        stands = {key: self._asking.standing(item, kept) for key, item in self._open.items()}
        self._answers |= {key: each.answer for key, each in stands.items() if each.answer is not None}
        return bool(asked)

    def go_on(self, find: Find, jobs: OwnJobs, now: datetime) -> None:
        """Answers what can be answered, and makes the calls that are next."""
        self._reopen(jobs, now)
        while wanted := self._advanced():
            found = _looked_up(find, list(wanted))
            missing = {job_id: spec for job_id, spec in wanted.items() if job_id not in found}
            made = [
                job_of(self._asking.owner, spec, now, self._leaves.get(job_id, FREELY))
                for job_id, spec in missing.items()
            ]
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
        wanted = {job_id_of(self._asking.owner, spec): spec for spec in standing.wanted}
        may_go_on = self._accounted(key, standing.jobs, wanted)
        if standing.answer is not None:
            self._answers[key] = standing.answer
            del self._open[key], self._begun[key]
            return {}
        if not may_go_on:
            del self._begun[key]
            self._late.append(key)
            return {}
        for job_id in standing.jobs:
            self._askers.setdefault(job_id, set()).add(key)
        return wanted

    def _accounted(self, key: str, job_ids: Sequence[str], wanted: Mapping[str, RolloutSpec]) -> bool:
        """Whether what the item's jobs can take at most is within what was reserved for it; then it is deducted."""
        grant = self._grants[key]
        specs = {job_id: wanted.get(job_id) or self._specs[job_id] for job_id in job_ids if job_id not in self._leaves}
        new = {job_id: spec for job_id, spec in specs.items() if self._is_new(job_id)}
        need = self._till.most(new.values(), grant)
        if grant.need is not None and not grant.need.holds(need):
            return False
        self._grants[key] = grant.less(need)
        self._leaves |= {job_id: self._till.leave(spec, grant) for job_id, spec in new.items()}
        self._specs |= new
        return True

    def _is_new(self, job_id: str) -> bool:
        """Whether it is this step that pays for the job."""
        job = self._jobs.get(job_id)
        return job is None or self._asking.is_fresh(job)

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
