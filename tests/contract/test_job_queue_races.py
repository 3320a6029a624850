"""Many at once, on every back-end: each write happens once, whoever else is writing."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from engine.errors import Duplicate
from engine.jobs.changes import after_event
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, Expired, Released
from engine.jobs.queue import ClaimFilter, ClaimRequest, IdempotencyRecord, JobQuery
from engine.jobs.references import filter_texts
from engine.jobs.states import Event, JobState
from engine.records.store import Storage
from tests.support.backends import Database
from tests.support.factories import CLIENT, MINUTE, NOW, make_job, make_jobs, make_prompt, settlement

THREADS = 8

T = TypeVar("T")


def at_once(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """What the tasks answer, all started in the same instant."""
    start = threading.Barrier(len(tasks))

    def run(task: Callable[[], T]) -> T:
        start.wait(10)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def claim_all(storage: Storage, owner: str, wanted: ClaimFilter, batch: int) -> list[Job]:
    """Claims until none is left: a lost race may give an empty batch, so three in a row end it."""
    claimed: list[Job] = []
    empty = 0
    while empty < 3:
        request = ClaimRequest(filter=wanted, owner=owner, expires_at=NOW + MINUTE, limit=batch)
        jobs = storage.jobs.claim(request, NOW)
        claimed += jobs
        empty = 0 if jobs else empty + 1
    return claimed


def check_claimed_once(storage: Storage, wanted: ClaimFilter, storages: Sequence[Storage]) -> None:
    jobs = make_jobs(400, client_reference={"env": "prod"})
    storage.jobs.insert(jobs)
    claimers = [
        lambda other=other, place=place: claim_all(other, f"owner-{place}", wanted, 7)
        for place, other in enumerate(storages)
    ]
    claimed = [job for batch in at_once(claimers) for job in batch]
    claimed += claim_all(storage, "last", wanted, 50)
    assert Counter(job.id for job in claimed) == Counter(job.id for job in jobs)
    assert {job.token for job in claimed} == {1}
    stored = storage.jobs.get_many([job.id for job in jobs])
    assert {job.id: job.lease for job in claimed} == {job_id: job.lease for job_id, job in stored.items()}


def test_no_job_is_given_to_two_threads(storage: Storage) -> None:
    """Many threads claim from one storage: each job goes to exactly one of them."""
    check_claimed_once(storage, ClaimFilter(client_id=CLIENT), [storage] * THREADS)


def test_no_job_is_given_to_two_replicas(database: Database) -> None:
    """The same between connections of their own, as replicas have, and with a filter on references."""
    storages = [database.open() for _ in range(3)]
    wanted = ClaimFilter(client_id=CLIENT, references=filter_texts({"env": "prod"}))
    check_claimed_once(storages[0], wanted, storages)


def test_one_settlement_of_a_token_wins(storage: Storage) -> None:
    """Of different outcomes for one token written in the same instant, one is written."""
    for _ in range(5):
        storage.jobs.insert([make_job()])
        request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="o", expires_at=NOW, limit=1)
        [job] = storage.jobs.claim(request, NOW)
        rivals = [
            settlement(job, Completed(result={})),
            settlement(job, Released("stop")),
            settlement(job, Expired(), only_expired=True),
        ]
        written = at_once([lambda one=one: storage.jobs.settle([one], NOW)[0] for one in rivals])
        assert sorted(written) == [False, False, True]
        after = storage.jobs.get(job.id)
        assert after is not None
        assert len(after.ledger) == 1
        canceled = storage.jobs.compare_and_set([after_event(after, Event.FORCE_REJECT, NOW, by="admin")], NOW)
        assert canceled == [True]


def test_one_edit_of_a_revision_wins(storage: Storage) -> None:
    """Of many edits made from the same value, one is written."""
    job = make_job()
    storage.jobs.insert([job])
    edits = [replace(job, priority=place) for place in range(THREADS)]
    written = at_once([lambda edit=edit: storage.jobs.compare_and_set([edit], NOW)[0] for edit in edits])
    assert written.count(True) == 1
    after = storage.jobs.get(job.id)
    assert after is not None
    assert after.priority == written.index(True)
    assert after.revision == job.revision + 1


def test_counts_survive_contention(storage: Storage) -> None:
    """While jobs come in, are claimed, settled and canceled from many threads, no count is lost."""

    def life(place: int) -> None:
        for job in make_jobs(5, operation=f"op-{place % 2}"):
            storage.jobs.insert([job])
            request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="o", expires_at=NOW + MINUTE, limit=2)
            claimed = storage.jobs.claim(request, NOW)
            storage.jobs.settle([settlement(one, Completed(result={})) for one in claimed[:1]], NOW)

    at_once([lambda place=place: life(place) for place in range(THREADS)])
    rows = storage.jobs.summary(JobQuery(client_id=CLIENT))
    assert sum(row.count for row in rows) == THREADS * 5
    for row in rows:
        assert row.count == storage.jobs.count(JobQuery(client_id=CLIENT, status=row.status, priority=5))
    processed = [row for row in rows if row.status is JobState.PROCESSED]
    assert [row.input_tokens for row in processed] == [10 * row.count for row in processed]


def test_one_reservation_of_a_key_stands(storage: Storage) -> None:
    """Everyone who reserves a key in the same instant is answered with the same record."""
    records = [
        IdempotencyRecord(
            client_id=CLIENT,
            key="key",
            fingerprint=f"{place}",
            first_id="a" * 24,
            count=1,
            created_at=NOW,
            expires_at=NOW + MINUTE,
        )
        for place in range(THREADS)
    ]
    answers = at_once([lambda one=one: storage.jobs.reserve(one, NOW) for one in records])
    assert len(set(answers)) == 1


def test_the_same_jobs_inserted_at_once(storage: Storage) -> None:
    """A request and its repetition in the same instant store each job once."""
    jobs = make_jobs(50)
    at_once([lambda: storage.jobs.insert(jobs)] * 4)
    assert storage.jobs.count(JobQuery(client_id=CLIENT)) == 50
    assert storage.jobs.count(JobQuery(priority=5)) == 50


def test_two_version_numbers_never_collide(database: Database) -> None:
    """Concurrent creates of one prompt, through several replicas, get the versions 1 to n, each once."""
    storages = [database.open() for _ in range(3)]

    def create(storage: Storage) -> list[int]:
        return [_next_version(storage) for _ in range(4)]

    versions = at_once([lambda storage=storage: create(storage) for storage in storages])
    assert sorted(version for each in versions for version in each) == list(range(1, 13))


def _next_version(storage: Storage) -> int:
    while True:
        version = storage.prompts.highest_version("summary", "SYSTEM", CLIENT) + 1
        try:
            storage.prompts.add(make_prompt(version=version))
        except Duplicate:
            continue
        return version
