"""What the MongoDB back-end makes of a server that dies, freezes, throttles, gives up or loses its answers."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import BulkWriteError, OperationFailure

from engine.errors import InvalidField, MetasyncError, StorageUnavailable
from engine.jobs.job import Job
from engine.jobs.outcome import Completed
from engine.jobs.queue import ClaimFilter, ClaimRequest, Hold, JobQuery, Page
from engine.jobs.states import JobState
from engine.records.store import Where
from engine.storage.mongo import MongoStorage, open_mongo
from engine.storage.mongo.faults import throttled_for, translated
from tests.support.backends import own_mongod
from tests.support.factories import CLIENT, MINUTE, NOW, make_client, make_job, make_jobs, make_prompt, settlement
from tests.support.mongod import Mongod
from tests.support.severing_proxy import SeveringProxy, severing_proxy

NOTICED_WITHIN = 5.0
DATABASE = "metasync-faults"
THROTTLE = "Error=16500, RetryAfterMs=200, Details='Response status code does not indicate success'"


@pytest.fixture(scope="module", params=[False, True], ids=["standalone", "replica-set"])
def server(request: pytest.FixtureRequest) -> Iterator[Mongod]:
    """A server of this module's own, since it is killed and frozen."""
    with own_mongod(replica_set=request.param) as mongod:
        yield mongod


@pytest.fixture
def storage(server: Mongod) -> Iterator[MongoStorage]:
    with closing(open_mongo(server.url, DATABASE)) as opened:
        yield opened
    with plain(server) as client:
        client.drop_database(DATABASE)


@contextmanager
def plain(server: Mongod) -> Iterator[MongoClient[dict[str, Any]]]:
    """Its writes are on disk when they return: a database dropped here stays so when the server is killed."""
    with MongoClient[dict[str, Any]]("127.0.0.1", server.port, directConnection=True, journal=True) as client:
        yield client


def claim(storage: MongoStorage, limit: int = 10) -> list[Job]:
    request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="o", expires_at=NOW + MINUTE, limit=limit)
    return storage.jobs.claim(request, NOW)


def seconds_to_refuse(operation: Callable[[], object]) -> float:
    """How long it takes until the outage is noticed."""
    started = time.monotonic()
    with pytest.raises(StorageUnavailable) as refusal:
        operation()
    assert refusal.value.retry_after > 0
    return time.monotonic() - started


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that a thread here or the server brings about."""
    deadline = time.monotonic() + seconds
    turn = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        turn.wait(0.005)


def everything(storage: MongoStorage) -> list[Callable[[], object]]:
    job = make_job()
    hold = [Hold(job.id, 1)]
    return [
        storage.ping,
        storage.server_time,
        lambda: claim(storage),
        lambda: storage.jobs.insert([job]),
        lambda: storage.jobs.insert(make_jobs(3)),
        lambda: storage.jobs.settle([settlement(job, Completed(result={}))], NOW),
        lambda: storage.jobs.extend(hold, NOW, NOW),
        lambda: storage.jobs.find(JobQuery(), Page()),
        lambda: storage.jobs.summary(JobQuery()),
        lambda: storage.clients.add(make_client()),
        lambda: storage.prompts.find(Where(), Page()),
    ]


def test_acknowledged_writes_survive_sigkill(server: Mongod, storage: MongoStorage) -> None:
    """What was acknowledged before a kill -9 of the server is there after it, and the open storage goes on."""
    batch, lone, client = make_jobs(20), make_job(), make_client()
    storage.jobs.insert(batch)
    storage.jobs.insert([lone])
    claimed = claim(storage, 5)
    assert storage.jobs.settle([settlement(claimed[0], Completed(result={"a": 1}))], NOW) == [True]
    storage.clients.add(client)

    server.kill()
    server.restart()
    until(lambda: answers(storage))

    assert storage.jobs.count(JobQuery()) == 21
    assert storage.jobs.get(lone.id) == lone
    settled = storage.jobs.get(claimed[0].id)
    assert settled is not None
    assert settled.response_data == {"a": 1}
    assert {job.token for job in storage.jobs.get_many([job.id for job in claimed]).values()} == {1}
    assert storage.clients.get(client.id) == client


def answers(storage: MongoStorage) -> bool:
    try:
        storage.ping()
        storage.jobs.next_due()
    except StorageUnavailable:
        return False
    return True


def test_a_frozen_server_is_noticed(server: Mongod, storage: MongoStorage) -> None:
    """A server that keeps its connections and never answers is an outage within five seconds, for every operation: all
    are asked at once, each over a connection of its own that was in use before."""
    with ExitStack() as stack:
        asked = []
        storage.jobs.insert(make_jobs(2))
        for number in range(len(everything(storage))):
            own = stack.enter_context(closing(open_mongo(server.url, DATABASE)))
            asked.append(everything(own)[number])
        threads = stack.enter_context(ThreadPoolExecutor(len(asked)))
        server.freeze()
        try:
            taken = list(threads.map(seconds_to_refuse, asked))
        finally:
            server.thaw()
        assert max(taken) < NOTICED_WITHIN
    until(lambda: answers(storage))


def test_a_dead_server_is_noticed(server: Mongod, storage: MongoStorage) -> None:
    """A killed server is an outage within five seconds, never an empty queue; afterwards the storage works again."""
    storage.jobs.insert(make_jobs(2))
    server.kill()
    try:
        assert seconds_to_refuse(lambda: claim(storage)) < NOTICED_WITHIN
        assert seconds_to_refuse(lambda: storage.jobs.insert([make_job()])) < NOTICED_WITHIN
    finally:
        server.restart()
    until(lambda: answers(storage))
    assert len(claim(storage)) == 2


def test_opening_without_a_server_is_refused_in_time(server: Mongod) -> None:
    """Opening a storage whose server is away says so within five seconds."""
    server.kill()
    try:
        assert seconds_to_refuse(lambda: open_mongo(server.url, DATABASE)) < NOTICED_WITHIN
    finally:
        server.restart()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_batch_cut_short_is_whole_or_absent(server: Mongod, storage: MongoStorage, how: str) -> None:
    """A server that dies or freezes in the middle of a batch leaves all or nothing; repeating completes it."""
    jobs = make_jobs(8000)
    failures: list[Exception] = []

    def insert() -> None:
        try:
            storage.jobs.insert(jobs)
        except StorageUnavailable as error:
            failures.append(error)

    writer = threading.Thread(target=insert)
    with plain(server) as client:
        writer.start()
        until(lambda: client[DATABASE]["jobs"].estimated_document_count() > 500)
    getattr(server, how)()
    writer.join(30)
    server.restart() if how == "kill" else server.thaw()
    until(lambda: answers(storage))

    assert failures
    assert storage.jobs.find(JobQuery(), Page(limit=10)) == []
    assert storage.jobs.count(JobQuery()) == 0
    assert claim(storage) == []
    storage.jobs.insert(jobs)
    assert storage.jobs.count(JobQuery()) == 8000
    assert len(claim(storage)) == 10


def test_half_a_batch_is_never_claimed(storage: MongoStorage, server: Mongod) -> None:
    """Jobs whose batch was cut short by a server and a process that died together are not run, and go away."""
    half, whole = make_jobs(5), make_jobs(3, priority=9)
    storage.jobs.insert(half)
    with plain(server) as client:
        client[DATABASE]["jobs"].delete_one({"_id": half[-1].id})
    other = open_mongo(server.url, DATABASE)
    try:
        other.jobs.insert(whole)
        assert [job.id for job in claim(other)] == [job.id for job in whole]
        request = ClaimRequest(filter=ClaimFilter(client_id=CLIENT), owner="o", expires_at=NOW, limit=10)
        assert other.jobs.claim(request, NOW + 2 * MINUTE) == []
        assert other.jobs.count(JobQuery()) == 3
        other.jobs.insert(half)
        assert other.jobs.count(JobQuery()) == 8
        assert [job.id for job in claim(other)] == [job.id for job in half]
    finally:
        other.close()


@contextmanager
def failing(server: Mongod, commands: list[str], times: int, **how: Any) -> Iterator[None]:
    """The server fails the next `times` of these commands as `how` says."""
    with plain(server) as client:
        data = {"failCommands": commands, **how}
        client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data})
        try:
            yield
        finally:
            client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def after_the_write(code: int, text: str) -> dict[str, Any]:
    """The write is done, and the answer says otherwise."""
    return {"writeConcernError": {"code": code, "errmsg": text}}


@pytest.mark.parametrize(
    "how",
    [{"errorCode": 16500}, after_the_write(16500, THROTTLE), after_the_write(50, "operation exceeded time limit")],
    ids=["throttled", "throttled after the write", "given up after the write"],
)
def test_throttles_and_unknown_outcomes_are_ridden_out(
    server: Mongod, storage: MongoStorage, how: dict[str, Any]
) -> None:
    """With code 16500, or code 50 after the write was done, each write still is made exactly once."""
    jobs = make_jobs(6)
    with failing(server, ["insert"], 2, **how):
        storage.jobs.insert(jobs)
    with failing(server, ["update"], 1, **how):
        claimed = claim(storage)
    assert [job.token for job in claimed] == [1] * 6
    done = [settlement(job, Completed(result={"a": 1})) for job in claimed[:3]]
    with failing(server, ["update"], 1, **how):
        assert storage.jobs.settle(done, NOW) == [True] * 3
    with failing(server, ["update"], 1, **how):
        assert storage.jobs.extend([Hold(claimed[3].id, 1)], NOW + 2 * MINUTE, NOW) == {claimed[3].id}
    held = [storage.jobs.get(job.id) for job in claimed[4:]]
    with failing(server, ["update"], 1, **how):
        assert storage.jobs.compare_and_set([replace(job, priority=1) for job in held if job], NOW) == [True] * 2
    for settled in storage.jobs.get_many([job.id for job in claimed[:3]]).values():
        assert (settled.status, len(settled.ledger), settled.totals.calls) == (JobState.PROCESSED, 1, 1)
    assert storage.jobs.count(JobQuery()) == 6


@pytest.mark.parametrize(
    "how",
    [{"errorCode": 16500}, after_the_write(16500, THROTTLE), after_the_write(50, "operation exceeded time limit")],
    ids=["throttled", "throttled after the write", "given up after the write"],
)
def test_records_ride_out_throttles_and_unknown_outcomes(
    server: Mongod, storage: MongoStorage, how: dict[str, Any]
) -> None:
    """A record is added once and replaced once, and is no duplicate of itself."""
    prompt = make_prompt()
    with failing(server, ["insert"], 1, **how):
        storage.prompts.add(prompt)
    with failing(server, ["update"], 1, **how):
        assert storage.prompts.compare_and_set(replace(prompt, text="better")) is True
    assert storage.prompts.compare_and_set(replace(prompt, text="late")) is False
    found = storage.prompts.get(prompt.id)
    assert found is not None
    assert (found.text, found.revision) == ("better", 1)


def test_a_lasting_throttle_is_an_outage(server: Mongod, storage: MongoStorage) -> None:
    """A throttle without end is passed on as an outage with a retry hint, within five seconds."""
    with failing(server, ["find"], 1000, errorCode=16500):
        assert seconds_to_refuse(lambda: storage.jobs.get("a" * 24)) < NOTICED_WITHIN


@pytest.fixture
def proxied(server: Mongod) -> Iterator[tuple[MongoStorage, SeveringProxy]]:
    """A storage behind a proxy that can lose answers. Directly connected, so that no write is retried by the driver."""
    with severing_proxy(server.port) as proxy:
        url = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true&retryWrites=false&retryReads=false"
        storage = open_mongo(url, DATABASE)
        try:
            yield storage, proxy
        finally:
            storage.close()
            with plain(server) as client:
                client.drop_database(DATABASE)


def test_a_lost_answer_to_a_settlement(proxied: tuple[MongoStorage, SeveringProxy]) -> None:
    """A settlement whose answer was lost is known when it is repeated, and booked once."""
    storage, proxy = proxied
    storage.jobs.insert(make_jobs(3))
    done = [settlement(job, Completed(result={"a": 1})) for job in claim(storage)]
    proxy.lose_answer_to(b"responseData")
    with pytest.raises(StorageUnavailable):
        storage.jobs.settle(done, NOW)
    assert storage.jobs.settle(done, NOW) == [True] * 3
    [row] = storage.jobs.summary(JobQuery())
    assert (row.status, row.count, row.measured, row.input_tokens) == (JobState.PROCESSED, 3, 3, 30)


@pytest.mark.parametrize("count", [1, 5])
def test_a_lost_answer_to_an_insert(proxied: tuple[MongoStorage, SeveringProxy], count: int) -> None:
    """An insert whose answer was lost may be repeated: each job is there once."""
    storage, proxy = proxied
    jobs = make_jobs(count)
    proxy.lose_answer_to(b"workingPrompts")
    with pytest.raises(StorageUnavailable):
        storage.jobs.insert(jobs)
    storage.jobs.insert(jobs)
    assert storage.jobs.find(JobQuery(), Page()) == jobs
    assert storage.jobs.count(JobQuery()) == count


def test_a_lost_answer_to_a_claim(proxied: tuple[MongoStorage, SeveringProxy]) -> None:
    """What a claim took whose answer was lost is given to nobody else before its lease has run out."""
    storage, proxy = proxied
    storage.jobs.insert(make_jobs(3))
    proxy.lose_answer_to(b"expiresAt")
    with pytest.raises(StorageUnavailable):
        claim(storage)
    assert claim(storage) == []
    assert [job.token for job in storage.jobs.expired(NOW + MINUTE, 10)] == [1] * 3


def test_retry_after_is_read_from_the_servers_text() -> None:
    """A throttle is waited out for as long as the longest RetryAfterMs in the error says."""
    single = OperationFailure(THROTTLE, 16500, {"errmsg": THROTTLE})
    parts = [{"code": 16500, "errmsg": "RetryAfterMs=30"}, {"code": 16500, "errmsg": "RetryAfterMs=1400"}]
    assert throttled_for(single) == 0.2
    assert throttled_for(BulkWriteError({"writeErrors": parts})) == 1.4
    assert throttled_for(OperationFailure("Request rate is large", 16500)) == 0.1
    assert throttled_for(OperationFailure("no such command", 59)) is None


def test_no_error_shows_the_url() -> None:
    """Neither the texts nor the tracebacks of our errors hold the user, the password or the host of the URL."""
    for url in (
        "mongodb://someuser:s3cret@127.0.0.1:1/?serverSelectionTimeoutMS=100",
        "mongodb://someuser:s3cret@127.0.0.1:notaport/",
        "mongodb://someuser:s3cret@@/",
    ):
        with pytest.raises(MetasyncError) as refusal:
            open_mongo(url, DATABASE)
        text = "".join(traceback.format_exception(refusal.value))
        assert "s3cret" not in text
        assert "someuser" not in text
        assert "127.0.0.1" not in str(refusal.value)


def test_a_bad_database_name_is_refused() -> None:
    """A name that MongoDB does not take is told as such."""
    with pytest.raises(InvalidField):
        open_mongo("mongodb://127.0.0.1:1/", "no/slashes")


def test_foreign_texts_stay_outside() -> None:
    """A driver's error text, which may quote documents and hosts, is not in ours."""
    error = OperationFailure("host.example.net: { requestData: 'private' }", 12345)
    assert "private" not in str(translated(error))
    assert "12345" in str(translated(error))
