"""`python -m demo.optimize`: from a CSV to a proven better prompt over REST, on simulated models and without a key.

Exit code 0 only if a better prompt was found and proven on examples that the search never saw.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from demo.conventions import STEM
from demo.interruption import Interrupted, Interruption
from demo.journey import Refused
from demo.service import LAST_BREATH_SECONDS, ROOT, Service, ServiceDied, running_service

NOTES = Path(__file__).with_name("notes.csv")
WORLD = "sim:fields:0"
POLL_SECONDS = 0.25
STOP_SECONDS = 10.0
KEY = "SIMULATED_KEY"
GOOD = ("proven", "promoted")

Json = dict[str, Any]


class Search:
    """One client's way from a CSV to a run. Raises Refused, and httpx.TransportError when the service is gone."""

    def __init__(self, http: httpx.Client, admin_key: str) -> None:
        self._http = http
        self._admin = {"admin_api_key": admin_key}
        made = self._post("/clients", {"name": "optimize-demo"}, self._admin)
        self._client = {"client_id": made["clientId"], "client_api_key": made["api_key"]}

    def prepare(self, provider: str) -> None:
        """Models of every role, and a worker."""
        for role in ("work", "judge", "meta"):
            self._post("/models", _model(role, provider), self._admin)
        config = {"pollInterval": 1, "maxItemsPerBatch": 50, "operationFilter": "optimize"}
        worker = self._post("/workers", {"workerId": "optimize-demo", "config": config}, self._client)
        self._post(f"/workers/{worker['workerId']}/start", None, self._client)

    def upload(self, csv: bytes) -> Json:
        headers = {**self._client, "content-type": "text/csv"}
        answer = self._http.post("/datasets", params={"name": "notes"}, content=csv, headers=headers)
        return _body(answer)

    def begin(self, dataset: str, calls: int) -> str:
        """The id of a run that has begun."""
        first = self._prompt("note-fields", STEM)
        judge = self._prompt("judge", "How many of the fields of the output are as they are expected?")
        editor = self._prompt("editor", "Improve the prompt.")
        run = self._post(
            "/runs",
            {
                "initialWorkingPromptIds": [first],
                "evalPromptId": judge,
                "evalModel": "judge",
                "metaPromptId": editor,
                "metaModel": "meta",
                "workingModels": ["work"],
                "maxIterations": 1,
                "temperature": 0,
                "requestData": {},
                "dataset": dataset,
                "budget": {"calls": calls},
                "promote": "when_proven",
                "maxParallel": 50,
                "seed": 1,
            },
            self._client,
        )
        return str(run["runId"])

    def states(self, run_id: str) -> Iterator[Json]:
        """The run again and again, until it has ended."""
        while True:
            run = _body(self._http.get(f"/runs/{run_id}", headers=self._client))
            yield run
            if run["status"] != "RUNNING":
                return
            time.sleep(POLL_SECONDS)

    def report(self, run_id: str) -> str:
        answer = self._http.get(f"/runs/{run_id}/report", params={"format": "html"}, headers=self._client)
        if answer.is_error:
            raise Refused(answer)
        return answer.text

    def _prompt(self, name: str, text: str) -> str:
        body = {"name": name, "type": "SYSTEM", "status": "PUBLISHED", "prompt": text, "isPublic": False}
        return str(self._post("/prompts", body, self._client)["promptId"])

    def _post(self, path: str, body: Json | None, headers: dict[str, str]) -> Json:
        return _body(self._http.post(path, json=body, headers=headers))


def _body(answer: httpx.Response) -> Json:
    if answer.is_error:
        raise Refused(answer)
    found: Json = answer.json()
    return found


def _model(role: str, provider: str) -> Json:
    return {
        "name": role,
        "sdk": "OpenAI",
        "endpoint": provider,
        "apiType": "chat",
        "apiVersion": "v1",
        "deployment": f"{WORLD}:{role}",
        "key": KEY,
        "maxCompletionToken": 2000,
        "minTemperature": 0,
        "maxTemperature": 1,
        "cost": {"tokens": 1_000_000, "currency": "USD", "input": 0.15, "output": 0.6},
    }


@contextmanager
def simulated_provider() -> Iterator[str]:
    """The URL of simulated models, gone when the block ends."""
    command = [sys.executable, "-m", "demo.simulated"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise ServiceDied("The simulated models did not start.")
        yield url
    finally:
        process.terminate()
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.optimize", description=__doc__)
    parser.add_argument(
        "--csv", type=Path, default=NOTES, help="notes, which the simulated models know (default: demo/notes.csv)"
    )
    parser.add_argument("--calls", type=int, default=1500, help="the budget in calls of all roles")
    parser.add_argument("--report", type=Path, default=Path("optimize-report.html"), help="where to write the report")
    given = parser.parse_args(argv)
    interruption = Interruption()
    interruption.take_over()
    try:
        csv = given.csv.read_bytes()
        print("Starting simulated models, and Metasync in development mode ...", flush=True)
        with (
            simulated_provider() as provider,
            running_service({**os.environ, KEY: "none-needed"}) as service,
            interruption.raised(hurry=service.kill),
        ):
            service.wait_until_ready()
            return _watched(service, provider, csv, given)
    except (ServiceDied, Refused, OSError, httpx.TransportError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        print("\nStopped; nothing is left running.", file=sys.stderr)
        return 130


def _watched(service: Service, provider: str, csv: bytes, given: argparse.Namespace) -> int:
    """A connection that breaks is reported as what it nearly always is: the end of the service."""
    try:
        with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as http:
            return _show(Search(http, service.admin_key), provider, csv, given)
    except httpx.TransportError:
        service.check(LAST_BREATH_SECONDS)
        raise


def _show(search: Search, provider: str, csv: bytes, given: argparse.Namespace) -> int:
    search.prepare(provider)
    dataset = search.upload(csv)
    print(f"Uploaded {given.csv.name} as a dataset of {dataset['itemCount']} items.", flush=True)
    run_id = search.begin(dataset["datasetId"], given.calls)
    run: Json = {}
    phase = None
    for run in search.states(run_id):
        if run["search"]["phase"] != phase:
            phase = run["search"]["phase"]
            print(f"  {phase}: {_stand(run)}", flush=True)
    given.report.write_text(search.report(run_id), encoding="utf-8")
    return _told(run, given.report)


def _stand(run: Json) -> str:
    best, spent = run["search"]["best"], run["processingMetrics"] or {}
    score = "nothing scored yet" if best is None else f"best on validation {best:.3f}"
    return f"{score}, {spent.get('totalTokens', 0):,} tokens"


def _told(run: Json, report: Path) -> int:
    found = run["search"]
    if run["failureReason"]:
        print(f"\nThe run failed: {run['failureReason']}", file=sys.stderr)
        return 1
    print(f"\nThe prompt it began with:\n\n  {STEM}\n")
    test = found["numbers"].get("test")
    if found["bestPrompt"]:
        print("The best one that it found:\n")
        print("\n".join(f"  {line}" for line in found["bestPrompt"].splitlines()), end="\n\n")
    if test and test["count"]:
        print(
            f"On {test['count']} examples that the search never saw it gains {test['mean']:+.3f} "
            f"(95 % interval {test['low']:+.3f} to {test['high']:+.3f}, p = {test['p']:.4f})."
        )
    print(f"Verdict: {found['verdict']}. The whole report: {report.resolve()}")
    return 0 if found["verdict"] in GOOD else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
