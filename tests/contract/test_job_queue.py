"""The queue's heart on every back-end: what goes in, who gets it, in which order."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

import pytest

from engine.jobs.changes import after_event, deleted
from engine.jobs.job import Job, Lease
from engine.jobs.queue import ClaimFilter, ClaimRequest, JobQuery, Page
from engine.jobs.references import canary_text, filter_texts
from engine.jobs.states import Event, JobState
from engine.records.store import Storage
from tests.support.factories import (
    CLIENT,
    IDS,
    MINUTE,
    NOW,
    OTHER_CLIENT,
    make_attempt,
    make_failure,
    make_job,
    make_jobs,
    metadata,
)

LATER = NOW + timedelta(hours=1)
MILLISECOND = timedelta(milliseconds=1)


def claim(
    storage: Storage,
    limit: int = 10,
    client_id: str = CLIENT,
    caps: Mapping[str, int] = MappingProxyType({}),
    **conditions: object,
) -> list[Job]:
    wanted = ClaimFilter(client_id=client_id, **conditions)
    request = ClaimRequest(filter=wanted, owner="holder", expires_at=NOW + MINUTE, limit=limit, caps=caps)
    return storage.jobs.claim(request, NOW)


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


def unrevised(job: Job | None) -> Job:
    assert job is not None
    return replace(job, revision=0)


ODD_VALUES = [
    {},
    {"a": [1, 2.5, None, True, {"b": []}], "": "", "$where": 1, "a.b": {"c.d": "e"}},
    {"n": 2**53 + 1, "m": -(2**63), "deep": {"er": {"still": [[[["x"]]]]}}},
    {"text": "Zürich 東京 🙂 \n\t\\ \" ' \x00 \x7f"},
]


@pytest.mark.parametrize("value", ODD_VALUES)
def test_a_job_comes_back_as_it_went_in(storage: Storage, value: dict[str, object]) -> None:
    """Any JSON object is stored and given back unchanged, with every other field."""
    job = make_job(
        request_data=value,
        client_reference=value,
        response_data=value,
        eval_result=value,
        client_job_id="mine",
        eval_prompt="e" * 24,
        eval_model="judge",
        meta_prompt="f" * 24,
        meta_model="writer",
        suggested_prompt_id="b" * 24,
        response_format={"type": "json_schema", "schema": value},
        max_attempts=7,
        attempts=1,
        waits=2,
        leases_lost=3,
        failure=make_failure(raw="…"),
        ledger=(make_attempt(token=0, charged=True, error_type="X", error_message="y"),),
        metadata=metadata(updated_at=LATER, updated_by="admin", archived_at=LATER),
        working_prompts=("a" * 24, "b" * 24),
        prompt_flow="c" * 24,
        evaluator="d" * 24,
        expected=[value, None],
        canary="b" * 24,
        canary_trial="d" * 24,
    )
    storage.jobs.insert([job])
    assert storage.jobs.get(job.id) == job


def test_a_canarys_jobs_are_found_by_its_try(storage: Storage) -> None:
    """In their order, whatever their references are, and after each has changed; others' are not among them."""
    first, second = make_jobs(2, canary_trial="t"), make_jobs(2, canary_trial="t", client_reference={"a": 1})
    storage.jobs.insert([*first, *second, make_job(canary_trial="u"), make_job(client_reference={"$canary": ["t"]})])
    assert storage.jobs.compare_and_set([replace(first[0], priority=1)], NOW) == [True]
    found = storage.jobs.find(JobQuery(references=(canary_text("t"),)), Page(limit=10))
    assert [job.id for job in found] == [job.id for job in (*first, *second)]


def test_inserting_again_changes_nothing(storage: Storage) -> None:
    """A job whose id exists is left as it is, and the new ones of the same call are stored."""
    first, second, third = make_jobs(3)
    storage.jobs.insert([first, second])
    [claimed] = claim(storage, 1)
    storage.jobs.insert([replace(first, priority=1), replace(second, priority=1), third])
    assert storage.jobs.get(first.id) == claimed
    assert storage.jobs.get(second.id) == second
    assert storage.jobs.get(third.id) == third
    assert storage.jobs.count(JobQuery()) == 3


def test_the_same_job_twice_in_one_call(storage: Storage) -> None:
    """One call that names a job twice stores it once."""
    job = make_job()
    storage.jobs.insert([job, job])
    assert storage.jobs.count(JobQuery()) == 1
    assert ids(claim(storage)) == [job.id]


def test_inserting_nothing(storage: Storage) -> None:
    """An empty insert is harmless."""
    storage.jobs.insert([])
    assert storage.jobs.count(JobQuery()) == 0


def test_inserting_a_deleted_job_again(storage: Storage) -> None:
    """A deleted job's id still exists: inserting it again does not bring it back."""
    job = make_job()
    storage.jobs.insert([job])
    assert storage.jobs.compare_and_set([deleted(job, NOW, by=CLIENT)], NOW) == [True]
    storage.jobs.insert([job])
    assert storage.jobs.get(job.id) is None
    assert claim(storage) == []


def test_ten_thousand_at_once(storage: Storage) -> None:
    """The largest request the contract promises is one insert."""
    jobs = make_jobs(10_000, request_data={"text": "x" * 300})
    storage.jobs.insert(jobs)
    assert storage.jobs.count(JobQuery(client_id=CLIENT, status=JobState.PENDING)) == 10_000
    assert storage.jobs.get(jobs[-1].id) == jobs[-1]


MALFORMED = {
    "": "empty",
    "x": "short",
    "A" * 24: "upper",
    "0" * 25: "long",
    "\x00" * 24: "nul",
    "\ud800" * 24: "surrogates",
}


@pytest.mark.parametrize("job_id", MALFORMED, ids=MALFORMED.values())
def test_malformed_ids(storage: Storage, job_id: str) -> None:
    """A malformed id finds nothing, wherever it is used."""
    storage.jobs.insert([make_job()])
    assert storage.jobs.get(job_id) is None
    assert storage.jobs.get_many([job_id]) == {}
    assert storage.jobs.book(job_id, make_attempt()) is False


def test_get_many(storage: Storage) -> None:
    """Those that exist come back by id; unknown and deleted ones are missing."""
    first, second, third = make_jobs(3)
    storage.jobs.insert([first, second, third])
    storage.jobs.compare_and_set([deleted(third, NOW, by=CLIENT)], NOW)
    found = storage.jobs.get_many([first.id, second.id, third.id, IDS.new(), first.id])
    assert found == {first.id: first, second.id: second}
    assert storage.jobs.get_many([]) == {}


def test_claim_leases(storage: Storage) -> None:
    """A claimed job is what the pure model says: PROCESSING under a lease, its token one higher."""
    job = make_job()
    storage.jobs.insert([job])
    [claimed] = claim(storage)
    expected = after_event(job, Event.CLAIM, NOW, by="worker", lease=Lease("holder", NOW + MINUTE))
    assert unrevised(claimed) == expected
    assert claimed.revision > job.revision
    assert storage.jobs.get(job.id) == claimed


def test_claim_order(storage: Storage) -> None:
    """The lower priority number goes first, then age."""
    jobs = [make_job(priority=priority) for priority in (5, 1, 10, -3, 5, 1)]
    storage.jobs.insert(jobs)
    expected = sorted(jobs, key=lambda job: (job.priority, job.id))
    assert ids(claim(storage, 4)) == ids(expected[:4])
    assert ids(claim(storage, 4)) == ids(expected[4:])
    assert claim(storage, 4) == []


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_claim_limit(storage: Storage, limit: int) -> None:
    """Never more than asked for."""
    storage.jobs.insert(make_jobs(5))
    assert len(claim(storage, limit)) == limit


def test_claim_for_one_client(storage: Storage) -> None:
    """Another client's jobs are not given out."""
    mine, theirs = make_job(), make_job(client_id=OTHER_CLIENT)
    storage.jobs.insert([theirs, mine])
    assert ids(claim(storage)) == [mine.id]
    assert ids(claim(storage, client_id=OTHER_CLIENT)) == [theirs.id]


FILTERS = [
    ({"operation": "a"}, [0, 1]),
    ({"model": "m"}, [0, 2]),
    ({"operation": "a", "model": "m"}, [0]),
    ({"references": filter_texts({"env": "prod"})}, [0, 1, 2]),
    ({"references": filter_texts({"env": "prod", "n": "5"})}, [0, 2]),
    ({"references": filter_texts({"n": "5", "env": "prod"}), "operation": "a"}, [0]),
    ({"references": filter_texts({"env": "prod"}), "model": "m", "operation": "b"}, [2]),
    ({"references": filter_texts({"env": "test"})}, []),
    ({"operation": "c"}, []),
    ({"model": "none"}, []),
]


@pytest.mark.parametrize(("conditions", "expected"), FILTERS)
def test_claim_filters(storage: Storage, conditions: dict[str, object], expected: list[int]) -> None:
    """All conditions of a filter hold together; jobs that do not pass stay where they are."""
    jobs = [
        make_job(operation="a", model="m", client_reference={"env": "prod", "n": 5}, priority=2),
        make_job(operation="a", model="n", client_reference={"env": "prod", "n": 6}, priority=3),
        make_job(operation="b", model="m", client_reference={"env": "prod", "n": "5"}, priority=4),
        make_job(operation="b", model="n", priority=1),
    ]
    storage.jobs.insert(jobs)
    assert ids(claim(storage, **conditions)) == [jobs[place].id for place in expected]
    assert len(claim(storage)) == 4 - len(expected)


def test_claim_leaves_other_states(storage: Storage) -> None:
    """Only ready jobs are given out: not held, ended, deleted or later ones."""
    held, canceled, gone, later, ready = make_jobs(5, client_reference={"env": "prod"})
    storage.jobs.insert([held])
    claim(storage)
    storage.jobs.insert([canceled, gone, replace(later, due_at=LATER), ready])
    changed = [after_event(canceled, Event.CANCEL, NOW, by=CLIENT), deleted(gone, NOW, by=CLIENT)]
    assert storage.jobs.compare_and_set(changed, NOW) == [True, True]
    assert ids(claim(storage, references=filter_texts({"env": "prod"}))) == [ready.id]
    assert claim(storage) == []


def test_later_jobs_wait(storage: Storage) -> None:
    """A job due after its creation waits for promote; one due at or before it is ready at once."""
    due, late = make_job(due_at=NOW), make_job(due_at=NOW + MILLISECOND)
    storage.jobs.insert([due, late])
    assert ids(claim(storage)) == [due.id]
    assert storage.jobs.promote(NOW, 10) == 0
    assert storage.jobs.promote(NOW + MILLISECOND, 10) == 1
    assert ids(claim(storage)) == [late.id]


def test_promote_keeps_the_job(storage: Storage) -> None:
    """Promotion changes nothing about a job but that it can be claimed."""
    job = make_job(due_at=LATER, client_reference={"env": "prod"})
    storage.jobs.insert([job])
    assert storage.jobs.promote(LATER, 10) == 1
    assert unrevised(storage.jobs.get(job.id)) == job
    assert ids(claim(storage, references=filter_texts({"env": "prod"}))) == [job.id]


def test_promote_limit(storage: Storage) -> None:
    """At most `limit` at once, those first whose time came first."""
    jobs = [make_job(due_at=NOW + timedelta(seconds=seconds)) for seconds in (3, 1, 2, 4000)]
    storage.jobs.insert(jobs)
    assert storage.jobs.promote(NOW + MINUTE, 2) == 2
    assert ids(claim(storage)) == [jobs[1].id, jobs[2].id]
    assert storage.jobs.promote(NOW + MINUTE, 2) == 1
    assert storage.jobs.promote(NOW + MINUTE, 2) == 0


def test_waiting_clients(storage: Storage) -> None:
    """Clients with a ready job that passes, rising and behind `after`, at most `limit`."""
    for number in (3, 1, 2, 5):
        storage.jobs.insert(make_jobs(2, client_id=f"client-{number}", operation="odd" if number % 2 else "even"))
    storage.jobs.insert([make_job(client_id="client-4", due_at=LATER)])
    waiting = storage.jobs.waiting_clients
    assert waiting(ClaimFilter(), None, 10) == ["client-1", "client-2", "client-3", "client-5"]
    assert waiting(ClaimFilter(), "client-2", 10) == ["client-3", "client-5"]
    assert waiting(ClaimFilter(), None, 2) == ["client-1", "client-2"]
    assert waiting(ClaimFilter(operation="even"), None, 10) == ["client-2"]
    assert waiting(ClaimFilter(operation="odd", model="gpt-test"), "client-1", 1) == ["client-3"]
    assert waiting(ClaimFilter(model="none"), None, 10) == []
    claim(storage, client_id="client-1")
    assert waiting(ClaimFilter(), None, 10) == ["client-2", "client-3", "client-5"]


def test_waiting_clients_by_reference(storage: Storage) -> None:
    """With references, clients whose jobs lack the first one are not named."""
    reference = {"env": "prod", "n": 5}
    storage.jobs.insert(make_jobs(2, client_id="client-1", client_reference=reference))
    storage.jobs.insert([make_job(client_id="client-2", client_reference={"env": "test"})])
    storage.jobs.insert([make_job(client_id="client-3", client_reference=reference, operation="other")])
    texts = filter_texts({"env": "prod", "n": "5"})
    waiting = storage.jobs.waiting_clients
    assert waiting(ClaimFilter(references=texts), None, 10) == ["client-1", "client-3"]
    assert waiting(ClaimFilter(references=texts), "client-1", 10) == ["client-3"]
    assert waiting(ClaimFilter(references=texts), None, 1) == ["client-1"]
    assert waiting(ClaimFilter(references=texts, operation="other"), None, 10) == ["client-3"]
    claim(storage, client_id="client-1", references=texts)
    assert waiting(ClaimFilter(references=texts), None, 10) == ["client-3"]


def test_compare_and_set_replaces(storage: Storage) -> None:
    """With the current revision the job is replaced whole and its revision rises by one."""
    job = make_job(client_reference={"env": "prod"})
    storage.jobs.insert([job])
    edited = replace(job, priority=1, operation="other", model="new", client_reference={"env": "test"})
    assert storage.jobs.compare_and_set([edited], NOW) == [True]
    assert storage.jobs.get(job.id) == replace(edited, revision=job.revision + 1)
    assert claim(storage, references=filter_texts({"env": "prod"})) == []
    assert ids(claim(storage, references=filter_texts({"env": "test"}), operation="other", model="new")) == [job.id]


def test_compare_and_set_refuses_stale_edits(storage: Storage) -> None:
    """An edit of what has changed meanwhile, is deleted or never was, is refused; the others of the call are done."""
    first, second, third = make_jobs(3)
    storage.jobs.insert([first, second, third])
    assert storage.jobs.compare_and_set([replace(first, priority=1), deleted(second, NOW, by="x")], NOW) == [True] * 2
    edits = [replace(job, priority=2) for job in (first, second, third, make_job())]
    assert storage.jobs.compare_and_set(edits, NOW) == [False, False, True, False]
    assert storage.jobs.compare_and_set([], NOW) == []
    found = storage.jobs.get(first.id)
    assert found is not None
    assert found.priority == 1


def test_every_write_spoils_a_stale_edit(storage: Storage) -> None:
    """A claim, an extension and a settlement each make edits of the earlier value fail."""
    job = make_job()
    storage.jobs.insert([job])
    [claimed] = claim(storage)
    assert storage.jobs.compare_and_set([replace(job, priority=1)], NOW) == [False]
    edited = replace(claimed, priority=1)
    assert storage.jobs.compare_and_set([edited], NOW) == [True]
    current = storage.jobs.get(job.id)
    assert current is not None
    assert current.lease == claimed.lease
    assert current.token == claimed.token


def test_an_edit_decides_readiness(storage: Storage) -> None:
    """A PENDING job that is written back becomes ready if its due time is None or has passed, else it waits."""
    job = make_job(due_at=LATER)
    storage.jobs.insert([job])
    assert storage.jobs.compare_and_set([replace(job, due_at=NOW)], NOW) == [True]
    current = storage.jobs.get(job.id)
    assert current is not None
    assert storage.jobs.compare_and_set([replace(current, due_at=LATER)], NOW) == [True]
    assert claim(storage) == []
    current = storage.jobs.get(job.id)
    assert current is not None
    assert storage.jobs.compare_and_set([replace(current, due_at=None)], NOW) == [True]
    assert ids(claim(storage)) == [job.id]


def test_deleted_jobs_are_invisible(storage: Storage) -> None:
    """A deleted job is gone for every method but book."""
    job = make_job(client_job_id="mine", client_reference={"env": "prod"})
    storage.jobs.insert([job])
    [held] = claim(storage)
    assert storage.jobs.compare_and_set([deleted(held, NOW, by=CLIENT)], NOW) == [True]
    query = JobQuery(client_id=CLIENT)
    assert storage.jobs.get(job.id) is None
    assert storage.jobs.count(query) == 0
    assert storage.jobs.summary(query) == []
    assert storage.jobs.summary(JobQuery(client_job_id="mine")) == []
    assert storage.jobs.count(JobQuery(references=filter_texts({"env": "prod"}))) == 0
    assert storage.jobs.expired(LATER, 10) == []
    assert storage.jobs.next_due() is None
    assert storage.jobs.waiting_clients(ClaimFilter(), None, 10) == []
    assert storage.jobs.book(job.id, make_attempt(held.token)) is True
    assert storage.jobs.summary(query) == []
