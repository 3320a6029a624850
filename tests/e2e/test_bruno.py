"""The Bruno collection under tests/bruno: every request passes against a real service, and no endpoint lacks one."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.service import running_service
from tests.support.api import ADMIN_KEY, DOCS_SECRET, running_api
from tests.support.backends import SQLITE, Servers, fresh_database
from tests.support.mongod import free_port
from tests.support.service import fleet, one_of_each

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "tests" / "bruno"
BRU = ROOT / ".cache" / "bruno" / "node_modules" / ".bin" / "bru"
SECONDS = 110
NEVER_FAIL = "/health"
"""Its errors need a database that is away, which is what tests/http and tests/faults are for."""

Operation = tuple[str, str]

ONLY_REFUSED = [
    *(("GET", "/evaluations/{evaluation_id}/compare/{other_id}"), ("POST", "/runs/{run_id}/promote")),
    ("POST", "/v1/messages"),
]
"""What can be promoted has to be proven first, and what is compared scored, which takes a model that answers; messages
take one of Anthropic's."""


@dataclass(frozen=True)
class Where:
    """What the environment `local` and the two lines before a run give Bruno."""

    url: str
    admin_key: str
    docs_secret: str


@dataclass(frozen=True)
class Written:
    """A request as its file has it."""

    name: str
    method: str
    path: str
    status: int


@contextmanager
def served(backend: str, servers: Servers, folder: Path) -> Iterator[Where]:
    """SQLite as `make run` has it, in development mode; MongoDB in production mode."""
    with ExitStack() as stack:
        if backend == SQLITE:
            service = stack.enter_context(running_service())
            service.wait_until_ready()
            yield Where(service.url, service.admin_key, service.secrets["DOCS_SECRET"])
        else:
            database = stack.enter_context(fresh_database(backend, servers, folder))
            [replica] = stack.enter_context(fleet(database.url, database.name, folder, docs_user="user")).launch(1)
            yield Where(f"http://127.0.0.1:{replica.port}", ADMIN_KEY, DOCS_SECRET)


def bru(where: Where, report: Path, *paths: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, what became of each request, and what Bruno printed."""
    assert BRU.exists(), "the Bruno command line is not installed: make bruno"
    command = [str(BRU), "run", *(paths or ("-r",)), "--env", "local", "--env-var", f"baseUrl={where.url}"]
    # The developer sandbox starts ten times as fast as the safe one, and the scripts need nothing of what it permits.
    command += ["--sandbox", "developer", "--noproxy", "--reporter-json", str(report)]
    # Node comes from PATH, else from the wheel, whose commands lie beside python.
    path = os.pathsep.join((os.environ["PATH"], str(Path(sys.executable).parent)))
    environment = {**os.environ, "PATH": path, "ADMIN_API_KEY": where.admin_key, "DOCS_SECRET": where.docs_secret}
    ended = subprocess.run(
        command, cwd=COLLECTION, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    printed = ended.stdout + ended.stderr
    assert report.exists(), printed[-3000:]
    [iteration] = json.loads(report.read_text(encoding="utf-8"))
    return ended.returncode, iteration["results"], printed


def failures(results: list[dict[str, Any]]) -> list[str]:
    """Each failed request with what failed of it and what the service answered."""
    found = []
    for result in results:
        checks = [check for kind in result if kind.endswith("Results") for check in result[kind] or ()]
        failed = [_told(check) for check in checks if check["status"] != "pass"]
        if failed or result["error"] or result["status"] != "pass":
            answer = result["response"]
            shown = f"{answer.get('status')} {str(answer.get('data'))[:500]}"
            found.append("\n    ".join((result["path"], *failed, f"error: {result['error']}", f"answer: {shown}")))
    return found


def _told(check: dict[str, Any]) -> str:
    claim = check.get("description") or f"{check['lhsExpr']}: {check['rhsExpr']}"
    return f"{claim} -> {check.get('error')}"


@pytest.mark.timeout(2 * SECONDS + 60)
@pytest.mark.parametrize(("backend", "runs"), [(name, 2 if name == SQLITE else 1) for name in one_of_each()])
def test_every_request_passes(backend: str, runs: int, storage_servers: Servers, tmp_path: Path) -> None:
    """Against a service that has just started, and once more against the same one, every assertion holds; afterwards
    no worker is running but the one that development mode has for batches."""
    with served(backend, storage_servers, tmp_path) as where:
        for run in range(1, runs + 1):
            code, results, printed = bru(where, tmp_path / f"{run}.json")
            assert not failures(results), f"run {run}:\n" + "\n".join(failures(results))
            assert code == 0, printed[-3000:]
            assert {result["path"] for result in results} == {each.name for each in written()}
        headers = {"admin_api_key": where.admin_key}
        workers = httpx.get(f"{where.url}/workers", headers=headers, trust_env=False).json()
        running = [worker["name"] for worker in workers if worker["status"] != "stopped"]
        assert running == (["batches"] if backend == SQLITE else [])


def test_a_failing_request_is_noticed(tmp_path: Path) -> None:
    """Where nobody listens, Bruno's exit code and the list of failures say so: a green run above means something."""
    code, results, _ = bru(Where(f"http://127.0.0.1:{free_port()}", "x", "x"), tmp_path / "report.json", "health")
    assert code != 0
    assert len(failures(results)) == len(results) > 0
    assert "ECONNREFUSED" in failures(results)[0]


def written() -> list[Written]:
    """All requests of the collection. Each says which status it expects."""
    files = sorted(path for path in COLLECTION.glob("*/*.bru") if path.parent.name != "environments")
    return [_read(path) for path in files if path.name != "folder.bru"]


def _read(file: Path) -> Written:
    text = file.read_text(encoding="utf-8")
    called = re.search(r"^(get|post|put|patch|delete) \{\n  url: \{\{baseUrl\}\}([^\s?]+)", text, re.MULTILINE)
    expected = re.search(r"^  res\.status: eq (\d{3})$", text, re.MULTILINE)
    assert called, f"{file.name}: no request"
    assert expected, f"{file.name}: no expected status"
    name = file.relative_to(COLLECTION).with_suffix("").as_posix()
    return Written(name, called[1].upper(), called[2], int(expected[1]))


def meant(request: Written, operations: set[Operation]) -> Operation | None:
    """The operation that `request` reaches: of several paths that fit, the one with the fewest parameters."""
    fitting = [
        (method, path)
        for method, path in operations
        if method == request.method and re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)), request.path)
    ]
    return min(fitting, key=lambda operation: operation[1].count("{"), default=None)


@pytest.fixture
def operations(storage_servers: Servers, tmp_path: Path) -> set[Operation]:
    """Method and path of everything in the service's OpenAPI document."""
    with fresh_database(SQLITE, storage_servers, tmp_path) as database, running_api(database.open()) as api:
        paths = api.app.openapi()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


def test_every_endpoint_has_requests(operations: set[Operation]) -> None:
    """Each operation of the service's OpenAPI document has a request that succeeds and one that is refused."""
    requests = written()
    succeeding = {meant(request, operations) for request in requests if request.status < 400}
    refused = {meant(request, operations) for request in requests if request.status >= 400}
    can_fail = {(method, path) for method, path in operations if not path.startswith(NEVER_FAIL)}
    assert len(operations) > 40
    assert sorted(operations - succeeding) == ONLY_REFUSED
    assert sorted(can_fail - refused) == []


def test_an_endpoint_without_a_request_is_noticed(operations: set[Operation]) -> None:
    """A new operation is not taken for covered by the requests of its neighbours."""
    more = {*operations, ("GET", "/jobs/newest"), ("POST", "/jobs/{job_id}/copy")}
    found = {meant(request, more) for request in written()}
    assert {("GET", "/jobs/newest"), ("POST", "/jobs/{job_id}/copy")} & found == set()
    assert {operation for operation in found if operation is not None} == operations
