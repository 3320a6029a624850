"""Prompt flows over HTTP: contract, sections 1, 2 and 5."""

from typing import Any

import pytest

from tests.support.api import Api, Headers

UNKNOWN = "0" * 24


def make(api: Api, headers: Headers, **fields: Any) -> dict[str, Any]:
    answer = api.http.post("/prompt-flows", json={"name": "flow", "promptIds": ["a", "b"], **fields}, headers=headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def path_of(flow: dict[str, Any]) -> str:
    return f"/prompt-flows/{flow['flowId']}"


def test_a_new_flow_comes_back_whole(api: Api, client: Headers) -> None:
    """POST is 201 with every field, `prompts` beside promptIds; isPublic defaults to false."""
    made = make(api, client)
    assert (made["name"], made["isPublic"], made["clientId"]) == ("flow", False, client["client_id"])
    assert made["promptIds"] == made["prompts"] == ["a", "b"]
    assert api.http.get(path_of(made), headers=client).json() == made
    assert api.http.get("/prompt-flows", headers=client).json() == [made]


def test_prompts_is_accepted_for_prompt_ids(api: Api, client: Headers) -> None:
    """`prompts` is accepted on input too, in POST and PATCH; promptIds goes first."""
    made = api.http.post("/prompt-flows", json={"name": "f", "prompts": ["x"]}, headers=client).json()
    assert made["promptIds"] == ["x"]
    changed = api.http.patch(path_of(made), json={"prompts": ["y"]}, headers=client).json()
    assert changed["promptIds"] == ["y"]
    both = api.http.patch(path_of(made), json={"prompts": ["y"], "promptIds": ["z"]}, headers=client).json()
    assert both["promptIds"] == ["z"]


def test_a_flow_may_be_empty(api: Api, client: Headers) -> None:
    """promptIds may be an empty list."""
    assert make(api, client, promptIds=[])["promptIds"] == []


@pytest.mark.parametrize(
    "body", [{"promptIds": []}, {"name": "", "promptIds": []}, {"name": "f"}, {"name": "f", "promptIds": [1]}], ids=repr
)
def test_fields_out_of_their_limits_are_422(local_api: Api, body: dict[str, Any]) -> None:
    """A name and a list of texts are required."""
    client = local_api.new_client()
    assert local_api.http.post("/prompt-flows", json=body, headers=client).status_code == 422


def test_public_flows_are_the_admins(api: Api, client: Headers) -> None:
    """Public flows are made, changed and deleted by an admin alone, 403 otherwise, and read by all."""
    refused = api.http.post("/prompt-flows", json={"name": "f", "promptIds": [], "isPublic": True}, headers=client)
    assert refused.status_code == 403
    made = make(api, api.admin, isPublic=True)
    assert made["clientId"] is None
    assert api.http.get(path_of(made), headers=client).status_code == 200
    for method in ("PATCH", "DELETE"):
        answer = api.http.request(method, path_of(made), json={} if method == "PATCH" else None, headers=client)
        assert answer.status_code == 403
        assert "Admin API key" in answer.json()["detail"]
    assert api.http.patch(path_of(made), json={"name": "new"}, headers=api.admin).json()["name"] == "new"
    assert api.http.delete(path_of(made), headers=api.admin).status_code == 204


def test_a_private_flow_needs_a_client(api: Api) -> None:
    """POST of a private flow without client credentials is 401."""
    answer = api.http.post("/prompt-flows", json={"name": "f", "promptIds": []}, headers=api.admin)
    assert answer.status_code == 401


def test_lists_show_public_and_own_flows(api: Api, client: Headers) -> None:
    """A client sees public flows and its own, an admin all."""
    mine, theirs = make(api, client)["flowId"], make(api, api.new_client())["flowId"]
    public = make(api, api.admin, isPublic=True)["flowId"]
    for headers, seen in ((client, [mine, public]), (api.admin, [mine, theirs, public])):
        answer = api.http.get("/prompt-flows", headers=headers)
        assert [one["flowId"] for one in answer.json()] == seen
        assert answer.headers["X-Total-Count"] == str(len(seen))


def test_another_clients_flow_answers_as_an_unknown_one(api: Api, client: Headers) -> None:
    """GET and DELETE 404, PATCH 400, with the same text but for the id."""
    theirs = make(api, api.new_client())["flowId"]
    for method, status in (("GET", 404), ("PATCH", 400), ("DELETE", 404)):
        texts = []
        for identifier in (theirs, UNKNOWN):
            fields = {"name": "x"} if method == "PATCH" else None
            answer = api.http.request(method, f"/prompt-flows/{identifier}", json=fields, headers=client)
            assert answer.status_code == status
            texts.append(answer.text.replace(identifier, "ID"))
        assert texts[0] == texts[1]


def test_patch_changes_what_is_given(api: Api, client: Headers) -> None:
    """PATCH changes name and promptIds, each alone; an empty one changes nothing."""
    made = make(api, client)
    assert api.http.patch(path_of(made), json={}, headers=client).json() == made
    changed = api.http.patch(path_of(made), json={"name": "new"}, headers=client).json()
    assert (changed["name"], changed["promptIds"]) == ("new", ["a", "b"])
    changed = api.http.patch(path_of(made), json={"promptIds": []}, headers=client).json()
    assert (changed["name"], changed["promptIds"]) == ("new", [])


def test_visibility_changes_hands(api: Api, client: Headers) -> None:
    """Publishing needs an admin and drops the owner; taking back needs the client's credentials beside the admin's."""
    path = path_of(make(api, client))
    assert api.http.patch(path, json={"isPublic": False}, headers=client).status_code == 200
    assert api.http.patch(path, json={"isPublic": True}, headers=client).status_code == 403
    published = api.http.patch(path, json={"isPublic": True}, headers=api.admin).json()
    assert (published["isPublic"], published["clientId"]) == (True, None)
    assert api.http.patch(path, json={"isPublic": False}, headers=api.admin).status_code == 400
    taken = api.http.patch(path, json={"isPublic": False}, headers={**client, **api.admin}).json()
    assert (taken["isPublic"], taken["clientId"]) == (False, client["client_id"])


def test_a_deleted_flow_is_gone(api: Api, client: Headers) -> None:
    """DELETE is 204 and soft: invisible to every read, an admin's too."""
    path = path_of(make(api, client))
    assert api.http.delete(path, headers=client).status_code == 204
    for headers in (client, api.admin):
        assert api.http.get(path, headers=headers).status_code == 404
        assert api.http.delete(path, headers=headers).status_code == 404
        assert api.http.get("/prompt-flows", headers=headers).json() == []
