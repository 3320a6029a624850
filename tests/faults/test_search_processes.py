"""Fault 25 with real processes: a search whose service is killed again and again comes to the same end.

On one back-end: that every storage call may be the last one on either, test_searches.py shows.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from demo.conventions import STEM
from demo.landscape import as_text, world
from demo.optimize import KEY, Search, simulated_provider
from tests.support.api import ADMIN_KEY
from tests.support.backends import Database
from tests.support.service import Replica, fleet, one_of_each
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("backend", one_of_each()[:1], indirect=True)
NOTES = 60
KILLS = 2
TERMS: dict[str, Any] = {
    "strategy": {"name": "refine", "parameters": {"maxIterations": 3, "patience": 0}},
    "split": {"holdout": 20},
    "budget": {"calls": 5000},
    "maxParallel": 8,
}


class Customer(Search):
    """Looks after a run over REST, whichever process answers."""

    def at(self, replica: Replica) -> "Customer":
        self._http = replica.http
        return self

    def notes(self) -> str:
        known = world("fields", 0)
        items = [{"input": known.note(one), "expected": as_text(known.wanted(one))} for one in range(NOTES)]
        body = {"name": "notes", "items": items}
        return str(self._post("/datasets", body, self._client)["datasetId"])

    def search(self, dataset: str, name: str) -> str:
        first, judge, editor = (self._prompt(f"{name}-{one}", one) for one in (STEM, "Is it right?", "Improve it."))
        run = {
            "initialWorkingPromptIds": [first],
            "evalPromptId": judge,
            "evalModel": "judge",
            "metaPromptId": editor,
            "metaModel": "meta",
            "workingModels": ["work"],
            "maxIterations": 1,
            "requestData": {},
            "temperature": 0,
            "dataset": dataset,
            **TERMS,
        }
        return str(self._post("/runs", run, self._client)["runId"])

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._http.get(f"/runs/{run_id}", headers=self._client).json()
        return found

    def ended(self, run_id: str) -> dict[str, Any]:
        def done() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["status"] != "RUNNING" else None

        return eventually(done, within=60, what="the run ended")

    def found(self, run_id: str) -> str:
        """All that the run has found, as one text."""
        report = self._http.get(f"/runs/{run_id}/report", headers=self._client).json()
        kept = ("verdict", "finishReason", "numbers", "baseline", "best", "winner", "items", "candidates", "steps")
        return json.dumps({name: report[name] for name in kept}, sort_keys=True)


def test_a_service_that_is_killed_again_and_again(database: Database, tmp_path: Path) -> None:
    """The same candidates, scores and verdict as in a run that was never disturbed; no stored answer is paid twice."""
    settings: dict[str, Any] = {"lease_seconds": 2, "worker_lease_seconds": 2, KEY.lower(): "none-needed"}
    with simulated_provider() as provider, fleet(database.url, database.name, tmp_path, **settings) as launched:
        [replica] = launched.launch(1)
        customer = Customer(replica.http, ADMIN_KEY)
        customer.prepare(provider)
        dataset = customer.notes()
        calm = customer.ended(customer.search(dataset, "calm"))
        stormy = customer.search(dataset, "stormy")
        for kill in range(KILLS):
            steps = 3 * (kill + 1)
            eventually(lambda steps=steps: customer.run(stormy)["search"]["step"] >= steps, within=40, what="steps")
            replica.kill()
            customer.at(replica.start())
        again = customer.ended(stormy)
        assert (calm["status"], again["status"]) == ("COMPLETED", "COMPLETED")
        assert customer.found(stormy) == customer.found(calm["runId"])
    assert again["spent"]["work"]["inputTokens"] == calm["spent"]["work"]["inputTokens"]
