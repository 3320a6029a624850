"""Claims under caps, on every back-end: a model that has no room does not stand in the way of the others."""

import pytest

from engine.jobs.job import Job
from engine.jobs.references import filter_texts
from engine.records.store import Storage
from tests.contract.test_job_queue import claim, ids
from tests.support.factories import CLIENT, OTHER_CLIENT, make_job, make_jobs

REFERENCE = {"team": "blue"}


@pytest.fixture
def posted(storage: Storage) -> dict[str, list[Job]]:
    """Thirty jobs of model a, then three of b and two of c, which are less urgent; the last of a are urgent."""
    jobs = {
        "a": make_jobs(28, model="a", client_reference=REFERENCE)
        + make_jobs(2, model="a", priority=1, client_reference=REFERENCE),
        "b": make_jobs(3, model="b", priority=7, client_reference=REFERENCE),
        "c": make_jobs(2, model="c", priority=6, operation="other"),
    }
    for some in jobs.values():
        storage.jobs.insert(some)
    return jobs


def test_a_model_without_room_is_passed_over(storage: Storage, posted: dict[str, list[Job]]) -> None:
    """With no room for a, the jobs of b and c are claimed, by priority; with room for nothing, none is."""
    assert claim(storage, caps={"a": 0, "b": 0, "c": 0}) == []
    assert ids(claim(storage, caps={"a": 0})) == ids(posted["c"] + posted["b"])
    assert claim(storage, caps={"a": 0}) == []


def test_no_more_than_there_is_room_for(storage: Storage, posted: dict[str, list[Job]]) -> None:
    """Of a capped model its most urgent jobs are claimed, as many as fit, together with the others."""
    claimed = claim(storage, limit=6, caps={"a": 3, "b": 1, "x": 0})

    assert ids(claimed) == ids([*posted["a"][-2:], posted["a"][0], *posted["c"], posted["b"][0]])
    assert ids(claim(storage, limit=2, caps={"a": 5})) == ids(posted["a"][1:3])


def test_caps_that_concern_nobody_change_nothing(storage: Storage, posted: dict[str, list[Job]]) -> None:
    """Caps for models without ready jobs, and another client's jobs, make no difference."""
    storage.jobs.insert([make_job(client_id=OTHER_CLIENT, model="x")])

    assert ids(claim(storage, limit=2, caps={"x": 0})) == ids(posted["a"][-2:])
    assert claim(storage, client_id=OTHER_CLIENT, caps={"x": 0}) == []
    assert len(claim(storage, client_id=OTHER_CLIENT, caps={"x": 1})) == 1


@pytest.mark.parametrize(
    ("conditions", "models"),
    [
        ({"references": filter_texts(REFERENCE)}, ["b"]),
        ({"operation": "other"}, ["c"]),
        ({"model": "b"}, ["b"]),
        ({"model": "a"}, []),
        ({"references": filter_texts(REFERENCE), "operation": "other"}, []),
    ],
)
def test_caps_hold_together_with_filters(
    storage: Storage, posted: dict[str, list[Job]], conditions: dict[str, object], models: list[str]
) -> None:
    """What passes the consumer's own filter and has room is claimed, nothing else."""
    claimed = claim(storage, caps={"a": 0}, **conditions)

    assert ids(claimed) == [job.id for model in models for job in posted[model]]
    assert all(job.client_id == CLIENT for job in claimed)
