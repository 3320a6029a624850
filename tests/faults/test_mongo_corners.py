"""What seldom happens on MongoDB: batches that end otherwise than they began, old counts, amounts beyond 64 bits."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from bson.int64 import Int64
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from engine.errors import InvalidField, StorageUnavailable
from engine.jobs.job import Attempt
from engine.jobs.outcome import Completed, Released
from engine.jobs.queue import ClaimFilter, ClaimRequest, JobQuery, Page
from engine.storage.mongo import MongoStorage, open_mongo
from engine.storage.mongo.batches import Batches
from engine.storage.mongo.documents import stored_job
from engine.storage.mongo.faults import translated
from engine.storage.mongo.marks import Marks
from engine.usage import UsageQuery
from tests.support.backends import own_mongod
from tests.support.factories import CLIENT, MINUTE, NOW, make_attempt, make_call, make_job, make_jobs, settlement
from tests.support.mongod import Mongod
from tests.support.severing_proxy import severing_proxy

DATABASE = "metasync-corners"
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[Mongod]:
    with own_mongod() as mongod:
        yield mongod


@pytest.fixture
def plain(server: Mongod) -> Iterator[Any]:
    """The database as the server has it; gone afterwards."""
    with MongoClient[dict[str, Any]]("127.0.0.1", server.port, directConnection=True) as client:
        yield client[DATABASE]
        client.drop_database(DATABASE)


@pytest.fixture
def storage(server: Mongod, plain: Any) -> Iterator[MongoStorage]:
    opened = open_mongo(server.url, DATABASE)
    yield opened
    opened.close()


def claim(storage: MongoStorage) -> list[Any]:
    request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="o", expires_at=NOW + MINUTE, limit=10)
    return storage.jobs.claim(request, NOW)


@pytest.mark.parametrize("megabytes", [17, 50])
@pytest.mark.parametrize("place", [0, 1500, -1])
def test_a_batch_with_one_job_too_large(storage: MongoStorage, plain: Any, place: int, megabytes: int) -> None:
    """It is refused as an unfit value, whether by the server or by the driver and wherever that job stands, and nothing
    of it is left or counted."""
    jobs = make_jobs(2000)
    jobs[place] = replace(jobs[place], request_data={"text": "x" * (megabytes * MEGABYTE)})
    with pytest.raises(InvalidField):
        storage.jobs.insert(jobs)
    assert plain.jobs.count_documents({"line": {"$exists": True}}) == 0
    assert storage.jobs.count(JobQuery()) == 0
    assert claim(storage) == []


def test_a_result_that_outgrows_its_job(storage: MongoStorage) -> None:
    """A result that fits by itself, but not beside what was asked, is refused; the others of its group are written."""
    storage.jobs.insert([make_job(request_data={"text": "x" * (10 * MEGABYTE)}), *make_jobs(2)])
    jobs = claim(storage)
    large = Completed(result={"text": "y" * (10 * MEGABYTE)})
    done = [settlement(job, large if place == 0 else Completed(result={})) for place, job in enumerate(jobs)]
    with pytest.raises(InvalidField):
        storage.jobs.settle(done, NOW)
    with pytest.raises(InvalidField):
        storage.jobs.settle(done[:1], NOW)
    assert storage.jobs.settle(done[1:], NOW) == [True, True]


def test_a_failed_batch_is_watched_for_a_while(storage: MongoStorage, plain: Any) -> None:
    """What arrives late of a batch that failed is taken back while it is watched, and the watch ends."""
    seconds = [0.0]
    batches = Batches(plain.jobs, Marks(plain.counters), lambda: seconds[0])
    documents = [{**stored_job(job, NOW), "bucket": "b"} for job in make_jobs(3)]
    documents[-1]["requestData"] = "x" * (17 * MEGABYTE)
    with pytest.raises(InvalidField):
        batches.insert(documents)
    for at, left in ((10.0, 0), (10.5, 1), (59.0, 0), (61.0, 0), (90.0, 1)):
        seconds[0] = at
        plain.jobs.delete_one({"_id": documents[0]["_id"]})
        plain.jobs.insert_one(documents[0])
        batches.look_after_doubts()
        assert plain.jobs.count_documents({"_id": documents[0]["_id"]}) == left


def test_a_whole_batch_whose_answer_was_lost_stays(server: Mongod, plain: Any) -> None:
    """An insert that was done is not taken back because its answer was lost, also when nobody repeats it."""
    jobs = make_jobs(5)
    with severing_proxy(server.port) as proxy:
        url = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true&retryWrites=false&retryReads=false"
        storage = open_mongo(url, DATABASE)
        try:
            proxy.lose_answer_to(b"workingPrompts")
            with pytest.raises(StorageUnavailable):
                storage.jobs.insert(jobs)
            assert storage.jobs.find(JobQuery(), Page()) == jobs
            assert [job.id for job in claim(storage)] == [job.id for job in jobs]
        finally:
            storage.close()


def test_jobs_of_a_broken_batch_can_come_with_another(server: Mongod, storage: MongoStorage, plain: Any) -> None:
    """Jobs that lost their anchor are whole again when they are inserted as another batch."""
    jobs = make_jobs(3)
    storage.jobs.insert(jobs)
    plain.jobs.delete_one({"_id": jobs[-1].id})
    other = open_mongo(server.url, DATABASE)
    try:
        assert claim(other) == []
        other.jobs.insert(jobs[:2])
        assert [job.id for job in claim(other)] == [job.id for job in jobs[:2]]
    finally:
        other.close()


def test_a_count_heals(storage: MongoStorage, plain: Any) -> None:
    """A cached count that should not have held is put right within the hour: each summary recounts the oldest."""
    storage.jobs.insert(make_jobs(4))
    assert storage.jobs.count(JobQuery()) == 4
    storage.jobs.close()
    assert storage.jobs.count(JobQuery()) == 4
    plain.jobs.delete_one({})
    assert storage.jobs.count(JobQuery()) == 4
    [bucket] = plain.counters.find()
    long_ago = bucket["counted"]["at"] - 61 * MINUTE
    plain.counters.update_one({"_id": bucket["_id"]}, {"$set": {"counted.at": long_ago}})
    assert storage.jobs.count(JobQuery()) == 3


def test_amounts_beyond_64_bits(storage: MongoStorage) -> None:
    """A cost that no 64-bit integer holds is kept to the last digit: on the ledger, in the totals and summed up."""
    amount = Decimal("123456789.012345678901")
    storage.jobs.insert(make_jobs(2))
    jobs = claim(storage)
    calls = (make_call(input_cost=amount, output_cost=amount),)
    attempts: list[Attempt] = [make_attempt(job.token, calls=calls) for job in jobs]
    done = [settlement(job, Completed(result={}), attempt=entry) for job, entry in zip(jobs, attempts, strict=True)]
    assert storage.jobs.settle(done, NOW) == [True, True]
    found = storage.jobs.get(jobs[0].id)
    assert found is not None
    assert (found.ledger[0].calls, found.totals.input_cost) == (calls, amount)
    [row] = storage.jobs.summary(JobQuery())
    assert (row.input_cost, row.output_cost) == (2 * amount, 2 * amount)
    [used] = storage.usage.rows(UsageQuery(first=NOW.date(), last=NOW.date()))
    assert (used.input_cost, used.output_cost) == (2 * amount, 2 * amount)


def test_usage_survives_a_process_that_dies_between_its_writes(storage: MongoStorage, plain: Any) -> None:
    """Its last settlement counts although it never took its mark away, and so does a ledger of an earlier version."""
    query = UsageQuery(first=NOW.date(), last=NOW.date())
    storage.jobs.insert(make_jobs(2))
    first, second = claim(storage)
    assert storage.usage.rows(query) == []
    assert storage.jobs.settle([settlement(first, Completed(result={}))], NOW) == [True]
    [bucket] = plain.counters.find()
    assert bucket["writers"]
    other = MongoStorage(storage._client, storage._database.name, cosmos=False)
    assert [row.calls for row in other.usage.rows(query)] == [1]
    assert storage.jobs.settle([settlement(second, Completed(result={}))], NOW) == [True]
    whole = {"ledger.$[].calls.$[].inputCost": Int64(10**15), "ledger.$[].calls.$[].outputCost": None}
    plain.jobs.update_many({}, {"$set": whole, "$unset": {"ledger.$[].calls.$[].inputCostHigh": ""}})
    assert [(row.calls, row.input_cost) for row in other.usage.rows(query)] == [(2, 2000)]


def test_ids_that_nothing_has(storage: MongoStorage) -> None:
    """A settlement, a booking and a read for an id that no job can have are refused without an error."""
    nobody = replace(make_job(), id="\ud800")
    assert storage.jobs.settle([settlement(nobody, Released("x"))], NOW) == [False]
    assert storage.jobs.book(nobody.id, make_attempt()) is False
    assert storage.jobs.get_many([nobody.id]) == {}


@pytest.mark.parametrize(("code", "wait"), [(13, 30.0), (18, 30.0), (14031, 30.0), (189, 2.0), (11600, 2.0)])
def test_what_may_pass_is_an_outage(code: int, wait: float) -> None:
    """A full disk, refused credentials or a change of primary are outages; the first two are asked for less often."""
    error = translated(OperationFailure("what the server says", code))
    assert isinstance(error, StorageUnavailable)
    assert error.retry_after == wait
