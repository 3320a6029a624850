"""Which stream an Idempotency-Key stands for, on every back-end."""

from dataclasses import dataclass, replace
from datetime import datetime

import pytest

from api.core.openai_failures import Unanswered
from api.core.unprocessable import KeyReused
from api.services.idempotency import IdempotencyKeys, RequestKey
from api.services.stream_keys import MOST_TRIES, STORED_WITHIN, StreamKeys
from engine.records.store import Storage
from engine.records.streams import Stream, StreamStatus
from tests.support.factories import CLIENT, NOW, OTHER_CLIENT, make_failure, make_stream
from utilities.clock import SystemClock

KEY = RequestKey("once", "fingerprint")


@dataclass
class Stopped(SystemClock):
    """A clock that is set by hand."""

    at: datetime = NOW

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Stopped:
    return Stopped()


@pytest.fixture
def keys(storage: Storage, clock: Stopped) -> StreamKeys:
    return StreamKeys(storage.streams, IdempotencyKeys(storage.jobs), clock)


def ended(storage: Storage, stream: Stream, **fields: object) -> Stream:
    storage.streams.add(stream)
    assert storage.streams.end(replace(stream, lease=None, **fields))
    return replace(stream, lease=None, revision=1, **fields)


def tried(keys: StreamKeys, stream: Stream) -> RequestKey:
    """The key under which `stream` is tried now."""
    key = keys.standing(CLIENT, KEY)
    assert isinstance(key, RequestKey)
    keys.take(CLIENT, key, stream.id)
    return key


def refused(keys: StreamKeys) -> Unanswered:
    with pytest.raises(Unanswered) as raised:
        keys.standing(CLIENT, KEY)
    assert (raised.value.status, raised.value.told.param) == (409, "Idempotency-Key")
    return raised.value


def test_an_answer_stands(storage: Storage, keys: StreamKeys) -> None:
    """From the reservation on the key is in use, until there is an answer, which it then stands for: for its client,
    and for that request."""
    stream = make_stream(repeatable=True)
    tried(keys, stream)
    assert refused(keys).again
    storage.streams.add(stream)
    assert refused(keys).again
    answered = ended(storage, stream, status=StreamStatus.COMPLETED, answer={"choices": []})
    assert keys.standing(CLIENT, KEY) == answered
    assert keys.standing(OTHER_CLIENT, KEY) == KEY
    with pytest.raises(KeyReused):
        keys.standing(CLIENT, replace(KEY, fingerprint="another"))


def test_an_answer_that_was_not_kept(storage: Storage, keys: StreamKeys) -> None:
    """It cannot be said again, it is not asked for again either, and trying again is of no use."""
    stream = make_stream(repeatable=True)
    tried(keys, stream)
    ended(storage, stream, status=StreamStatus.COMPLETED)
    assert not refused(keys).again


def test_of_two_one_tries(keys: StreamKeys) -> None:
    """Who finds the key free at the same time as somebody else, and comes second, is told that it is in use."""
    key = tried(keys, make_stream())
    with pytest.raises(Unanswered):
        keys.take(CLIENT, key, make_stream().id)


def test_who_was_killed_before_the_record_is_not_waited_for(keys: StreamKeys, clock: Stopped) -> None:
    """A reservation without a record is in use for a minute; then there is another try, for one of those who ask."""
    first = tried(keys, make_stream())
    clock.at += STORED_WITHIN
    second = tried(keys, make_stream())
    assert second != first
    assert refused(keys).again
    with pytest.raises(Unanswered):
        keys.take(CLIENT, second, make_stream().id)


def test_tries_are_bounded(storage: Storage, keys: StreamKeys) -> None:
    """Each failure leaves a try, up to a number of them; no two are under the same key."""
    used = []
    for _ in range(MOST_TRIES):
        stream = make_stream(repeatable=True)
        used.append(tried(keys, stream))
        ended(storage, stream, status=StreamStatus.ERROR, failure=make_failure())
    assert len(set(used)) == MOST_TRIES
    assert not refused(keys).again
