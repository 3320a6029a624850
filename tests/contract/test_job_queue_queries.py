"""Lists, counts, sums and idempotency records on every back-end."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from engine.jobs.changes import after_event, deleted
from engine.jobs.job import Job, totals_of
from engine.jobs.outcome import Completed, DeadLettered, Retried
from engine.jobs.queue import ClaimFilter, ClaimRequest, IdempotencyRecord, JobQuery, Page
from engine.jobs.references import filter_texts
from engine.jobs.states import Event, JobState
from engine.records.store import Storage
from tests.support.factories import (
    CLIENT,
    IDS,
    MINUTE,
    NOW,
    OTHER_CLIENT,
    make_attempt,
    make_call,
    make_failure,
    make_job,
    make_jobs,
    settlement,
)
from tests.support.queue_model import by_key, summary_of

SPECIMENS = [
    {"operation": "a", "model": "m", "priority": 1, "client_reference": {"env": "prod", "n": 5}},
    {"operation": "a", "model": "n", "priority": 2, "client_reference": {"env": "prod"}, "client_job_id": "x"},
    {"operation": "b", "model": "m", "priority": 1, "client_reference": {"env": {"deep": True}}, "client_job_id": "y"},
    {"operation": "b", "model": "n", "priority": 2, "client_id": OTHER_CLIENT, "client_job_id": "x"},
    {"operation": "a", "model": "m", "priority": 1, "client_id": OTHER_CLIENT, "client_reference": {"env": "prod"}},
    {"operation": "a", "model": "m", "priority": 5},
]
QUERIES: list[tuple[dict[str, object], list[int]]] = [
    ({}, [0, 1, 2, 3, 4, 5]),
    ({"client_id": CLIENT}, [0, 1, 2, 5]),
    ({"client_id": "nobody"}, []),
    ({"status": JobState.PENDING}, [0, 1, 2, 3, 4]),
    ({"status": JobState.CANCELED}, [5]),
    ({"client_id": CLIENT, "status": JobState.CANCELED}, [5]),
    ({"client_id": OTHER_CLIENT, "status": JobState.CANCELED}, []),
    ({"operation": "a"}, [0, 1, 4, 5]),
    ({"client_id": CLIENT, "operation": "a", "model": "m"}, [0, 5]),
    ({"model": "n", "status": JobState.PENDING}, [1, 3]),
    ({"priority": 1}, [0, 2, 4]),
    ({"client_id": CLIENT, "priority": 2}, [1]),
    ({"client_job_id": "x"}, [1, 3]),
    ({"client_job_id": "x", "client_id": CLIENT}, [1]),
    ({"client_job_id": "x", "client_id": CLIENT, "status": JobState.PROCESSED}, []),
    ({"references": filter_texts({"env": "prod"})}, [0, 1, 4]),
    ({"references": filter_texts({"env": "prod", "n": "5"})}, [0]),
    ({"references": filter_texts({"env.deep": "true"}), "client_id": CLIENT}, [2]),
    ({"references": filter_texts({"env": "prod"}), "client_id": OTHER_CLIENT, "operation": "a"}, [4]),
    ({"references": filter_texts({"env": "none"})}, []),
    ({"references": filter_texts({"env": "prod"}), "client_job_id": "x"}, [1]),
]


def stored_specimens(storage: Storage) -> list[Job]:
    """The specimens as they are stored, the last one canceled."""
    jobs = [make_job(**fields) for fields in SPECIMENS]
    storage.jobs.insert(jobs)
    assert storage.jobs.compare_and_set([after_event(jobs[-1], Event.CANCEL, NOW, by=CLIENT)], NOW) == [True]
    found = storage.jobs.get_many([job.id for job in jobs])
    return [found[job.id] for job in jobs]


def test_find_and_count(storage: Storage) -> None:
    """All conditions of a query hold together; what comes is in insertion order, and count agrees."""
    jobs = stored_specimens(storage)
    for fields, expected in QUERIES:
        query = JobQuery(**fields)
        assert storage.jobs.find(query, Page()) == [jobs[place] for place in expected], query
        assert storage.jobs.count(query) == len(expected), query


def test_summary_of_every_query(storage: Storage) -> None:
    """A summary counts the jobs that find gives, however it is restricted."""
    jobs = stored_specimens(storage)
    for fields, expected in QUERIES:
        query = JobQuery(**fields)
        assert by_key(storage.jobs.summary(query)) == summary_of(jobs[place] for place in expected), query


def test_pages(storage: Storage) -> None:
    """Pages of insertion order, forwards and backwards, join up to the whole; count knows nothing of pages."""
    jobs = make_jobs(7, client_reference={"env": "prod"})
    storage.jobs.insert(jobs[:3])
    storage.jobs.insert(jobs[3:])
    for query in (
        JobQuery(),
        JobQuery(client_id=CLIENT),
        JobQuery(client_id=CLIENT, status=JobState.PENDING),
        JobQuery(references=filter_texts({"env": "prod"})),
    ):
        pages = [storage.jobs.find(query, Page(limit=3, skip=skip)) for skip in (0, 3, 6, 9)]
        assert pages == [jobs[:3], jobs[3:6], jobs[6:], []]
        assert storage.jobs.find(query, Page(limit=3, skip=1, newest_first=True)) == jobs[::-1][1:4]
        assert storage.jobs.count(query) == 7


@pytest.mark.parametrize("text", ["x' OR 1=1 --", "$ne", "a\x00b", "%", "*", "ü", "y" * 5000, "null"])
def test_any_text_is_just_a_text(storage: Storage, text: str) -> None:
    """No text means anything to the database: it matches itself and nothing else."""
    job = make_job(operation=text, model=text, client_id=text, client_job_id=text, client_reference={"k": text})
    storage.jobs.insert([job, make_job()])
    for field in ("operation", "model", "client_id", "client_job_id"):
        assert storage.jobs.find(JobQuery(**{field: text}), Page()) == [job]
        assert storage.jobs.count(JobQuery(**{field: text})) == 1
    assert storage.jobs.find(JobQuery(references=filter_texts({"k": text})), Page()) == [job]
    wanted = ClaimFilter(client_id=text, operation=text, model=text, references=filter_texts({"k": text}))
    assert storage.jobs.waiting_clients(replace(wanted, client_id=None), None, 10) == [text]
    assert len(storage.jobs.claim(ClaimRequest(filter=wanted, owner="o", expires_at=NOW, limit=5), NOW)) == 1


def test_summary_follows_every_change(storage: Storage) -> None:
    """After every kind of write the summary is the sum over the jobs as they are."""
    storage.jobs.insert([make_job(model=model, client_reference={"n": place}) for place, model in enumerate("mmmnnn")])
    storage.jobs.insert([make_job(due_at=NOW + MINUTE), make_job(client_id=OTHER_CLIENT)])
    check_summaries(storage)
    request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="o", expires_at=NOW + MINUTE, limit=5)
    first, second, third, fourth, fifth = storage.jobs.claim(request, NOW)
    check_summaries(storage)
    yen = make_attempt(second.token, calls=(make_call(currency="JPY"), make_call(currency=None, input_cost=None)))
    unpriced = make_attempt(third.token, calls=(make_call(currency=None, input_cost=None, output_cost=None),))
    group = [
        settlement(first, Completed(result={})),
        settlement(second, Retried(make_failure(), NOW, charged=True), attempt=yen),
        settlement(third, DeadLettered(make_failure()), attempt=unpriced),
    ]
    assert storage.jobs.settle(group, NOW) == [True] * 3
    check_summaries(storage)
    assert storage.jobs.book(fourth.id, make_attempt(fourth.token, calls=(make_call(), make_call(currency="JPY"))))
    assert storage.jobs.book(second.id, make_attempt(second.token + 5))
    check_summaries(storage)
    edited = storage.jobs.get_many([first.id, fifth.id])
    changes = [replace(edited[first.id], operation="new"), deleted(edited[fifth.id], NOW, by=CLIENT)]
    assert storage.jobs.compare_and_set(changes, NOW) == [True, True]
    storage.jobs.promote(NOW + MINUTE, 10)
    check_summaries(storage)


def check_summaries(storage: Storage) -> None:
    for fields in ({}, {"client_id": CLIENT}, {"client_id": CLIENT, "model": "m"}, {"operation": "new"}):
        query = JobQuery(**fields)
        assert by_key(storage.jobs.summary(query)) == summary_of(storage.jobs.find(query, Page())), query
        by_priority = replace(query, priority=5)
        assert by_key(storage.jobs.summary(by_priority)) == by_key(storage.jobs.summary(query))


def test_sums_are_exact_beyond_64_bits(storage: Storage) -> None:
    """Money adds up to the last trillionth, also where the sum no longer fits a machine integer."""
    cost = Decimal("9000000.000000000001")
    calls = (make_call(input_cost=cost, output_cost=Decimal("0.000000000001")),)
    jobs = make_jobs(30, totals=totals_of(calls), ledger=(make_attempt(0, calls=calls),))
    storage.jobs.insert(jobs[:10])
    storage.jobs.insert(jobs[10:])
    for query in (JobQuery(client_id=CLIENT), JobQuery(priority=5)):
        [row] = storage.jobs.summary(query)
        assert row.input_cost == cost * 30
        assert row.output_cost == Decimal("0.000000000030")
        assert (row.count, row.measured, row.input_tokens, row.output_tokens) == (30, 30, 300, 600)
    storage.jobs.compare_and_set([deleted(job, NOW, by=CLIENT) for job in jobs[1:]], NOW)
    [row] = storage.jobs.summary(JobQuery(client_id=CLIENT))
    assert row.input_cost == cost


def test_summary_of_nothing(storage: Storage) -> None:
    """Without jobs there are no rows."""
    assert storage.jobs.summary(JobQuery()) == []
    assert storage.jobs.summary(JobQuery(priority=1)) == []


def test_ahead_of(storage: Storage) -> None:
    """How many ready jobs of the same client would be claimed first, counted up to the limit."""
    urgent, first, second, third = [make_job(priority=priority) for priority in (1, 5, 5, 5)]
    others = [make_job(client_id=OTHER_CLIENT, priority=0), make_job(due_at=NOW + MINUTE, priority=0)]
    storage.jobs.insert([*others, third, second, first, urgent])
    assert [storage.jobs.ahead_of(job, 10) for job in (urgent, first, second, third)] == [0, 1, 2, 3]
    assert storage.jobs.ahead_of(third, 2) == 2
    request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="o", expires_at=NOW, limit=2)
    storage.jobs.claim(request, NOW)
    assert storage.jobs.ahead_of(third, 10) == 1


def record(**fields: object) -> IdempotencyRecord:
    values: dict[str, object] = {
        "client_id": CLIENT,
        "key": "key",
        "fingerprint": "f" * 64,
        "first_id": IDS.new(),
        "count": 3,
        "created_at": NOW,
        "expires_at": NOW + MINUTE,
    }
    return IdempotencyRecord(**{**values, **fields})


def test_reserve(storage: Storage) -> None:
    """The first record of a client's key stands until it expires; others are answered with it."""
    first = record()
    assert storage.jobs.reserve(first, NOW) == first
    assert storage.jobs.reserve(record(fingerprint="other"), NOW + MINUTE - timedelta(milliseconds=1)) == first
    others = [record(key="other"), record(client_id=OTHER_CLIENT)]
    assert [storage.jobs.reserve(other, NOW) for other in others] == others
    later = record(created_at=NOW + MINUTE, expires_at=NOW + 2 * MINUTE)
    assert storage.jobs.reserve(later, NOW + MINUTE) == later


def test_forget_expired(storage: Storage) -> None:
    """Expired records go, the others stay."""
    short, long = record(key="short"), record(key="long", expires_at=NOW + 2 * MINUTE)
    storage.jobs.reserve(short, NOW)
    storage.jobs.reserve(long, NOW)
    assert storage.jobs.forget_expired(NOW) == 0
    assert storage.jobs.forget_expired(NOW + MINUTE) == 1
    assert storage.jobs.forget_expired(NOW + MINUTE) == 0
    assert storage.jobs.reserve(record(key="long"), NOW + MINUTE) == long
