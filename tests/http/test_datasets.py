"""/datasets: made from JSON, JSON Lines, CSV and finished jobs, looked at page by page, and deleted."""

from typing import Any

import httpx
import orjson
import pytest

from api.models.datasets import DatasetItemResponse, DatasetPreviewResponse, DatasetResponse
from engine.records.datasets import LARGEST_ITEM
from engine.records.store import Where
from tests.http.test_answers_fit import assert_fits
from tests.support.api import Api
from tests.support.jobs_http import Shop, open_shop, together

CSV, LINES = "text/csv", "application/x-ndjson"


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


def upload(shop: Shop, text: str | bytes, kind: str = CSV, name: str = "d") -> httpx.Response:
    headers = {"Content-Type": kind}
    return shop.call("POST", f"/datasets?name={name}", content=text, headers=headers)


def items_of(shop: Shop, answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 201, answer.text
    found: list[dict[str, Any]] = shop.call("GET", f"/datasets/{answer.json()['datasetId']}/items").json()
    return found


def item(place: int, given: Any, **fields: Any) -> dict[str, Any]:
    return {"id": str(place), "input": given, "expected": None, "tags": [], "weight": 1.0, **fields}


def test_json_becomes_the_next_version_of_its_name(shop: Shop) -> None:
    """Each POST with a name is a version of it, with exactly the items that were sent; the preview has the first."""
    items = [{"input": {"q": place}, "expected": place, "tags": ["a"], "weight": 2} for place in range(7)]
    first = shop.call("POST", "/datasets", {"name": "d", "items": items})
    expected = [item(place + 1, {"q": place}, expected=place, tags=["a"], weight=2.0) for place in range(7)]
    assert items_of(shop, first) == expected
    second = shop.call("POST", "/datasets", {"name": "d", "items": [{"id": 7, "input": "x"}]})
    assert [first.json()["version"], second.json()["version"], second.json()["itemCount"]] == [1, 2, 1]
    assert items_of(shop, second) == [item(7, "x")]
    shown = shop.call("GET", f"/datasets/{first.json()['datasetId']}").json()
    assert shown["preview"] == expected[:5]
    assert_fits(first.json(), DatasetResponse)
    assert_fits(shown, DatasetPreviewResponse)
    assert_fits(expected[0], DatasetItemResponse)


def test_json_lines(shop: Shop) -> None:
    """One item a line; empty lines are left out, and the last one needs no end."""
    text = b'{"input": "a", "expected": {"x": 1}}\n\n{"input": ["b"], "id": "mine"}'
    assert items_of(shop, upload(shop, text, LINES)) == [
        item(1, "a", expected={"x": 1}),
        item(2, ["b"], id="mine"),
    ]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(shop: Shop, delimiter: str, mark: str) -> None:
    """Columns with our names are what they say, others are fields of the input; quotes, blank lines, a byte order mark
    and the usual delimiters are understood."""
    rows = ["question,lang,expected,tags,weight", '"one\nline",en,yes,a|b,2', "", "two,de,,,"]
    text = mark + "\n".join(rows).replace(",", delimiter)
    assert items_of(shop, upload(shop, text.replace("a|b", "a"))) == [
        item(1, {"question": "one\nline", "lang": "en"}, expected="yes", tags=["a"], weight=2.0),
        item(2, {"question": "two", "lang": "de"}),
    ]
    plain = upload(shop, 'input,expected\nhello,"{""x"": 1}"\n')
    assert items_of(shop, plain) == [item(1, "hello", expected={"x": 1})]


WRONG = [
    (CSV, "input\na\nb,c\n", "line 3: has 2 cells, the header has 1"),
    (CSV, "input,weight\na,1\n\nb,x\nc,-1\n", "line 4: weight"),
    (CSV, "input,weight\na,1\n\nb,x\nc,-1\n", "line 5: weight"),
    (CSV, 'input\n"a\nb"\n"c', "line 4"),
    (CSV, "expected,tags\na,b\n", "line 1: no column is named input"),
    (CSV, "question,Expected\na,b\n", "line 1: column Expected would be a field of the input"),
    (CSV, "a,a\n1,2\n", "line 1: every column needs a name of its own"),
    (CSV, "id,input\nx,1\nx,2\n", "line 3: id: line 2 has x too"),
    (CSV, b"input\na\n\xff\n", "line 3: is not UTF-8"),
    (CSV, "input\n", "there are none"),
    (CSV, "", "there are none"),
    (LINES, '{"input": 1}\n{"input": }\n', "line 2: is not JSON"),
    (LINES, '{"input": 1}\n[]\n', "line 2: should be a JSON object"),
    (LINES, '{"input": 1}\n{"output": 1}\n', "line 2: input: Field required"),
    (LINES, '{"input": null}', "line 1: input: must not be null"),
    (LINES, '{"input": 1, "tags": "x"}', "line 1: tags"),
    (LINES, '{"input": "' + "x" * LARGEST_ITEM + '"}', "line 1: input: is larger than"),
    (LINES, '{"input": ' + "[" * 300 + "]" * 300 + "}", "line 1: input: is nested too deeply"),
    ("multipart/form-data; boundary=x", "--x--", "send the file itself"),
]


@pytest.mark.parametrize(("kind", "text", "said"), WRONG)
def test_what_is_wrong_is_told_by_line(shop: Shop, kind: str, text: str | bytes, said: str) -> None:
    """A 400 names the lines, and nothing of the file is kept."""
    answer = upload(shop, text, kind)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["detail"]
    assert shop.call("GET", "/datasets").json() == []
    assert shop.api.storage.dataset_parts.count(Where()) == 0


@pytest.mark.parametrize(
    "body",
    [
        {"name": "d"},
        {"name": "d", "items": []},
        {"name": "", "items": [{"input": 1}]},
        {"name": "d", "items": [{"input": 1}, {"expected": 1}]},
        {"name": "d", "items": [{"input": 1, "weight": 0}]},
        {"name": "d", "items": [{"input": 1}], "fromJobs": {}},
        {"name": "d", "fromJobs": {"limit": 0}},
        {"name": "d", "fromJobs": {"clientReference": {"team": [1]}}},
        {"name": "d", "items": [{"input": 1, "expcted": 1}]},
        [],
    ],
)
def test_json_that_cannot_be_is_422(shop: Shop, body: Any) -> None:
    """With the place of what is wrong; so are a body that is no JSON and a file without a name."""
    answer = shop.call("POST", "/datasets", body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"
    assert shop.call("POST", "/datasets", content=b"{").status_code == 422
    unnamed = shop.call("POST", "/datasets", content=b"input\na", headers={"Content-Type": CSV})
    assert (unnamed.status_code, unnamed.json()["detail"][0]["loc"]) == (422, ["query", "name"])


def test_two_items_of_one_id(shop: Shop) -> None:
    """Are refused with both places, and nothing is kept."""
    items = [{"id": "x", "input": 1}, {"id": "y", "input": 1}, {"id": "x", "input": 2}]
    answer = shop.call("POST", "/datasets", {"name": "d", "items": items})
    assert (answer.status_code, answer.json()["detail"]) == (400, "items: item 3 has the id of item 1: x")
    assert shop.call("GET", "/datasets").json() == []


def test_a_large_one_page_by_page(shop: Shop) -> None:
    """Twenty thousand items come back in their order, whichever page is asked for."""
    lines = "\n".join(orjson.dumps({"input": {"n": n, "text": "x" * (n % 7) * 100}}).decode() for n in range(20_000))
    made = upload(shop, lines, LINES).json()
    assert made["itemCount"] == 20_000
    path = f"/datasets/{made['datasetId']}/items"
    for query, places in {
        "limit=3": [0, 1, 2],
        "limit=4&skip=198": [198, 199, 200, 201],
        "limit=9&skip=19998": [19_998, 19_999],
        "limit=2&skip=30000": [],
        "limit=2&skip=1&order=desc": [19_998, 19_997],
    }.items():
        page = shop.call("GET", f"{path}?{query}")
        assert [each["input"]["n"] for each in page.json()] == places
        assert page.headers["X-Total-Count"] == "20000"
    middle = shop.call("GET", f"{path}?limit=10000&skip=5000").json()
    assert [each["input"]["n"] for each in middle] == list(range(5_000, 15_000))


def test_versions_made_at_once_differ(shop: Shop) -> None:
    """However many are made together, each gets a number of its own."""
    made = together(8, lambda _: upload(shop, "input\na\n").json()["version"])
    assert sorted(made) == list(range(1, 9))


def test_finished_jobs_become_items(shop: Shop) -> None:
    """What was asked and answered, by a filter, the newest up to the limit, in the order of the jobs."""
    jobs = [
        shop.bring_to("PROCESSING", requestData={"n": n}, clientReference={"team": {"no": n % 2}}) for n in range(4)
    ]
    shop.bring_to("PENDING")
    for job in jobs:
        answered = shop.call("PATCH", f"/jobs/{job}/full", {"status": "PROCESSED", "responseData": {"value": job[-1]}})
        assert answered.status_code == 200, answered.text
    shop.call("PATCH", f"/jobs/{jobs[3]}", {"status": "CONSUMED"})

    def chosen(**selection: Any) -> list[str]:
        body = {"name": "history", "fromJobs": selection}
        return [each["id"] for each in items_of(shop, shop.call("POST", "/datasets", body))]

    assert chosen() == jobs
    assert chosen(limit=3) == jobs[1:]
    assert chosen(status="PROCESSED") == jobs[:3]
    for reference in ({"team": {"no": 1}}, {"team.no": 1}):
        assert chosen(clientReference=reference, answers=False) == [jobs[1], jobs[3]]
    nothing = shop.call("POST", "/datasets", {"name": "none", "fromJobs": {"operation": "other"}})
    assert (nothing.status_code, nothing.json()["detail"]) == (400, "items: there are none")
    both = shop.call("POST", "/datasets", {"name": "answers", "fromJobs": {"limit": 1}})
    assert items_of(shop, both)[0] == item(1, {"n": 3}, id=jobs[3], expected=jobs[3][-1])


def test_lists_and_owners(shop: Shop) -> None:
    """By name and page; another client's dataset and an unknown one are 404 alike, an admin sees all."""
    ids = [upload(shop, "input\na\n", name=name).json()["datasetId"] for name in ("a", "b", "a")]
    listed = shop.call("GET", "/datasets?name=a")
    assert ([each["datasetId"] for each in listed.json()], listed.headers["X-Total-Count"]) == ([ids[0], ids[2]], "2")
    assert [each["datasetId"] for each in shop.call("GET", "/datasets?limit=1&skip=1").json()] == [ids[1]]
    other = shop.api.new_client("other")
    for wanted in (ids[0], "0" * 24, "no-id", "%00"):
        for method, tail in (("GET", ""), ("GET", "/items"), ("DELETE", "")):
            assert shop.api.http.request(method, f"/datasets/{wanted}{tail}", headers=other).status_code == 404
    assert len(shop.as_admin("GET", "/datasets").json()) == 3
    assert shop.call("DELETE", f"/datasets/{ids[0]}").status_code == 204
    assert shop.call("GET", f"/datasets/{ids[0]}").status_code == 404
    assert shop.as_admin("POST", "/datasets", {"name": "d", "items": [{"input": 1}]}).status_code == 400
    assert shop.api.http.get("/datasets").status_code == 401
