"""The service's OpenAPI document against the contract's: whatever the contract has is there, exactly."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.contract_extract import extract
from tests.support.api import running_api
from tests.support.backends import SQLITE, Servers, fresh_database

CONTRACT = json.loads(Path(__file__).with_name("contract_openapi.json").read_text(encoding="utf-8"))
MEANT: dict[tuple[str, ...], str] = {
    ("paths", "/docs", "GET", "responses", "200"): "string",
    ("paths", "/redoc", "GET", "responses", "200"): "string",
    ("schemas", "PromptCreateRequest", "isPublic"): "boolean",
    ("paths", "/jobs", "GET", "parameters", "query limit"): "integer(minimum=1,maximum=10000)|null",
    ("paths", "/stream", "GET", "parameters", "query limit"): "integer(minimum=1,maximum=10000)|null",
}
"""Where the contract's prose changes what its document says: isPublic may be absent, and every list has a highest
limit. The pages are HTML, which a document that names no type for them leaves open."""

RENAMED = {"JobStatus": "JobState", "ModelRun": "ModelRunResult"}
"""Names of schemas, which no client sees on the wire."""


@pytest.fixture(scope="module")
def served(storage_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The bones of the service's own document."""
    fresh = fresh_database(SQLITE, storage_servers, tmp_path_factory.mktemp("openapi"))
    with fresh as database, running_api(database.open()) as api:
        return extract(api.app.openapi())


def paths() -> dict[str, Any]:
    return dict(CONTRACT["paths"])


def named_in(methods: Any) -> set[str]:
    """The schemas that operations name, and those that they name in turn."""
    text = json.dumps(methods)
    found = {name for name in CONTRACT["schemas"] if name in text}
    seen: set[str] = set()
    while found - seen:
        seen |= found
        text = json.dumps([CONTRACT["schemas"][name] for name in seen])
        found |= {name for name in CONTRACT["schemas"] if name in text}
    return seen


def missing(wanted: Any, served: Any, place: tuple[str, ...] = ()) -> list[str]:
    """Everything of `wanted` that is not in `served` just so; what `served` has beyond it is an addition."""
    if place in MEANT:
        wanted = MEANT[place]
    if not isinstance(wanted, dict):
        return [] if same(wanted, served, place) else [f"{' '.join(place)}: contract {wanted}, service {served}"]
    if not isinstance(served, dict):
        return [f"{' '.join(place)}: not in the service"]
    return [line for name, part in wanted.items() for line in missing(part, served.get(name), (*place, name))]


def same(wanted: str | None, served: str | None, place: tuple[str, ...]) -> bool:
    """Whether a type is the contract's. A field of an answer may promise more: that it is always present."""
    if wanted is None or served is None:
        return wanted == served
    always = len(place) > 1 and place[1].endswith("Response") and wanted == served.removesuffix("!")
    return wanted == served or always


def renamed(part: Any) -> Any:
    """`part` of the contract with this service's names of schemas."""
    text = json.dumps(part)
    for theirs, ours in RENAMED.items():
        text = re.sub(rf"\b{theirs}\b", ours, text)
    return json.loads(text)


def test_every_operation_of_the_contract_is_there(served: dict[str, Any]) -> None:
    """Every path, method, parameter with its type and limits, body, response and status code."""
    assert missing(renamed(paths()), served["paths"], ("paths",)) == []


def test_every_field_of_the_contract_is_there(served: dict[str, Any]) -> None:
    """Every schema that those operations use: its fields with their types, limits and required flags."""
    wanted = {name: CONTRACT["schemas"][name] for name in named_in(paths())}
    assert missing(renamed(wanted), served["schemas"], ("schemas",)) == []


def test_the_comparison_finds_what_is_missing(served: dict[str, Any]) -> None:
    """A path, a field and a limit that the service has not got are reported."""
    wanted = {
        "paths": {"/nowhere": {"GET": {}}},
        "schemas": {"ClientCreateRequest": {"name": "string!", "age": "integer"}},
    }
    assert len(missing(wanted, served)) == 3


def test_the_additions_are_marked_deprecated(served: dict[str, Any], storage_servers: Servers, tmp_path: Path) -> None:
    """The names for the web console are marked deprecated in the document."""
    with fresh_database(SQLITE, storage_servers, tmp_path) as database, running_api(database.open()) as api:
        schemas = api.app.openapi()["components"]["schemas"]
    for name, field in (
        ("ClientCreateResponse", "apiKey"),
        ("ModelResponse", "_id"),
        ("PromptResponse", "createdAt"),
        ("PromptFlowResponse", "prompts"),
        ("PromptFlowCreateRequest", "prompts"),
    ):
        assert schemas[name]["properties"][field]["deprecated"] is True
