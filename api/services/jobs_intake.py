"""How jobs come in: checked, made, stored once, and told to whoever works."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from api.services.idempotency import IdempotencyKeys, RequestKey
from api.services.job_drafts import JobDraft, Maker, check_batch, check_draft, new_jobs, wanted_by_draft
from api.services.job_flows import NONE, Flows, check_flow, flows_of, only_with
from api.services.references import Catalogue, Known, User, Wanted
from engine.errors import Refused
from engine.jobs.job import Job
from engine.jobs.queue import IdempotencyRecord, JobQueue
from engine.jobs.signals import JobSignals
from engine.records.store import RecordStore
from engine.records.values import PromptFlow
from utilities.clock import Clock
from utilities.hop import Hop
from utilities.ids import ObjectIds, following

Insert = Callable[[Sequence[Job]], Awaitable[None]]
"""Stores jobs together with those of other requests of the same instant; durable when it returns."""

Check = Callable[[Sequence[JobDraft], Known, User, Flows], None]


@dataclass(frozen=True, slots=True)
class Accepted:
    """`replayed` tells that an earlier request with the same key made these jobs."""

    jobs: Sequence[Job]
    replayed: bool = False


class JobIntake:
    """Accepts jobs. All of a request's are valid before any is stored, and all are stored or none.

    A key is reserved together with the ids of its jobs before they are stored. Whoever finds a reservation stores the
    same jobs again, which does nothing where they exist and finishes the work where its first request died.
    """

    def __init__(
        self,
        queue: JobQueue,
        flows: RecordStore[PromptFlow],
        catalogue: Catalogue,
        *,
        signals: JobSignals,
        clock: Clock,
        ids: ObjectIds,
    ) -> None:
        self._queue = queue
        self._flows = flows
        self._catalogue = catalogue
        self._signals = signals
        self._clock = clock
        self._ids = ids
        self._keys = IdempotencyKeys(queue)

    async def one(self, draft: JobDraft, maker: Maker, key: RequestKey | None, *, hop: Hop, insert: Insert) -> Accepted:
        """As `batch`, for a single job, on an event loop: stored by `insert`, everything else that blocks by `hop`."""
        return self._told(await self.untold(draft, maker, key, hop=hop, insert=insert))

    async def untold(
        self,
        draft: JobDraft,
        maker: Maker,
        key: RequestKey | None,
        *,
        hop: Hop,
        insert: Insert,
        stored_as: Callable[[Job], Job] = lambda job: job,
    ) -> Accepted:
        """As `one`, but nobody who works here is told yet: for a job that its caller wants to run.

        `stored_as` says what a new job is stored and answered as. With a key it is stored as it is: its request may be
        repeated while the first one is under way, and both store the same.
        """
        if key is not None:
            return await hop(self._keyed, [draft], maker, key, _check_single)
        flows = NONE if draft.prompt_flow is None else await hop(self._named, [draft])
        wanted = wanted_by_draft(draft, flows)
        known = self._catalogue.remembered(wanted)
        if known is None:
            known = await hop(self._catalogue.known, [wanted])
        check_draft(draft, known, maker.owner, flows)
        made = new_jobs([draft], [self._ids.new()], maker, self._clock.now(), flows)
        jobs = [stored_as(job) for job in made]
        await insert(jobs)
        return Accepted(jobs)

    def batch(self, drafts: Sequence[JobDraft], maker: Maker, key: RequestKey | None) -> Accepted:
        """The new jobs in the order of `drafts`.

        Raises Refused with the position of the first draft that cannot be accepted, KeyReused, StorageUnavailable.
        """
        if key is not None:
            return self._told(self._keyed(drafts, maker, key, check_batch))
        flows = self._named(drafts)
        self._check(drafts, maker, check_batch, flows)
        jobs = new_jobs(drafts, self._ids.block(len(drafts)), maker, self._clock.now(), flows)
        self._queue.insert(jobs)
        return self._told(Accepted(jobs))

    def _keyed(self, drafts: Sequence[JobDraft], maker: Maker, key: RequestKey, check: Check) -> Accepted:
        now, flows = self._clock.now(), self._named(drafts)
        client_id = maker.owner.client_id
        try:
            self._check(drafts, maker, check, flows)
        except Refused:
            standing = self._keys.standing(client_id, key, now)
            if standing is None:
                raise
            return self._again(drafts, maker, standing, flows)
        first = self._ids.block(len(drafts))[0]
        record = self._keys.reserve(client_id, key, first, len(drafts), now)
        if record.first_id != first:
            return self._again(drafts, maker, record, flows)
        jobs = new_jobs(drafts, following(first, len(drafts)), maker, now, flows)
        self._queue.insert(jobs)
        return Accepted(jobs)

    def _again(self, drafts: Sequence[JobDraft], maker: Maker, record: IdempotencyRecord, flows: Flows) -> Accepted:
        """A flow may have changed since: jobs of one are shown as they were stored, with the prompts that it had."""
        ids = following(record.first_id, record.count)
        flowed = any(draft.prompt_flow is not None for draft in drafts)
        stored = self._queue.get_many(ids) if flowed else {}
        if len(stored) < len(ids):
            for draft in drafts:
                check_flow(draft.prompt_flow, flows, maker.owner)
            jobs = new_jobs(drafts, ids, maker, record.created_at, flows)
            self._queue.insert(jobs)
            stored = {**{job.id: job for job in jobs}, **stored}
        return Accepted([stored[job_id] for job_id in ids], replayed=True)

    def _named(self, drafts: Sequence[JobDraft]) -> Flows:
        """Without the canaries whose prompts are gone."""
        flows = flows_of(self._flows, (draft.prompt_flow for draft in drafts))
        canaries = {prompt for flow in flows.values() for prompt in flow.shares}
        if not canaries:
            return flows
        known = self._catalogue.known([Wanted(tuple(canaries), ())]).prompts
        return {name: only_with(flow, known) for name, flow in flows.items()}

    def _check(self, drafts: Sequence[JobDraft], maker: Maker, check: Check, flows: Flows) -> None:
        known = self._catalogue.known(wanted_by_draft(draft, flows) for draft in drafts)
        check(drafts, known, maker.owner, flows)

    def _told(self, accepted: Accepted) -> Accepted:
        self._signals.ready(accepted.jobs)
        return accepted


def _check_single(drafts: Sequence[JobDraft], known: Known, user: User, flows: Flows) -> None:
    check_draft(drafts[0], known, user, flows)
