"""Prompts over HTTP: contract, section 5."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.api import Api, Headers, running_api
from tests.support.backends import Database

UNKNOWN = "0" * 24


def body_of(**fields: Any) -> dict[str, Any]:
    return {"name": "summary", "type": "SYSTEM", "status": "PUBLISHED", "prompt": "Summarize.", **fields}


def path_of(prompt: dict[str, Any]) -> str:
    return f"/prompts/{prompt['promptId']}"


def test_a_new_prompt_comes_back_whole(api: Api, client: Headers) -> None:
    """POST is 201 with every field; GET and the list show the same."""
    answer = api.http.post("/prompts", json=body_of(isPublic=False, version="draft-7"), headers=client)
    assert answer.status_code == 201
    made = answer.json()
    assert {name: made[name] for name in body_of()} == body_of()
    assert (made["version"], made["isPublic"], made["clientId"]) == ("draft-7", False, client["client_id"])
    assert api.http.get(path_of(made), headers=client).json() == made
    assert api.http.get("/prompts", headers=client).json() == [made]


def test_is_public_defaults_to_false(api: Api, client: Headers) -> None:
    """A prompt without isPublic is private."""
    assert api.http.post("/prompts", json=body_of(), headers=client).json()["isPublic"] is False


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"type": ""},
        {"prompt": ""},
        {"status": "odd"},
        {"version": 2**53},
        {"version": 1.5},
        {"version": []},
    ],
    ids=repr,
)
def test_fields_out_of_their_limits_are_422(local_api: Api, fields: dict[str, Any]) -> None:
    """Empty texts, unknown statuses and odd versions are 422."""
    client = local_api.new_client()
    assert local_api.http.post("/prompts", json=body_of(**fields), headers=client).status_code == 422


def test_a_public_prompt_needs_an_admin(api: Api, client: Headers) -> None:
    """POST of a public prompt is 403 without admin; an admin's belongs to no client."""
    refused = api.http.post("/prompts", json=body_of(isPublic=True), headers=client)
    assert refused.status_code == 403
    assert "Admin API key" in refused.json()["detail"]
    for headers in (api.admin, {**client, **api.admin}):
        made = api.new_prompt(headers, isPublic=True)
        assert (made["clientId"], made["isPublic"], made["_metadata"]["createdBy"]) == (None, True, "admin")


def test_a_private_prompt_needs_a_client(api: Api, client: Headers) -> None:
    """POST of a private prompt is 401 without client credentials, a bare client_id beside an admin key included."""
    for headers in (api.admin, {**api.admin, "client_id": client["client_id"]}):
        answer = api.http.post("/prompts", json=body_of(), headers=headers)
        assert answer.status_code == 401
        assert "Client ID" in answer.json()["detail"]


def test_versions_count_up(api: Api, client: Headers) -> None:
    """Without a version a prompt gets the highest integer version + 1 of its name, type and scope, from 1."""
    assert [api.new_prompt(client)["version"] for _ in range(2)] == [1, 2]
    api.new_prompt(client, version=7)
    api.new_prompt(client, version="99")
    assert api.new_prompt(client)["version"] == 8
    assert api.new_prompt(client, name="another")["version"] == 1
    assert api.new_prompt(client, type="USER")["version"] == 1
    assert api.new_prompt(api.new_client())["version"] == 1
    assert api.new_prompt(api.admin, isPublic=True)["version"] == 1


def test_only_live_prompts_count(api: Api, client: Headers) -> None:
    """The version of a deleted prompt is free again."""
    api.new_prompt(client)
    api.http.delete(path_of(api.new_prompt(client)), headers=client)
    assert api.new_prompt(client)["version"] == 2


@pytest.mark.parametrize("version", [3, "3", ""])
def test_an_explicit_duplicate_is_refused(api: Api, client: Headers, version: int | str) -> None:
    """A taken version is 400, in its own scope only."""
    made = api.new_prompt(client, version=version)
    assert made["version"] == version
    assert api.http.post("/prompts", json=body_of(version=version), headers=client).status_code == 400
    api.new_prompt(api.new_client(), version=version)
    api.new_prompt(api.admin, version=version, isPublic=True)


def test_a_text_and_a_number_are_two_versions(api: Api, client: Headers) -> None:
    """`"3"` and `3` are distinct, and keep their types."""
    assert (api.new_prompt(client, version=3)["version"], api.new_prompt(client, version="3")["version"]) == (3, "3")


def test_concurrent_creates_never_get_the_same_version(database: Database) -> None:
    """Forty creates at the same time through two replicas get the versions 1 to 40, each once."""
    with running_api(database.open()) as here, running_api(database.open()) as there:
        client = here.new_client()
        with ThreadPoolExecutor(8) as threads:
            made = list(threads.map(lambda number: (here, there)[number % 2].new_prompt(client), range(40)))
    assert Counter(one["version"] for one in made) == Counter(range(1, 41))


def test_lists_show_public_and_own_prompts(api: Api, client: Headers) -> None:
    """A client sees public prompts and its own, an admin all."""
    other = api.new_client()
    mine, theirs = api.new_prompt(client)["promptId"], api.new_prompt(other)["promptId"]
    public = api.new_prompt(api.admin, isPublic=True)["promptId"]
    for headers, seen in ((client, [mine, public]), (other, [theirs, public]), (api.admin, [mine, theirs, public])):
        answer = api.http.get("/prompts", headers=headers)
        assert [one["promptId"] for one in answer.json()] == seen
        assert answer.headers["X-Total-Count"] == str(len(seen))


def test_lists_filter(api: Api, client: Headers) -> None:
    """name, type, status and version restrict the list, together."""
    first = api.new_prompt(client, name="a", type="X", status="DRAFT")["promptId"]
    second = api.new_prompt(client, name="a", type="Y", status="ARCHIVE")["promptId"]
    third = api.new_prompt(client, name="b", type="X", status="DRAFT")["promptId"]
    for query, seen in (
        ("name=a", [first, second]),
        ("type=X", [first, third]),
        ("status=DRAFT", [first, third]),
        ("name=a&type=X&status=DRAFT", [first]),
        ("name=a&type=Z", []),
        ("name=", []),
    ):
        answer = api.http.get(f"/prompts?{query}", headers=client)
        assert [one["promptId"] for one in answer.json()] == seen, query
    assert api.http.get("/prompts?status=odd", headers=client).status_code == 422


@pytest.mark.parametrize(
    ("query", "found"),
    [("2", [2, "2"]), ("02", ["02"]), ("x", ["x"]), ("-1", [-1]), ("5", []), ("%C2%B2", ["²"]), ("9" * 400, [])],
)
def test_version_finds_numbers_and_texts(api: Api, client: Headers, query: str, found: list[int | str]) -> None:
    """`?version=2` matches 2 and "2"."""
    for version in (2, "2", "02", "x", -1, "²"):
        api.new_prompt(client, version=version)
    answer = api.http.get(f"/prompts?version={query}", headers=client)
    assert [one["version"] for one in answer.json()] == found


def test_another_clients_prompt_answers_as_an_unknown_one(api: Api, client: Headers) -> None:
    """GET and DELETE 404, PATCH 400, with the same text but for the id."""
    theirs = api.new_prompt(api.new_client())["promptId"]
    for method, status in (("GET", 404), ("PATCH", 400), ("DELETE", 404)):
        texts = []
        for identifier in (theirs, UNKNOWN):
            fields = {"prompt": "x"} if method == "PATCH" else None
            answer = api.http.request(method, f"/prompts/{identifier}", json=fields, headers=client)
            assert answer.status_code == status
            texts.append(answer.text.replace(identifier, "ID"))
        assert texts[0] == texts[1]


def test_a_public_prompt_is_read_by_all_and_changed_by_admins(api: Api, client: Headers) -> None:
    """A client reads a public prompt; PATCH and DELETE are 403 for it, the text contains `Admin API key`."""
    path = path_of(api.new_prompt(api.admin, isPublic=True))
    assert api.http.get(path, headers=client).status_code == 200
    for method in ("PATCH", "DELETE"):
        answer = api.http.request(method, path, json={} if method == "PATCH" else None, headers=client)
        assert answer.status_code == 403
        assert "Admin API key" in answer.json()["detail"]
    assert api.http.patch(path, json={"prompt": "new"}, headers=api.admin).json()["prompt"] == "new"
    assert api.http.delete(path, headers=api.admin).status_code == 204


def test_patch_changes_what_is_given(api: Api, client: Headers) -> None:
    """PATCH changes version, status and prompt, each alone; an empty one changes nothing."""
    made = api.new_prompt(client)
    path = path_of(made)
    assert api.http.patch(path, json={}, headers=client).json() == made
    assert api.http.patch(path, json={"version": "b"}, headers=client).json()["version"] == "b"
    assert api.http.patch(path, json={"status": "ARCHIVE"}, headers=client).json()["status"] == "ARCHIVE"
    changed = api.http.patch(path, json={"prompt": "new"}, headers=client).json()
    assert (changed["version"], changed["status"], changed["prompt"]) == ("b", "ARCHIVE", "new")
    assert changed["_metadata"]["updatedBy"] == client["client_id"]


def test_patch_to_a_taken_version_is_refused(api: Api, client: Headers) -> None:
    """A PATCH cannot take another prompt's version: 400."""
    api.new_prompt(client)
    assert api.http.patch(path_of(api.new_prompt(client)), json={"version": 1}, headers=client).status_code == 400


def test_a_client_cannot_publish(api: Api, client: Headers) -> None:
    """Making a prompt public needs an admin, 403 otherwise; it belongs to no client then."""
    path = path_of(api.new_prompt(client))
    refused = api.http.patch(path, json={"isPublic": True}, headers=client)
    assert refused.status_code == 403
    assert "Admin API key" in refused.json()["detail"]
    assert api.http.get(path, headers=client).json()["isPublic"] is False
    published = api.http.patch(path, json={"isPublic": True}, headers=api.admin)
    assert (published.status_code, published.json()["isPublic"], published.json()["clientId"]) == (200, True, None)


def test_only_an_admin_moves_a_prompt(api: Api, client: Headers) -> None:
    """clientId is 403 for a client, its own id included; an admin gives a prompt to an existing client."""
    other = api.new_client()
    path = path_of(api.new_prompt(client))
    for owner in (other, client):
        assert api.http.patch(path, json={"clientId": owner["client_id"]}, headers=client).status_code == 403
    moved = api.http.patch(path, json={"clientId": other["client_id"]}, headers=api.admin)
    assert (moved.status_code, moved.json()["clientId"]) == (200, other["client_id"])
    assert api.http.get(path, headers=client).status_code == 404


def test_the_result_has_exactly_one_kind_of_owner(api: Api, client: Headers) -> None:
    """The result is public without a client or private with an existing one, else 400."""
    public, private = api.new_prompt(api.admin, isPublic=True), api.new_prompt(client, name="another")
    someone = client["client_id"]
    for prompt, fields in (
        (public, {"clientId": someone}),
        (public, {"isPublic": True, "clientId": someone}),
        (public, {"isPublic": False}),
        (public, {"isPublic": False, "clientId": "nobody"}),
        (private, {"clientId": "nobody"}),
        (private, {"clientId": ""}),
        (private, {"isPublic": True, "clientId": someone}),
    ):
        assert api.http.patch(path_of(prompt), json=fields, headers=api.admin).status_code == 400, fields
    made = api.http.patch(path_of(public), json={"isPublic": False, "clientId": someone}, headers=api.admin)
    assert (made.status_code, made.json()["clientId"], made.json()["isPublic"]) == (200, someone, False)


def test_a_deleted_prompt_is_gone(api: Api, client: Headers) -> None:
    """DELETE is 204 and soft: invisible to every read, an admin's too."""
    path = path_of(api.new_prompt(client))
    assert api.http.delete(path, headers=client).status_code == 204
    for headers in (client, api.admin):
        assert api.http.get(path, headers=headers).status_code == 404
        assert api.http.delete(path, headers=headers).status_code == 404
        assert api.http.patch(path, json={}, headers=headers).status_code == 400
        assert api.http.get("/prompts", headers=headers).json() == []


def test_an_admin_may_touch_everything(api: Api, client: Headers) -> None:
    """An admin reads, changes and deletes a client's private prompt."""
    path = path_of(api.new_prompt(client))
    assert api.http.get(path, headers=api.admin).status_code == 200
    assert api.http.patch(path, json={"prompt": "new"}, headers=api.admin).json()["_metadata"]["updatedBy"] == "admin"
    assert api.http.delete(path, headers=api.admin).status_code == 204
