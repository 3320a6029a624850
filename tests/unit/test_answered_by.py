"""Which model gave a job's result."""

import pytest

from engine.jobs.job import Attempt
from tests.support.factories import make_attempt, make_call, make_job

FIRST = make_attempt(1, calls=(make_call(model="a"),))
FAILED = make_attempt(2, outcome="dead_lettered", calls=(make_call(model="b", outcome="error"),))
FAILED_OVER = make_attempt(
    3,
    calls=(make_call(model="a", outcome="error"), make_call(model="b"), make_call(step="eval", model="judge")),
)
OUTSIDE = make_attempt(4, calls=())


@pytest.mark.parametrize(
    ("ledger", "expected"),
    [
        ((), None),
        ((FIRST,), "a"),
        ((FAILED, FAILED_OVER), "b"),
        ((FAILED_OVER, FAILED), "b"),
        ((FIRST, OUTSIDE), None),
    ],
)
def test_who_gave_the_result(ledger: tuple[Attempt, ...], expected: str | None) -> None:
    """The model of the last good work call of the attempt that completed the job; none if a worker outside did."""
    assert make_job(ledger=ledger, response_data={"a": 1}).answered_by == expected


def test_nobody_as_long_as_there_is_no_result() -> None:
    """A job that has no result, such as one that begins anew, was answered by nobody."""
    assert make_job(ledger=(FIRST,)).answered_by is None
