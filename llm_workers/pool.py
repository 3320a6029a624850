"""Keeps what runs here in step with what is stored: workers are desired state, and the replica that holds a worker's
lease runs it."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from engine.errors import StorageError
from engine.jobs.consumer import Consumer, ConsumerTerms
from engine.jobs.held import LeaseTerms
from engine.jobs.job import Job
from engine.jobs.recovery import recover
from engine.jobs.retry import RetryPolicy
from engine.jobs.signals import JobSignals
from engine.records.store import Storage
from engine.records.values import Worker, WorkerLease
from llm_workers.loops import LoopThread
from llm_workers.placement import planned
from llm_workers.terms import PoolTerms, adopter_terms, worker_terms
from utilities.clock import Clock

_TICK = timedelta(seconds=1)
_HOUSEKEEPING = timedelta(minutes=10)
_LAGGING_SECONDS = 0.1
_SHARED_KEPT = timedelta(days=62)
"""Longer than any period that a shared document is about."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Running:
    consumer: Consumer
    thread: LoopThread
    ended: "Future[Any]"
    started_at: datetime | None


class WorkerPool:
    """Implements engine.records.control.WorkerControl.

    One ticker thread does all of the pool's own storage work: it renews the leases of this replica's workers, takes
    over those nobody runs, stops those that shall not run here, and does what time does to jobs (see recovery).
    """

    def __init__(
        self,
        terms: PoolTerms,
        *,
        storage: Storage,
        signals: JobSignals,
        clock: Clock,
        policy: RetryPolicy,
        calibrate: Callable[[], object],
        tick: Callable[[], float],
        make_thread: Callable[[str], LoopThread],
    ) -> None:
        self.terms = terms
        self._storage = storage
        self._signals = signals
        self._clock = clock
        self._policy = policy
        self._calibrate = calibrate
        self._tick_further = tick
        self._make_thread = make_thread
        self._threads: list[LoopThread] = []
        self._running: dict[str, _Running] = {}
        self._ending: dict[Future[Any], _Running] = {}
        self._adopters: dict[str, _Running] = {}
        self._opening = threading.Lock()
        self._lock = threading.RLock()
        self._nudged = threading.Event()
        self._draining = threading.Event()
        self._drain_began = 0.0
        self._good_until = 0.0
        self._renew_at = 0.0
        self._renewed_until = 0.0
        self._looks_at: datetime | None = None
        self._tidy_at = 0.0
        self._down = False
        self._ticker = threading.Thread(target=self._run, name="worker-pool", daemon=True)
        self._unsubscribe: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._unsubscribe = self._signals.subscribe(self._on_ready, self.fenced)
        self._ticker.start()

    def placed(self, worker: Worker, now: datetime) -> Worker:
        with self._lock:
            place = min(len(self._threads), self.terms.most_threads - 1) + 1
            name = self._idlest().name if self._threads else f"llm-worker-{place}"
        lease = WorkerLease(self.terms.incarnation, now + self.terms.worker_lease)
        return replace(worker, lease=lease, thread_id=name, started_at=now)

    def wake(self) -> None:
        """There may be jobs worth claiming: every consumer looks now. From any thread."""
        for running in list(self._running.values()):
            running.consumer.wake()

    def nudge(self) -> None:
        self._nudged.set()

    def later(self, due_at: datetime) -> None:
        """A job will be due at this instant: look then, if not before. From any thread."""
        if due_at <= self._clock.now():
            self.wake()
        if self._looks_at is None or due_at < self._looks_at:
            self.nudge()

    def runs(self, worker_id: str) -> Consumer | None:
        """What runs a worker here, None where nothing does."""
        with self._lock:
            running = self._running.get(worker_id)
            return running.consumer if running is not None and not running.ended.done() else None

    @property
    def in_flight(self) -> int:
        """Jobs in flight in this process."""
        return sum(running.consumer.in_flight for running in self._all())

    @property
    def adopted(self) -> int:
        """Those of them that adopters work on."""
        return sum(running.consumer.in_flight for running in list(self._adopters.values()))

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    def adopter(self) -> tuple[Consumer, LoopThread]:
        """A consumer that claims nothing, on the loop with the least to do. From any thread but loops'.

        Blocks for as long as it takes to open a loop where there is none yet.
        """
        with self._opening:
            thread = self._thread_for(None)
            running = self._adopters.get(thread.name) or self._adopting(thread)
        return running.consumer, thread

    def begin_drain(self) -> None:
        """Claim nothing more, at once; returns at once. From any thread."""
        if not self._draining.is_set():
            self._drain_began = self._clock.monotonic()
        self._draining.set()
        with self._lock:
            for running in (*self._running.values(), *self._adopters.values()):
                self._call(running, running.consumer.stop)
        self._nudged.set()

    def drain(self, grace: timedelta) -> None:
        """Finish what is in flight within `grace` of the drain's begin, give back the rest uncharged, and end. Blocks
        for as long."""
        self.begin_drain()
        self._unsubscribe()
        if self._ticker.is_alive():
            self._ticker.join(10)
        ends = [running.ended for running in self._all()]
        past = self._clock.monotonic() - self._drain_began
        _, unfinished = wait(ends, max(grace.total_seconds() - past, 0.0))
        if unfinished:
            log.warning("drain_releases", jobs=self.in_flight)
            self.abort()
            wait(ends, 10)
        self._give_up_leases()
        for thread in self._threads:
            thread.close(10)

    def abort(self) -> None:
        """Give back now whatever is in flight. From any thread; after or during a drain."""
        for running in self._all():
            self._call(running, running.consumer.release)

    def _all(self) -> list[_Running]:
        """What runs here, and what was stopped and still has calls in flight."""
        with self._lock:
            return [*self._running.values(), *self._ending.values(), *self._adopters.values()]

    def _run(self) -> None:
        while not self._draining.is_set():
            try:
                pause = self._tick()
                self._note_recovery()
            except StorageError as error:
                self._note(str(error))
                pause = _TICK
            except Exception:  # one broken round must not end the pool
                log.exception("pool_round_broke")
                pause = _TICK
            self._nudged.wait(pause.total_seconds())

    def _note_recovery(self) -> None:
        if self._down:
            log.info("pool_goes_on")
            self.wake()
        self._down = False

    def _note(self, reason: str) -> None:
        if not self._down:
            log.warning("pool_waits", reason=reason)
        self._down = True

    def _tick(self) -> timedelta:
        """One round; answers how long to wait for the next."""
        self._nudged.clear()
        if self._clock.monotonic() >= self._tidy_at:
            self._calibrate()
            self._storage.jobs.forget_expired(self._clock.now())
            self._storage.shared.forget_idle(self._clock.now() - _SHARED_KEPT)
            self._tidy_at = self._clock.monotonic() + _HOUSEKEEPING.total_seconds()
        if not self._running:
            self._tick_further()  # what a worker's first claim should know
        self._renew()
        self._reconcile()
        self._trust_leases()
        pause = self._recover()
        pause = min(pause, timedelta(seconds=min(self._tick_further(), _TICK.total_seconds())))
        self._looks_at = self._clock.now() + pause
        return pause

    def _renew(self) -> None:
        """Extends the leases of this replica's workers when a third of their time has passed."""
        asked_at = self._clock.monotonic()
        if asked_at < self._renew_at:
            return
        lease = self.terms.worker_lease
        self._storage.workers.renew(self.terms.incarnation, self._clock.now() + lease)
        self._renew_at = asked_at + lease.total_seconds() / 3
        self._renewed_until = LeaseTerms.of(lease).good_until(asked_at)

    def _trust_leases(self) -> None:
        """From here on it is certain what this replica runs, for as long as the leases last."""
        resumed = not self._may_claim()
        self._good_until = self._renewed_until
        if resumed:
            self.wake()

    def _may_claim(self) -> bool:
        return self._clock.monotonic() < self._good_until

    def _reconcile(self) -> None:
        now = self._clock.now()
        with self._lock:
            here = {key: running.started_at for key, running in self._running.items() if not running.ended.done()}
        taking = not self._draining.is_set()
        plan = planned(self._storage.workers.running(), here, self.terms.incarnation, now, taking=taking)
        for worker_id in plan.stop:
            self._stop(worker_id)
        for worker in plan.start:
            self._start(worker)
        for worker in plan.take:
            taken = self.placed(worker, now)
            if self._storage.workers.compare_and_set(taken):
                log.info("worker_taken", worker=worker.id)
                self._start(taken)

    def _recover(self) -> timedelta:
        now = self._clock.now()
        due = self._storage.jobs.next_due()
        if due is not None and due <= now:
            done = recover(self._storage.jobs, self._policy, now)
            if done.promoted or done.requeued:
                self.wake()
            if done.more:
                return timedelta(0)
            if not (done.promoted or done.requeued or done.dead):
                return _TICK
            due = self._storage.jobs.next_due()
        return _TICK if due is None else min(_TICK, max(due - now, timedelta(milliseconds=20)))

    def _start(self, worker: Worker) -> None:
        # Not under the lock: the loop may be waiting for it, telling that another consumer has ended.
        with self._opening:
            thread = self._thread_for(worker.thread_id)
        consumer = thread.submit(self._consumer(worker_terms(worker, self.terms), thread)).result(10)
        with self._lock:
            if self._draining.is_set():
                return
            ended = thread.submit(consumer.run())
            self._running[worker.id] = _Running(consumer, thread, ended, worker.started_at)
            thread.consumers += 1
        ended.add_done_callback(lambda done: self._on_ended(worker.id, thread, done))
        log.info("worker_runs", worker=worker.id, name=worker.name, thread=thread.name)

    def _adopting(self, thread: LoopThread) -> _Running:
        consumer = thread.submit(self._consumer(adopter_terms(self.terms), thread)).result(10)
        with self._lock:
            running = _Running(consumer, thread, thread.submit(consumer.serve()), None)
            self._adopters[thread.name] = running
            if self._draining.is_set():
                self._call(running, consumer.stop)
        return running

    async def _consumer(self, terms: ConsumerTerms, thread: LoopThread) -> Consumer:
        return Consumer(terms, thread.tools, self._may_claim)

    def _stop(self, worker_id: str) -> None:
        """Claims end now; what is in flight may go on for the grace period, in the background."""
        with self._lock:
            running = self._running.pop(worker_id, None)
            if running is None:  # it has ended by itself meanwhile
                return
            self._ending[running.ended] = running
        running.ended.add_done_callback(self._forget)
        self._call(running, running.consumer.stop)
        timer = threading.Timer(self.terms.grace.total_seconds(), self._call, args=(running, running.consumer.release))
        timer.daemon = True
        timer.start()
        running.ended.add_done_callback(lambda _: timer.cancel())
        log.info("worker_stops", worker=worker_id, in_flight=running.consumer.in_flight)

    def _forget(self, ended: "Future[Any]") -> None:
        with self._lock:
            self._ending.pop(ended, None)

    def _on_ended(self, worker_id: str, thread: LoopThread, ended: "Future[Any]") -> None:
        with self._lock:
            thread.consumers -= 1
            if worker_id in self._running and self._running[worker_id].ended is ended:
                del self._running[worker_id]
        error = None if ended.cancelled() else ended.exception()
        if error is not None:
            log.error("worker_broke", worker=worker_id, error=repr(error))

    @staticmethod
    def _call(running: _Running, function: Callable[[], None]) -> None:
        if not running.ended.done():
            running.thread.call(function)

    def _idlest(self) -> LoopThread:
        return min(self._threads, key=lambda thread: (thread.lag > _LAGGING_SECONDS, thread.consumers))

    def _thread_for(self, wanted: str | None) -> LoopThread:
        """The loop of that name, else the one with the least to do; a further one only where all lag behind."""
        lagging = all(thread.lag > _LAGGING_SECONDS for thread in self._threads)
        if lagging and len(self._threads) < self.terms.most_threads:
            thread = self._make_thread(f"llm-worker-{len(self._threads) + 1}")
            self._threads.append(thread)
            return thread
        return next((thread for thread in self._threads if thread.name == wanted), self._idlest())

    def _give_up_leases(self) -> None:
        """Lets another replica take this one's workers over now rather than when the leases run out."""
        try:
            for worker in self._storage.workers.running():
                if worker.lease is not None and worker.lease.owner == self.terms.incarnation:
                    self._storage.workers.compare_and_set(replace(worker, lease=None))
        except StorageError as error:
            log.warning("leases_run_out_by_themselves", reason=str(error))

    def _on_ready(self, jobs: Sequence[Job]) -> None:
        for running in list(self._running.values()):
            running.consumer.offer(jobs)
        for due_at in {job.due_at for job in jobs if job.due_at is not None}:
            self.later(due_at)

    def fenced(self, job_id: str) -> None:
        """This job was taken away: its call is dropped if it is held here. From any thread."""
        for running in self._all():
            running.consumer.fenced(job_id)


def hop_executor(threads: int = 8) -> ThreadPoolExecutor:
    """The threads in which the consumers of one process reach the storage."""
    return ThreadPoolExecutor(threads, thread_name_prefix="storage")
