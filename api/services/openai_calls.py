"""Requests to OpenAI's endpoints whose callers wait: jobs like all others, without anybody to fetch them later."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.core.gate import Gate
from api.core.openai_failures import of_cancellation, of_failure, of_waiting
from api.services.direct import DirectService, Patience, has_ended
from api.services.idempotency import RequestKey
from api.services.job_drafts import EndpointDraft, Maker
from engine.jobs.changes import after_event
from engine.jobs.job import Job
from engine.jobs.queue import JobQueue
from engine.jobs.signals import JobSignals
from engine.jobs.states import Event
from engine.llm import JsonObject, Level
from engine.records.control import DirectRuns
from utilities.clock import Clock

_TRIES = 5


@dataclass(frozen=True, slots=True)
class OpenAiAnswer:
    """`body` is the endpoint's own; `replayed` tells that an earlier request with the same key made it.

    `levels` is what is left of the limits of the model that answered.
    """

    job: Job
    body: JsonObject
    replayed: bool
    levels: Sequence[Level] = ()


class OpenAiCalls:
    """For one event loop, which it never blocks."""

    def __init__(
        self,
        direct: DirectService,
        runs: DirectRuns,
        gate: Gate,
        *,
        queue: JobQueue,
        signals: JobSignals,
        clock: Clock,
    ) -> None:
        self._direct = direct
        self._runs = runs
        self._queue = queue
        self._gate = gate
        self._signals = signals
        self._clock = clock

    def levels(self, model_name: str) -> Sequence[Level]:
        """What is left of the model's own limits as this process knows them."""
        return self._runs.levels(model_name)

    async def run(self, draft: EndpointDraft, maker: Maker, key: RequestKey | None, patience: Patience) -> OpenAiAnswer:
        """Raises Unanswered where there is no answer, or none in time; else as DirectService.run.

        A request without a key, whose answer nobody could ask for again, is then withdrawn: what has not been called is
        not paid for. With a key it goes on, and repeating the request gets the answer.
        """
        answered = await self._direct.run(draft, maker, key, patience)
        job = answered.job
        if not has_ended(job) and key is None:
            job = await self._gate(self._withdrawn, job, maker.by)
        if job.response_data is not None and job.failure is None:
            levels = self.levels(job.answered_by or job.model)
            return OpenAiAnswer(job, job.response_data, answered.replayed, levels)
        if job.failure is not None and has_ended(job):
            raise of_failure(job.failure)
        if answered.waits is not None:
            raise of_waiting(answered.waits.reason, answered.waits.text)
        raise of_cancellation()

    def _withdrawn(self, job: Job, by: str) -> Job:
        """The job canceled, or ended where that was faster. From a thread that may block."""
        current: Job | None = job
        for _ in range(_TRIES):
            if current is None or has_ended(current):
                break
            now = self._clock.now()
            canceled = after_event(current, Event.CANCEL, now, by=by)
            if self._queue.compare_and_set([canceled], now) == [True]:
                self._signals.fenced(job.id)
                return canceled
            current = self._queue.get(job.id)
        return current or job
