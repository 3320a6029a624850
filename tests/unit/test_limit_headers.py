"""Vendors' headers on limits, and what is made of them."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from engine.llm import Level
from llm_workers.providers.limit_headers import levels_in
from tests.support.factories import NOW

REQUESTS = "x-ratelimit-{}-requests"
DAILY = "x-ratelimit-{}-requests-day"
DATED = "anthropic-ratelimit-requests-{}"


def told(pattern: str, limit: str = "60", remaining: str = "15", reset: str = "30s") -> dict[str, str]:
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {pattern.format(name): value for name, value in values.items()}


def levels(headers: Mapping[str, str]) -> tuple[Level, ...]:
    return levels_in(CIMultiDict(headers), NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("17ms", 0.017),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("850µs", 0.00085),
        ("33011.38", 33011.38),
        ("0s", 0.0),
        ("2d", 86400.0),
        (" 5s ", 5.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A reset is read as Go writes durations, and as plain seconds; more than a day counts as one."""
    (level,) = levels(told(REQUESTS, reset=text))

    assert (level.kind, level.limit, level.remaining) == ("requests", 60, 15)
    assert level.resets_in == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("reset", "date", "seconds"),
    [
        ("2026-01-02T03:04:35.678Z", None, 30.0),
        ("2026-01-02T04:04:35.678+01:00", None, 30.0),
        ("2026-01-02T03:04:35Z", "Fri, 02 Jan 2026 03:04:25 GMT", 10.0),
        ("2026-01-02T03:04:35.678Z", "nonsense", 30.0),
        ("2020-01-01T00:00:00Z", None, 0.0),
        ("2099-01-01T00:00:00Z", None, 86400.0),
    ],
)
def test_instants(reset: str, date: str | None, seconds: float) -> None:
    """An instant counts from the answer's own Date, else from our clock; one that is past means now."""
    headers = told(DATED, reset=reset) | ({} if date is None else {"Date": date})

    assert levels(headers)[0].resets_in == pytest.approx(seconds)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {REQUESTS.format("remaining"): "5"},
        told(REQUESTS, reset=""),
        told(REQUESTS, reset="soon"),
        told(REQUESTS, reset="-5s"),
        told(REQUESTS, reset="1e9"),
        told(REQUESTS, reset="m5s"),
        told(REQUESTS, reset="5s" * 100),
        told(REQUESTS, limit="0"),
        told(REQUESTS, limit="many"),
        told(REQUESTS, limit="٣"),
        told(REQUESTS, remaining="-1"),
        told(REQUESTS, remaining="9" * 5000),
        told(DATED, reset="2026-01-02T03:04:35"),
        told(DATED, reset="2026-99-99T00:00:00Z"),
    ],
)
def test_nothing_is_made_of_less(headers: Mapping[str, str]) -> None:
    """Headers that are missing, malformed or out of range give no level."""
    assert levels(headers) == ()


def test_one_bad_limit_leaves_the_other() -> None:
    """Each limit stands for itself."""
    headers = told(REQUESTS, reset="?") | told("x-ratelimit-{}-tokens", limit="1000")

    assert [level.kind for level in levels(headers)] == ["tokens"]


@pytest.mark.parametrize(("daily", "expected"), [("10", 10), ("20", 15)])
def test_the_scarcest_of_a_kind(daily: str, expected: int) -> None:
    """Of several limits of one kind the one counts of which the smallest share is left."""
    headers = told(REQUESTS, limit="60", remaining="15") | told(DAILY, limit="60", remaining=daily)

    assert [level.remaining for level in levels(headers)] == [expected]


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=40), st.text(max_size=40))
def test_whatever_is_sent(limit: str, remaining: str, reset: str, date: str) -> None:
    """No text in these headers is an error, and no level is beyond its bounds."""
    for pattern in (REQUESTS, DATED):
        for level in levels({**told(pattern, limit, remaining, reset), "Date": date}):
            assert level.limit > 0
            assert level.remaining >= 0
            assert 0 <= level.resets_in <= 86400
