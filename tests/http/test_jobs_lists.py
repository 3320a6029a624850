"""GET /jobs and /jobs/summary: contract, sections 1 and 6."""

from decimal import Decimal
from typing import Any

import pytest

from engine.jobs.outcome import Completed, DeadLettered, Outcome, Settlement
from tests.support.api import Api
from tests.support.factories import make_attempt, make_call, make_failure
from tests.support.jobs_http import STATUSES, Shop, open_shop


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


@pytest.fixture
def local(local_api: Api) -> Shop:
    return open_shop(local_api)


def ids(shop: Shop, query: str, path: str = "/jobs") -> list[str]:
    answer = shop.call("GET", f"{path}?{query}")
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()]


def test_list_is_in_insertion_order_and_cut(shop: Shop) -> None:
    """A bare array in insertion order; limit, skip and order=desc cut it; X-Total-Count tells how many there are."""
    for number in range(5):
        shop.post(id=str(number), priority=5 - number)
    assert ids(shop, "") == ["0", "1", "2", "3", "4"]
    assert ids(shop, "order=desc") == ["4", "3", "2", "1", "0"]
    assert ids(shop, "limit=2") == ["0", "1"]
    assert ids(shop, "limit=2&skip=3") == ["3", "4"]
    assert ids(shop, "limit=2&skip=1&order=desc") == ["3", "2"]
    for query in ("", "?limit=2", "?limit=2&skip=4", "?skip=99", "?limit=5"):
        assert shop.call("GET", f"/jobs{query}").headers["X-Total-Count"] == "5"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=10001", "limit=x", "skip=-1", "order=up", "status=DONE"]
)
def test_bad_queries_are_422(local: Shop, query: str) -> None:
    """limit is 1 to 10000, skip is not negative, a status exists: else 422."""
    assert local.call("GET", f"/jobs?{query}").status_code == 422


@pytest.mark.parametrize(
    "query",
    [
        "priority=99999999999999999999999",
        "skip=2147483647",
        "jobId=%00",
        "operation=%24ne",
        "model=%F0%28",
        "unknown=1",
    ],
)
def test_odd_queries_find_nothing_or_all(shop: Shop, query: str) -> None:
    """Values that no job has find nothing, unknown parameters are ignored, and none is an error of the service."""
    shop.post()
    answer = shop.call("GET", f"/jobs?{query}")
    assert answer.status_code == 200
    assert len(answer.json()) == (1 if query.startswith("unknown") else 0)


def test_filters_hold_together(shop: Shop) -> None:
    """jobId (the client's own id), status, operation, model and priority are exact and ANDed."""
    shop.api.new_model(name="other-model")
    shop.post(id="a", operation="x", priority=1)
    shop.post(id="b", operation="x", priority=2)
    shop.post(id="c", operation="y", priority=2, model="other-model")
    canceled = shop.post(id="d", operation="x", priority=2)["jobId"]
    shop.call("PATCH", f"/jobs/{canceled}", {"status": "CANCELED"})
    assert ids(shop, "operation=x") == ["a", "b", "d"]
    assert ids(shop, "operation=x&priority=2") == ["b", "d"]
    assert ids(shop, "operation=x&priority=2&status=PENDING") == ["b"]
    assert ids(shop, "model=other-model") == ["c"]
    assert ids(shop, "jobId=c") == ["c"]
    assert ids(shop, "jobId=C") == []


def test_reference_filters_match_values_of_any_type(shop: Shop) -> None:
    """clientReference.<field>=value is exact, goes deeper by dots, and matches 5 and "5", true and "true"."""
    shop.post(id="number", clientReference={"a": 5, "b": {"c": True}})
    shop.post(id="text", clientReference={"a": "5", "b": {"c": "true"}})
    shop.post(id="other", clientReference={"a": 50, "b": {"c": False}})
    shop.post(id="none")
    assert ids(shop, "clientReference.a=5") == ["number", "text"]
    assert ids(shop, "clientReference.b.c=true") == ["number", "text"]
    assert ids(shop, "clientReference.a=5&clientReference.b.c=false") == []
    assert ids(shop, "clientReference.a=50&clientReference.b.c=false") == ["other"]
    assert ids(shop, "clientReference.a=5&clientReference.a=50") == []
    assert ids(shop, "clientReference.=5") == ["number", "text", "other", "none"]
    assert ids(shop, "clientReference.a=") == []


@pytest.mark.parametrize("path", ["/jobs", "/jobs/summary", "/workers/summary"])
@pytest.mark.parametrize("field", ["$where", "a%00b", "%00", "$"])
def test_impossible_reference_fields_are_400(local: Shop, path: str, field: str) -> None:
    """A field name that starts with `$` or holds a NUL is 400, after authentication."""
    assert local.call("GET", f"{path}?clientReference.{field}=1").status_code == 400
    assert local.api.http.get(f"{path}?clientReference.{field}=1").status_code == 401


def test_clients_see_their_own_and_admins_all(shop: Shop) -> None:
    """A client's list and summary hold its own jobs, an admin's all."""
    other = open_shop(shop.api)
    shop.post(id="mine")
    other.post(id="theirs")
    assert ids(shop, "") == ["mine"]
    assert [job["id"] for job in shop.as_admin("GET", "/jobs").json()] == ["mine", "theirs"]
    assert shop.call("GET", "/jobs/summary").json()["total"] == 1
    assert shop.as_admin("GET", "/jobs/summary").json()["total"] == 2


def test_summary_counts_every_status(shop: Shop) -> None:
    """The summary has every status with its count, the total, and null metrics where nothing was called."""
    empty = shop.call("GET", "/jobs/summary").json()
    assert empty == {**dict.fromkeys(STATUSES, 0), "total": 0, "processingMetrics": None}
    for number, status in enumerate(STATUSES, 1):
        for _ in range(number):
            shop.bring_to(status)
    summary = shop.call("GET", "/jobs/summary").json()
    assert {status: summary[status] for status in STATUSES} == {s: n for n, s in enumerate(STATUSES, 1)}
    assert summary["total"] == sum(range(1, len(STATUSES) + 1))


def test_summary_filters(shop: Shop) -> None:
    """operation, model, id (the client's own) and clientReference.* restrict the summary, ANDed."""
    shop.post(id="a", operation="x", clientReference={"r": 1})
    shop.post(id="b", operation="x", clientReference={"r": 2})
    shop.post(id="c", operation="y", clientReference={"r": "1"})

    def total(query: str) -> int:
        return int(shop.call("GET", f"/jobs/summary?{query}").json()["total"])

    assert (total("operation=x"), total("id=a"), total("model=gpt-test"), total("model=none")) == (2, 1, 3, 0)
    assert (total("clientReference.r=1"), total("clientReference.r=1&operation=x"), total("jobId=a")) == (2, 1, 3)


def finish(shop: Shop, outcome: Outcome | None = None, **call: Any) -> str:
    """A job that a worker finished with one such call."""
    job_id = str(shop.post()["jobId"])
    (held,) = shop.claim()
    attempt = make_attempt(held.token, calls=(make_call(**call),))
    done = Settlement(job_id=job_id, token=held.token, outcome=outcome or Completed(result={}), attempt=attempt)
    assert shop.api.storage.jobs.settle([done], shop.api.clock.now()) == [True]
    return job_id


UNPRICED = {"input_cost": None, "output_cost": None, "currency": None}


def metrics(shop: Shop) -> dict[str, Any]:
    found: dict[str, Any] = shop.call("GET", "/jobs/summary").json()["processingMetrics"]
    return found


def test_summary_adds_up_exactly(shop: Shop) -> None:
    """Sums are over PROCESSED and CONSUMED jobs only; totalCost is exactly the sum of the two sums beside it."""
    for number in range(10):
        job_id = finish(shop, input_cost=Decimal("0.1"), output_cost=Decimal("0.2"), duration=0.25)
        if number % 2:
            shop.call("PATCH", f"/jobs/{job_id}", {"status": "CONSUMED"})
    finish(shop, DeadLettered(make_failure()), input_tokens=1000)
    found = metrics(shop)
    assert (found["inputTokens"], found["outputTokens"], found["totalTokens"]) == (100, 200, 300)
    assert found["duration"] == pytest.approx(2.5)
    assert (found["inputCost"], found["outputCost"], found["currency"]) == (1.0, 2.0, "USD")
    assert found["totalCost"] == found["inputCost"] + found["outputCost"]


def test_total_cost_is_the_sum_of_what_is_shown(shop: Shop) -> None:
    """totalCost equals inputCost + outputCost as a reader of JSON adds them, digit for digit."""
    finish(shop, input_cost=Decimal("0.1"), output_cost=Decimal("0.2"))
    finish(shop, input_cost=Decimal("0.7"), output_cost=Decimal("0.000000000001"))
    found = metrics(shop)
    assert found["totalCost"] == found["inputCost"] + found["outputCost"]


def test_currencies_are_not_mixed(shop: Shop) -> None:
    """With several currencies there are no costs, and `currency` says why; without any there is no such key."""
    finish(shop, **UNPRICED)
    assert set(metrics(shop)) == {"inputTokens", "outputTokens", "totalTokens", "duration"}
    finish(shop)
    partly = metrics(shop)
    assert "inputCost" not in partly
    assert len(partly["currency"]) > 3
    other = open_shop(shop.api)
    finish(other)
    finish(other, currency="EUR")
    mixed = metrics(other)
    assert not {"inputCost", "outputCost", "totalCost"} & set(mixed)
    assert "multiple currencies" in mixed["currency"]
    assert mixed["totalTokens"] == 60
