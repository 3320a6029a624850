"""Driven records: one replica each, woken at once, taken over when it falls silent."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from engine.driving import Driver
from engine.errors import LeaseLost, StorageCorrupt, StorageUnavailable
from engine.jobs.job import Lease
from utilities.clock import SystemClock

_LONG = 3600.0


@dataclass(frozen=True)
class _Record:
    id: str
    lease: Lease | None = None
    revision: int = 0


@dataclass
class _Errand:
    """Records in memory; `steps` says by each step's number (from 1) what it answers or raises."""

    records: dict[str, _Record]
    steps: Callable[[_Record, int], float | None]
    stepped: "list[str]" = field(default_factory=list)
    told: threading.Condition = field(default_factory=threading.Condition)

    def unfinished(self) -> list[_Record]:
        return list(self.records.values())

    def get(self, record_id: str) -> _Record | None:
        return self.records.get(record_id)

    def held(self, record: _Record, lease: Lease | None) -> _Record:
        if self.records[record.id] != record:
            raise LeaseLost(record.id)
        self.records[record.id] = replace(record, lease=lease, revision=record.revision + 1)
        return self.records[record.id]

    def step(self, record: _Record) -> float | None:
        with self.told:
            self.stepped.append(record.id)
            number = self.stepped.count(record.id)
            self.told.notify_all()
        return self.steps(record, number)

    def wait_for(self, count: int) -> None:
        with self.told:
            assert self.told.wait_for(lambda: len(self.stepped) >= count, timeout=20)


Make = Callable[..., Driver[_Record]]


@pytest.fixture
def driving() -> Iterator[Make]:
    """Makes drivers that look for records once only, unless told otherwise; closes them."""
    made: list[Driver[_Record]] = []

    def make(errand: _Errand, *, owner: str = "one", poll: float = _LONG) -> Driver[_Record]:
        made.append(Driver(errand, name="test", owner=owner, clock=SystemClock(), poll=poll))
        made[-1].start()
        return made[-1]

    yield make
    for driver in made:
        driver.close()


def test_a_record_is_stepped_until_no_step_is_left(driving: Make) -> None:
    """Steps follow one another without a pause where they ask for none, and end with the last."""
    errand = _Errand({"a": _Record("a")}, lambda _, number: 0.0 if number < 3 else None)
    driver = driving(errand)
    errand.wait_for(3)
    driver.close()
    assert errand.stepped == ["a", "a", "a"]


def test_a_wake_takes_the_next_step_at_once(driving: Make) -> None:
    """A record that would be looked at in an hour is stepped as soon as it is asked for."""
    errand = _Errand({"a": _Record("a")}, lambda _, number: _LONG)
    driver = driving(errand)
    errand.wait_for(1)
    driver.wake("a")
    errand.wait_for(2)


def test_a_wake_during_a_step_is_not_lost(driving: Make) -> None:
    """What happens while a step runs leads to another one after it."""
    inside, go_on = threading.Event(), threading.Event()

    def steps(_: _Record, number: int) -> float:
        if number == 1:
            inside.set()
            assert go_on.wait(20)
        return _LONG

    errand = _Errand({"a": _Record("a")}, steps)
    driver = driving(errand)
    assert inside.wait(20)
    driver.wake("a")
    go_on.set()
    errand.wait_for(2)


def test_a_wake_without_a_name_finds_new_records(driving: Make) -> None:
    """A record that is added is found without waiting for the next look."""
    errand = _Errand({}, lambda *_: _LONG)
    driver = driving(errand)
    errand.records["new"] = _Record("new")
    driver.wake()
    errand.wait_for(1)


def test_another_replicas_record_is_left_alone_until_its_lease_is_over(driving: Make) -> None:
    """Only what nobody holds is driven; an expired lease is nobody's."""
    now = SystemClock().now()
    foreign = _Record("foreign", Lease("two", now + timedelta(hours=1)))
    silent = _Record("silent", Lease("two", now - timedelta(seconds=1)))
    errand = _Errand({"foreign": foreign, "silent": silent}, lambda *_: None)
    driver = driving(errand)
    errand.wait_for(1)
    driver.close()
    assert errand.stepped == ["silent"]
    assert errand.records["foreign"] == foreign


def test_closing_gives_the_leases_back(driving: Make) -> None:
    """Another replica goes on at once with what a closed one has driven."""
    errand = _Errand({name: _Record(name) for name in "abc"}, lambda *_: _LONG)
    driver = driving(errand)
    errand.wait_for(3)
    driver.close()
    assert [record.lease for record in errand.records.values()] == [None] * 3
    driving(errand, owner="two")
    errand.wait_for(6)


@pytest.mark.parametrize("error", [LeaseLost("a"), StorageUnavailable("away"), StorageCorrupt("damaged")])
def test_only_a_lease_of_ones_own_is_given_back(driving: Make, error: Exception) -> None:
    """What another replica holds by now stays its own, also where it takes it in between; nothing keeps a driver from
    closing."""
    errand = _Errand({"a": _Record("a"), "b": _Record("b")}, lambda *_: _LONG)
    driver = driving(errand)
    errand.wait_for(2)
    taken = Lease("two", SystemClock().now() + timedelta(hours=1))
    errand.records["b"] = theirs = replace(errand.records["b"], lease=taken, revision=7)
    held = errand.held

    def failing(record: _Record, lease: Lease | None) -> _Record:
        if record.id == "a":
            raise error
        return held(record, lease)

    errand.held = failing  # type: ignore[method-assign]
    driver.close()
    assert errand.records["b"] == theirs


@pytest.mark.parametrize("error", [LeaseLost("a"), StorageUnavailable("away")])
def test_a_step_that_failed_is_made_again_with_the_record_as_it_is_then(driving: Make, error: Exception) -> None:
    """A lost write or an outage ends nothing: the record is read again, and stepped by whoever may."""
    seen: list[int] = []

    def steps(record: _Record, number: int) -> float | None:
        seen.append(record.revision)
        if number == 1:
            errand.records["a"] = replace(record, revision=record.revision + 1)
            raise error
        return None

    errand = _Errand({"a": _Record("a")}, steps)
    driving(errand, poll=0.01)
    errand.wait_for(2)
    assert seen == [1, 2]
