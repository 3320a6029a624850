"""GET /usage: who sees which sums, in which form."""

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.jobs.job import totals_of
from tests.support.api import Api, Headers
from tests.support.factories import make_attempt, make_call, make_job

TODAY = datetime.now(UTC).replace(hour=12)
RANGE = {"from": (TODAY - timedelta(days=40)).date().isoformat(), "to": TODAY.date().isoformat()}


def called(api: Api, client: Headers | str, *calls: dict[str, Any], operation: str = "summarize") -> None:
    """A job of the client with these calls on its ledger, made today where they do not say otherwise."""
    made = tuple(make_call(**{"started_at": TODAY, **call}) for call in calls)
    owner = client if isinstance(client, str) else client["client_id"]
    attempt = make_attempt(1, calls=made)
    api.storage.jobs.insert([make_job(client_id=owner, operation=operation, ledger=(attempt,), totals=totals_of(made))])


def test_an_item_tells_all(api: Api, client: Headers) -> None:
    """Sums by day, client, model, operation and currency, costs as numbers and to the last digit, and what all add up
    to by currency; unpriced calls have no costs."""
    called(api, client, {"cached_input_tokens": 4}, {"outcome": "error", "currency": None, "input_cost": None})
    called(api, client, {"input_cost": Decimal("0.000000000001")})
    shown = api.http.get("/usage", params=RANGE, headers=client)
    body = shown.json()
    unpriced, priced = body["items"]
    assert priced == {
        "day": RANGE["to"],
        "clientId": client["client_id"],
        "model": "gpt-test",
        "operation": "summarize",
        "currency": "USD",
        "calls": 2,
        "errors": 0,
        "unknown": 0,
        "inputTokens": 20,
        "outputTokens": 40,
        "cachedInputTokens": 4,
        "reasoningTokens": 0,
        "inputCost": 0.001000000001,
        "outputCost": 0.004,
        "cost": 0.005000000001,
        "inputCostExact": "0.001000000001",
        "outputCostExact": "0.004",
        "costExact": "0.005000000001",
    }
    assert (unpriced["currency"], unpriced["errors"], unpriced["cost"], unpriced["costExact"]) == (None, 1, None, None)
    assert [(sums["currency"], sums["calls"]) for sums in body["totals"]] == [(None, 1), ("USD", 2)]
    assert (body["total"], shown.headers["X-Total-Count"], body["from"]) == (2, "2", RANGE["from"])
    assert body["groupBy"] == ["day", "client", "model", "operation"]


def test_who_sees_what(api: Api, client: Headers) -> None:
    """A client sees its own alone, whatever it asks for; an admin sees all, or one client's."""
    other = api.new_client()
    called(api, client, {}, {})
    called(api, other, {})

    def calls(headers: Headers, **query: str) -> list[int]:
        body = api.http.get("/usage", params={**RANGE, **query}, headers=headers).json()
        return sorted(item["calls"] for item in body["items"])

    assert (calls(client), calls(other)) == ([2], [1])
    assert calls(client, clientId=other["client_id"]) == []
    assert calls(client, clientId=client["client_id"]) == [2]
    assert calls(api.admin) == [1, 2]
    assert calls(api.admin, clientId=other["client_id"]) == [1]
    assert calls(api.admin, groupBy="model") == [3]


def test_filters_groups_and_pages(local_api: Api) -> None:
    """Model and operation restrict, groupBy adds up over the rest, and a page is cut from the whole."""
    client = local_api.new_client()
    for operation in ("a", "b", "c"):
        called(local_api, client, {}, {"model": "other"}, operation=operation)

    def items(**query: Any) -> list[dict[str, Any]]:
        return list(local_api.http.get("/usage", params={**RANGE, **query}, headers=client).json()["items"])

    assert len(items()) == 6
    assert [item["operation"] for item in items(model="other", operation="b")] == ["b"]
    grouped = items(groupBy=["model", "day"])
    assert [(item["model"], item["calls"], item["operation"]) for item in grouped] == [
        ("gpt-test", 3, None),
        ("other", 3, None),
    ]
    assert items(limit=2, skip=1) == items()[1:3]
    assert items(order="desc") == items()[::-1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "2026-02-02", "to": "2026-02-01"}, "to"),
        ({"from": "2025-01-01", "to": "2026-02-05"}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-02-30"}, "to"),
        ({"groupBy": "colour"}, "groupBy"),
        ({"format": "xml"}, "format"),
        ({"limit": "0"}, "limit"),
    ],
)
def test_what_does_not_fit_is_named(local_api: Api, query: dict[str, str], field: str) -> None:
    """A range the wrong way round or over 400 days, and values that are none, are 422 with the field's name."""
    answer = local_api.http.get("/usage", params=query)
    assert answer.status_code == 422
    [problem] = answer.json()["detail"]
    assert problem["loc"][:2] == ["query", field]


def test_it_is_this_month_by_default(local_api: Api) -> None:
    """Without dates the answer is of the month so far; with `to` alone, of its month up to then."""
    client = local_api.new_client()
    first = TODAY.replace(day=1)
    called(local_api, client, {"started_at": first}, {"started_at": first - timedelta(days=1)})
    body = local_api.http.get("/usage", headers=client).json()
    assert (body["from"], body["to"]) == (first.date().isoformat(), TODAY.date().isoformat())
    assert [item["calls"] for item in body["items"]] == [1]
    body = local_api.http.get("/usage", params={"to": "2026-02-10"}, headers=client).json()
    assert (body["from"], body["to"]) == ("2026-02-01", "2026-02-10")
    assert local_api.http.get("/usage").status_code == 401


@pytest.mark.parametrize(
    ("query", "accept"), [({"format": "csv"}, "*/*"), ({}, "text/csv"), ({}, "text/csv;q=0.9, */*")]
)
def test_csv(local_api: Api, query: dict[str, str], accept: str) -> None:
    """Asked for by `format` or Accept, the same items come as a file, costs to the last digit."""
    client = local_api.new_client()
    called(local_api, client, {"input_cost": Decimal("0.000000000001")}, {"currency": None, "model": "free"})
    answer = local_api.http.get("/usage", params={**RANGE, **query}, headers={**client, "accept": accept})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    assert answer.headers["x-total-count"] == "2"
    free, priced = csv.DictReader(io.StringIO(answer.text))
    assert (priced["calls"], priced["inputCost"], priced["cost"]) == ("1", "0.000000000001", "0.002000000001")
    assert (free["model"], free["currency"], free["cost"]) == ("free", "", "")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", 'a"b,c\nd'])
def test_no_spreadsheet_runs_what_a_client_wrote(local_api: Api, text: str) -> None:
    """A text that a spreadsheet would take for a formula stands behind an apostrophe; others are as they are."""
    client = local_api.new_client()
    called(local_api, client, {"model": text}, operation=text)
    answer = local_api.http.get("/usage", params={**RANGE, "format": "csv"}, headers=client)
    [row] = csv.DictReader(io.StringIO(answer.text, newline=""))
    expected = text if text.startswith("a") else f"'{text}"
    assert (row["operation"], row["model"]) == (expected, expected)
