"""Which stream an Idempotency-Key stands for."""

from dataclasses import replace
from datetime import timedelta

from api.core.openai_failures import Unanswered
from api.core.problems import Told
from api.services.idempotency import IdempotencyKeys, RequestKey
from engine.records.streams import Stream, StreamStatus, StreamStore
from utilities.clock import Clock

STORED_WITHIN = timedelta(minutes=1)
"""Between the reservation of a stream and its record. What has none later never will: its process was killed."""

MOST_TRIES = 10
"""Of one key: who has failed as often may take another one."""

_WAIT_SECONDS = 2.0


class StreamKeys:
    """A stream that failed has answered nothing, so that its key stands for another try: a reservation of its own,
    under the id of the one before. Of those who try again at once one gets it."""

    def __init__(self, store: StreamStore, keys: IdempotencyKeys, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    def standing(self, client_id: str, key: RequestKey) -> Stream | RequestKey:
        """The stream that has answered, or the key under which to try now.

        Raises Unanswered where one is under way, or cannot be said again; KeyReused where the request was another.
        """
        now = self._clock.now()
        for _ in range(MOST_TRIES):
            record = self._keys.standing(client_id, key, now)
            if record is None:
                return key
            stream = self._store.get(record.first_id)
            if stream is None and record.created_at > now - STORED_WITHIN:
                raise _under_way()
            if stream is not None and stream.status is not StreamStatus.ERROR:
                return _answered(stream)
            key = replace(key, key=f" {record.first_id}")  # no client's own key begins like this
        raise _refused(f"the stream of this Idempotency-Key has failed {MOST_TRIES} times: use another key")

    def take(self, client_id: str, key: RequestKey, stream_id: str) -> None:
        """Reserves `key`, as `standing` gave it, for a new stream; raises Unanswered where somebody was faster."""
        if self._keys.reserve(client_id, key, stream_id, 1, self._clock.now()).first_id != stream_id:
            raise _under_way()


def _answered(stream: Stream) -> Stream:
    if stream.status is StreamStatus.STREAMING:
        raise _under_way()
    if stream.answer is None:
        raise _refused("the answer of this Idempotency-Key was too long to be kept: GET /stream/{id} has its text")
    return stream


def _under_way() -> Unanswered:
    text = "a stream with this Idempotency-Key is under way: its answer can be had when it has ended"
    return Unanswered(text, status=409, told=_IN_USE, retry_after=_WAIT_SECONDS)


def _refused(text: str) -> Unanswered:
    return Unanswered(text, status=409, told=_IN_USE, again=False)


_IN_USE = Told(code="idempotency_key_in_use", param="Idempotency-Key")
