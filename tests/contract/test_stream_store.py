"""The records of streams on every back-end."""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.jobs.queue import Page
from engine.records.store import Storage
from engine.records.streams import Stream, StreamQuery, StreamStatus, lost
from engine.usage import Dimension, UsageQuery
from tests.support.factories import CLIENT, MINUTE, NOW, OTHER_CLIENT, make_call, make_failure, make_stream

EVERYBODY = StreamQuery()
BIG = Decimal("9000000.000000000001")


def ended(stream: Stream, *calls: Any, **fields: Any) -> Stream:
    """The record as it is written when all has been said."""
    values = {"status": StreamStatus.COMPLETED, "text": "Once.", "total_duration": 2.0, "completed_at": NOW + MINUTE}
    return replace(stream, calls=calls, lease=None, **{**values, **fields})


def stored(storage: Storage, *streams: Stream) -> list[Stream]:
    for stream in streams:
        storage.streams.add(stream)
    return list(streams)


def finished(storage: Storage, stream: Stream, *calls: Any, **fields: Any) -> Stream:
    storage.streams.add(stream)
    assert storage.streams.end(ended(stream, *calls, **fields))
    return stream


def test_a_record_comes_back_as_it_was_written(storage: Storage) -> None:
    """Every field survives, at the beginning and at the end; adding it once more changes nothing."""
    [stream] = stored(
        storage,
        make_stream(
            additional_prompts=("a" * 24,),
            client_reference={"team": {"name": "red"}},
            user_prompt="\0 ü 🙂",
            chat={"$a.b": ["\0 ü", 2**60, None]},
            repeatable=True,
        ),
    )
    assert storage.streams.get(stream.id) == stream

    end = ended(stream, make_call(step="stream"), status=StreamStatus.ERROR, failure=make_failure(), text="half\0")
    end = replace(end, answer={"$a.b": ["\0 ü", 2**60, None]})
    assert storage.streams.end(end)
    storage.streams.add(stream)

    assert storage.streams.get(stream.id) == replace(end, revision=1)
    assert storage.streams.get_many([stream.id, "b" * 24]) == {
        stream.id: replace(end, revision=1, text="", user_prompt="", chat=None, answer=None)
    }
    assert storage.streams.get("c" * 24) is None
    assert storage.streams.get("\ud800") is None


def test_of_two_ends_one_is_written(storage: Storage) -> None:
    """An end on a stale revision is refused, and its calls are in no sum; one on the new revision replaces the first,
    in the usage too."""
    [stream] = stored(storage, make_stream())
    truth = ended(stream, make_call(step="stream", started_at=NOW))
    assert storage.streams.end(lost(stream, NOW))
    assert not storage.streams.end(truth)
    query = UsageQuery(first=date.min, last=date.max, group_by=frozenset({Dimension.OPERATION}))
    [row] = storage.usage.rows(query)
    assert (row.operation, row.calls, row.unknown, row.currency) == ("stream", 1, 1, None)

    assert storage.streams.end(replace(truth, revision=1))
    [row] = storage.usage.rows(query)
    assert (row.calls, row.unknown, row.currency) == (1, 0, "USD")
    assert row.input_cost == make_call().input_cost


def test_leases(storage: Storage) -> None:
    """What a silent process streamed is found when the lease has run out; a living one's leases move all at once, and
    what has ended has none."""
    mine, other, done = make_stream(), make_stream(), make_stream()
    stored(storage, mine, replace(other, lease=None if other.lease is None else replace(other.lease, owner="other")))
    finished(storage, done)

    assert storage.streams.expired(NOW, 10) == []
    assert storage.streams.renew("replica", NOW + 5 * MINUTE) == 1

    assert [stream.id for stream in storage.streams.expired(NOW + 2 * MINUTE, 10)] == [other.id]
    assert len(storage.streams.expired(NOW + 9 * MINUTE, 1)) == 1


@pytest.fixture
def several(storage: Storage) -> list[Stream]:
    """Four of a client, a minute between them, and one of another client."""
    return [
        finished(storage, make_stream(client_reference={"n": 5})),
        *stored(storage, make_stream(now=NOW + MINUTE, client_reference={"n": "5", "x": True}, model="other")),
        finished(storage, make_stream(now=NOW + 2 * MINUTE), status=StreamStatus.ERROR),
        *stored(storage, make_stream(now=NOW + 3 * MINUTE)),
        *stored(storage, make_stream(client_id=OTHER_CLIENT, now=NOW + 4 * MINUTE)),
    ]


@pytest.mark.parametrize(
    ("conditions", "places"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"client_id": CLIENT}, [0, 1, 2, 3]),
        ({"client_id": CLIENT, "model": "gpt-test"}, [0, 2, 3]),
        ({"status": "streaming"}, [1, 3, 4]),
        ({"status": "strange"}, []),
        ({"since": NOW + MINUTE, "until": NOW + 3 * MINUTE}, [1, 2, 3]),
        ({"since": NOW + 3 * MINUTE + timedelta(milliseconds=1)}, [4]),
        ({"references": ("n=5",)}, [0, 1]),
        ({"references": ("n=5", "x=true")}, [1]),
    ],
)
def test_queries(storage: Storage, several: list[Stream], conditions: dict[str, Any], places: list[int]) -> None:
    """Each condition restricts, pages are cut in the order of creation or against it, and the count is of all."""
    query = StreamQuery(**conditions)
    wanted = [several[place].id for place in places]

    assert [stream.id for stream in storage.streams.find(query, Page())] == wanted
    assert [stream.id for stream in storage.streams.find(query, Page(newest_first=True))] == wanted[::-1]
    assert [stream.id for stream in storage.streams.find(query, Page(limit=2, skip=1))] == wanted[1:3]
    assert storage.streams.count(query) == len(wanted)
    assert sum(row.count for row in storage.streams.by_status(query)) == len(wanted)
    assert all(not stream.user_prompt for stream in storage.streams.find(query, Page()))


def test_sums_are_exact(storage: Storage) -> None:
    """Counts, tokens, seconds and amounts beyond what a double holds add up to the last digit, by status and by group:
    model, reference and set of prompts. Currencies that differ are told."""
    calls = [make_call(input_cost=BIG, output_cost=Decimal("0.000000000001"), input_tokens=2, output_tokens=3)] * 2
    one, two, three = ("a" * 24, "b" * 24), ("b" * 24, "a" * 24, "a" * 24), ("a" * 24,)
    finished(storage, make_stream(additional_prompts=one, client_reference={"k": 1, "l": 2}), *calls)
    finished(storage, make_stream(additional_prompts=two, client_reference={"l": 2, "k": 1}), *calls)
    other = finished(storage, make_stream(additional_prompts=three), make_call(currency="EUR"))
    stored(storage, make_stream())

    rows = {row.status: row for row in storage.streams.by_status(EVERYBODY)}
    completed = rows[StreamStatus.COMPLETED]
    assert (completed.count, completed.measured, completed.input_tokens) == (3, 3, 8 + (make_call().input_tokens or 0))
    assert completed.currencies == {"EUR", "USD"}
    assert completed.total_duration == 6.0
    assert (rows[StreamStatus.STREAMING].count, rows[StreamStatus.STREAMING].measured) == (1, 0)

    largest, least = storage.streams.by_group(StreamQuery(status="completed"), 10)
    assert (largest.count, largest.output_tokens, largest.currencies) == (2, 12, {"USD"})
    assert (largest.input_cost, largest.output_cost) == (4 * BIG, Decimal("0.000000000004"))
    assert least.sample_id == other.id
    assert len(storage.streams.by_group(StreamQuery(status="completed"), 1)) == 1
