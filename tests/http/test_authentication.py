"""Who may call: contract, section 2."""

import base64
import time
from typing import Any

import pytest
import structlog

from engine.records.store import Storage
from tests.support.api import ADMIN_KEY, DOCS_SECRET, DOCS_USER, Api, Headers, running_api
from tests.support.backends import Database

ADMIN_ENDPOINTS = [
    ("GET", "/clients"),
    ("POST", "/clients"),
    ("GET", "/clients/x"),
    ("PATCH", "/clients/x"),
    ("DELETE", "/clients/x"),
    ("POST", "/clients/x/toggle"),
    ("POST", "/clients/x/rotate-key"),
    ("POST", "/models"),
    ("GET", "/models/x"),
    ("PATCH", "/models/x"),
    ("DELETE", "/models/x"),
]
EITHER_ENDPOINTS = [
    ("GET", "/models"),
    ("GET", "/prompts"),
    ("GET", "/prompts/x"),
    ("DELETE", "/prompts/x"),
    ("GET", "/prompt-flows"),
    ("GET", "/prompt-flows/x"),
    ("DELETE", "/prompt-flows/x"),
    ("GET", "/jobs"),
    ("GET", "/jobs/summary"),
    ("GET", "/workers"),
]
PRIVATE: dict[str, Any] = {"name": "a", "type": "t", "status": "DRAFT", "prompt": "p", "isPublic": False}


@pytest.mark.parametrize(("method", "path"), ADMIN_ENDPOINTS)
def test_admin_endpoints_need_the_admin_key(local_api: Api, method: str, path: str) -> None:
    """ADMIN: a missing key is 401, a wrong one 401 with exactly `Invalid admin API key`; a client is nobody here."""
    client = local_api.new_client()
    missing = local_api.http.request(method, path, headers=client)
    wrong = local_api.http.request(method, path, headers={**client, "admin_api_key": "wrong"})
    assert (missing.status_code, wrong.status_code) == (401, 401)
    assert wrong.json() == {"detail": "Invalid admin API key"}


def test_on_admin_endpoints_401_beats_422(local_api: Api) -> None:
    """Authentication precedes validation on ADMIN endpoints, also for a body that is no JSON."""
    http = local_api.http
    for content in (b"{}", b"{", b""):
        assert http.post("/clients", content=content).status_code == 401
        assert http.post("/clients", content=content, headers=local_api.admin).status_code == 422
    assert http.get("/clients?limit=0").status_code == 401


@pytest.mark.parametrize(("method", "path"), EITHER_ENDPOINTS)
def test_either_endpoints_need_somebody(local_api: Api, method: str, path: str) -> None:
    """EITHER: with nobody valid 401, and the detail contains `Client ID` and `authentication`."""
    for headers in ({}, {"admin_api_key": "wrong"}, {"client_id": "x", "client_api_key": "y"}, {"client_id": "x"}):
        answer = local_api.http.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert "Client ID" in answer.json()["detail"]
        assert "authentication" in answer.json()["detail"]


def test_on_either_endpoints_422_beats_401(local_api: Api) -> None:
    """Validation precedes authentication on EITHER endpoints."""
    assert local_api.http.post("/prompts", json={}).status_code == 422
    assert local_api.http.get("/prompts?limit=0").status_code == 422
    assert local_api.http.get("/prompts?status=odd").status_code == 422


def test_a_client_proves_itself_in_every_form(api: Api) -> None:
    """Headers with underscores, hyphenated ones, and `Authorization: Bearer <client key>` alone."""
    client = api.new_client()
    identifier, key = client["client_id"], client["client_api_key"]
    forms = [
        client,
        {"client-id": identifier, "client-api-key": key},
        {"Client_Id": identifier, "CLIENT-API-KEY": key},
        {"Authorization": f"Bearer {key}"},
        {"authorization": f"bearer {key}"},
        {"client_id": identifier, "Authorization": f"Bearer {key}"},
    ]
    for form in forms:
        answer = api.http.post("/prompts", json=PRIVATE, headers=form)
        assert (answer.status_code, answer.json()["clientId"]) == (201, identifier)


def test_the_admin_proves_himself_in_both_spellings(local_api: Api) -> None:
    """admin_api_key and admin-api-key are the same."""
    for name in ("admin_api_key", "admin-api-key"):
        assert local_api.http.get("/clients", headers={name: ADMIN_KEY}).status_code == 200


def test_a_key_without_its_client_is_worth_nothing(api: Api) -> None:
    """Wrong id, wrong key, an id without a key, a key without an id and another client's key all answer alike."""
    mine, other = api.new_client(), api.new_client()
    answers = [
        api.http.get("/prompts", headers=headers)
        for headers in (
            {**mine, "client_id": "unknown"},
            {**mine, "client_api_key": "0" * 64},
            {**mine, "client_api_key": other["client_api_key"]},
            {**mine, "client_api_key": ""},
            {"client_api_key": mine["client_api_key"]},
            {"client_id": other["client_id"], "Authorization": f"Bearer {mine['client_api_key']}"},
            {"Authorization": f"Basic {mine['client_api_key']}"},
            {"Authorization": "Bearer "},
        )
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1


def test_disabled_and_deleted_clients_look_like_unknown_ones(api: Api) -> None:
    """Disabled and deleted clients are 401 at once, with the text of an unknown client."""
    unknown = api.http.get("/prompts", headers={"client_id": "x", "client_api_key": "y"})
    for method, path in (("POST", "/clients/{}/toggle"), ("DELETE", "/clients/{}")):
        client = api.new_client()
        assert api.http.get("/prompts", headers=client).status_code == 200
        api.http.request(method, path.format(client["client_id"]), headers=api.admin)
        answer = api.http.get("/prompts", headers=client)
        assert (answer.status_code, answer.text) == (401, unknown.text)
        bearer = {"Authorization": f"Bearer {client['client_api_key']}"}
        assert api.http.get("/prompts", headers=bearer).status_code == 401


def test_an_invalid_admin_key_with_a_valid_client_is_the_client(api: Api, client: Headers) -> None:
    """An invalid admin key with valid client headers counts as the client."""
    headers = {**client, "admin_api_key": "wrong"}
    assert api.http.post("/prompts", json=PRIVATE, headers=headers).status_code == 201
    assert api.http.post("/prompts", json={**PRIVATE, "isPublic": True}, headers=headers).status_code == 403


def test_an_invalid_client_with_a_valid_admin_key_is_the_admin(api: Api, client: Headers) -> None:
    """An invalid client with a valid admin key counts as admin."""
    headers = {"client_id": client["client_id"], "client_api_key": "wrong", **api.admin}
    assert api.http.post("/prompts", json={**PRIVATE, "isPublic": True}, headers=headers).status_code == 201
    assert api.http.post("/prompts", json=PRIVATE, headers=headers).status_code == 401


def test_both_valid_means_admin(api: Api, client: Headers) -> None:
    """With both valid the caller is admin, sees everything, and the client is the owner of what is made."""
    theirs = api.new_prompt(api.new_client())
    both = {**client, **api.admin}
    assert api.http.get(f"/prompts/{theirs['promptId']}", headers=both).status_code == 200
    assert api.http.post("/prompts", json=PRIVATE, headers=both).json()["clientId"] == client["client_id"]


def test_a_rotated_key_stops_everywhere_within_two_seconds(database: Database) -> None:
    """The old key stops at once on the replica that rotated it, and within two seconds on any other."""
    with running_api(database.open()) as here, running_api(database.open()) as there:
        client = here.new_client()
        assert there.http.get("/prompts", headers=client).status_code == 200
        rotated = here.http.post(f"/clients/{client['client_id']}/rotate-key", headers=here.admin).json()
        end = time.monotonic() + 2.0
        assert here.http.get("/prompts", headers=client).status_code == 401
        fresh = {**client, "client_api_key": rotated["api_key"]}
        assert there.http.get("/prompts", headers=fresh).status_code == 200
        while there.http.get("/prompts", headers=client).status_code != 401:
            assert time.monotonic() < end


def test_authentication_costs_little(storage: Storage) -> None:
    """A client that is known costs well under 0.2 ms, measured over the authenticator itself."""
    with running_api(storage) as api:
        client = api.new_client()
        headers = [(name.encode(), value.encode()) for name, value in client.items()]
        portal = api.http.portal
        assert portal is not None
        seconds = portal.call(_seconds_per_authentication, api, headers)
    assert seconds < 0.0002


async def _seconds_per_authentication(api: Api, headers: list[tuple[bytes, bytes]]) -> float:
    from api.core.authentication import credentials_of

    await api.services.authenticator.either(credentials_of(headers))
    times = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(200):
            await api.services.authenticator.either(credentials_of(headers))
        times.append((time.process_time() - started) / 200)
    return min(times)


def test_failed_attempts_are_logged_without_the_key(local_api: Api) -> None:
    """A failed attempt leaves a warning that names the client id and no key."""
    with structlog.testing.capture_logs() as logs:
        local_api.http.get("/prompts", headers={"client_id": "someone", "client_api_key": "hidden-client-key"})
        local_api.http.get("/clients", headers={"admin_api_key": "hidden-admin-key"})
        local_api.http.get("/prompts", headers={"Authorization": "Bearer hidden-bearer-key"})
    failed = [line for line in logs if line["event"] == "authentication_failed"]
    assert len(failed) == 3
    assert failed[0]["client_id"] == "someone"
    assert all(line["log_level"] == "warning" for line in failed)
    assert "hidden" not in str(logs)


def test_each_request_is_one_line_without_secrets(local_api: Api) -> None:
    """The access log has one line per request: method, path, status, caller, time; no query, header or body."""
    client = local_api.new_client()
    with structlog.testing.capture_logs() as logs:
        local_api.http.get("/prompts?name=hidden-name", headers=client)
    (line,) = [line for line in logs if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/prompts", 200)
    assert (line["caller"], line["log_level"]) == (client["client_id"], "info")
    assert line["milliseconds"] >= 0
    assert "hidden-name" not in str(logs)
    assert client["client_api_key"] not in str(logs)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_the_documentation_is_behind_basic_authentication(local_api: Api, path: str) -> None:
    """HTTP Basic with DOCS_USER and DOCS_SECRET; else 401 with `Basic realm="Documentation"`."""
    assert local_api.http.get(path, auth=(DOCS_USER, DOCS_SECRET)).status_code == 200
    broken = {"Authorization": "Basic " + base64.b64encode(b"\xff\xff").decode()}
    answers = [
        local_api.http.get(path),
        local_api.http.get(path, auth=(DOCS_USER, "wrong")),
        local_api.http.get(path, auth=("wrong", DOCS_SECRET)),
        local_api.http.get(path, headers=local_api.admin),
        local_api.http.get(path, headers=broken),
        local_api.http.get(path, headers={"Authorization": "Basic"}),
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="Documentation"'
