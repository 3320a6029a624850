"""Errors under /v1 are OpenAI's, whoever raises them; everywhere else they stay what they were."""

from typing import Any

import httpx

from tests.support.api import Api, Headers


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error in an answer that has OpenAI's body and nothing else."""
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    assert answer.headers["x-request-id"] == answer.headers["x-correlation-id"]
    return error


def bearer(api: Api) -> Headers:
    """A new client's key as OpenAI's clients send it."""
    return {"Authorization": f"Bearer {api.new_client()['client_api_key']}"}


def test_an_unknown_url_is_named(local_api: Api) -> None:
    """A path that does not exist answers as OpenAI's does, with the path in it."""
    error = error_of(local_api.http.get("/v1/nothing"), 404)
    assert (error["type"], error["code"]) == ("invalid_request_error", "unknown_url")
    assert "/v1/nothing" in error["message"]


def test_a_wrong_method_is_told(local_api: Api) -> None:
    """A path that knows no such method has OpenAI's body as well."""
    assert error_of(local_api.http.delete("/v1/models"), 405)["code"] == "method_not_allowed"


def test_a_wrong_key_is_an_authentication_error(local_api: Api) -> None:
    """No key and a wrong one are told alike, with the one header that clients of OpenAI's API send."""
    for headers in ({}, {"Authorization": "Bearer sk-wrong"}):
        error = error_of(local_api.http.get("/v1/models", headers=headers), 401)
        assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
        assert "Authorization: Bearer <key>" in error["message"]
        assert "Client ID" not in error["message"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(local_api: Api) -> None:
    """The limit of bodies speaks OpenAI's language too."""
    headers = {"Content-Length": str(10**12)}
    error = error_of(local_api.http.post("/v1/models", content=b"", headers=headers), 413)
    assert (error["type"], error["code"]) == ("invalid_request_error", "request_too_large")


def test_an_unknown_model_is_not_found(local_api: Api) -> None:
    """OpenAI's code for it, and which parameter it was."""
    error = error_of(local_api.http.get("/v1/models/no/such", headers=bearer(local_api)), 404)
    assert (error["type"], error["code"], error["param"]) == ("not_found_error", "model_not_found", "model")
    assert "no/such" in error["message"]


def test_elsewhere_the_native_body_stays(local_api: Api) -> None:
    """Only /v1 speaks OpenAI's language."""
    assert local_api.http.get("/nothing").json() == {"detail": "Not Found"}


def test_models_are_listed_as_openai_lists_them(api: Api) -> None:
    """Every model by its name, which may have slashes, with when it was made and by which sdk it is called."""
    headers = bearer(api)
    api.new_model(name="vendor/large")
    listed = api.http.get("/v1/models", headers=headers).json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert model == {"id": "vendor/large", "object": "model", "created": model["created"], "owned_by": "test"}
    assert api.http.get("/v1/models/vendor/large", headers=headers).json() == model
