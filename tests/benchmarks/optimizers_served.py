"""`python -m tests.benchmarks.optimizers_served`: the comparison's worlds searched by the service itself, over HTTP.

The comparison drives strategies in-process. Here each world is a dataset, an evaluator and a run of a real service with
real jobs, whose models are the simulated provider behind HTTP; what it finds is held against what the comparison finds.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from itertools import product
from statistics import fmean
from typing import Any

import httpx

from demo.landscape import World, world
from demo.optimize import KEY, Json, simulated_provider
from demo.service import running_service
from engine.evaluation.statistics import interval_of, paired
from tests.benchmarks.optimizer_tasks import COMPARED, GATE_NOTES, HOLDOUT, LEARNED_FROM
from tests.benchmarks.optimizers import ours

ROLLOUTS = 600
"""What a run without a budget gets for its search."""
RUBRIC = "How many of the fields of the output are as they are expected?"
WORST_SECONDS = 300.0
POLL_SECONDS = 0.2


class Customer:
    """One client of the service with a worker for its runs. An answer that is an error ends the benchmark."""

    def __init__(self, http: httpx.Client, admin_key: str, provider: str) -> None:
        self._http = http
        self._provider = provider
        self._admin = {"admin_api_key": admin_key}
        made = self._sent("POST", "/clients", {"name": "served"}, self._admin)
        self._client = {"client_id": made["clientId"], "client_api_key": made["api_key"]}
        config = {"pollInterval": 1, "maxItemsPerBatch": 100, "operationFilter": "optimize"}
        worker = self._sent("POST", "/workers", {"workerId": "served", "config": config})
        self._sent("POST", f"/workers/{worker['workerId']}/start", None)

    def found(self, task: World) -> str:
        """The prompt that a run with all defaults ends with."""
        name = f"{task.name}-{task.seed}"
        for role in ("work", "judge", "meta"):
            self._sent("POST", "/models", self._model(task, role, f"{name}-{role}"), self._admin)
        items = [{"input": task.note(one), "expected": task.wanted(one)} for one in (*LEARNED_FROM, *GATE_NOTES)]
        dataset = self._sent("POST", "/datasets", {"name": name, "items": items})["datasetId"]
        metrics = [_metric(task, f"{name}-judge")]
        evaluator = self._sent("POST", "/evaluators", {"name": name, "metrics": metrics})["evaluatorId"]
        body = {
            "initialWorkingPromptIds": [self._prompt(name, task.first_prompt)],
            "evalPromptId": self._prompt(f"{name}-judge", RUBRIC),
            "evalModel": f"{name}-judge",
            "metaPromptId": self._prompt(f"{name}-meta", "Improve the prompt."),
            "metaModel": f"{name}-meta",
            "workingModels": [f"{name}-work"],
            "maxIterations": 1,
            "temperature": 0,
            "requestData": {},
            "dataset": dataset,
            "evaluator": evaluator,
            "maxParallel": 50,
            "seed": task.seed,
        }
        run = self._ended(self._sent("POST", "/runs", body)["runId"])
        return str(run["search"]["bestPrompt"] or task.first_prompt)

    def _ended(self, run_id: str) -> Json:
        until = time.monotonic() + WORST_SECONDS
        while True:
            run = self._sent("GET", f"/runs/{run_id}", None)
            if run["status"] == "COMPLETED":
                return run
            if run["status"] != "RUNNING" or time.monotonic() > until:
                raise RuntimeError(f"run {run_id} is {run['status']}: {run['failureReason']}, {run['waitsFor']}")
            time.sleep(POLL_SECONDS)

    def _model(self, task: World, role: str, name: str) -> Json:
        return {
            "name": name,
            "sdk": "OpenAI",
            "endpoint": self._provider,
            "apiType": "chat",
            "apiVersion": "v1",
            "deployment": f"sim:{task.name}:{task.seed}:{role}",
            "key": KEY,
            "maxCompletionToken": 2000,
            "minTemperature": 0,
            "maxTemperature": 1,
            "cost": {"tokens": 1_000_000, "currency": "USD", "input": 0.15, "output": 0.6},
        }

    def _prompt(self, name: str, text: str) -> str:
        body = {"name": name, "type": "SYSTEM", "status": "PUBLISHED", "prompt": text, "isPublic": False}
        return str(self._sent("POST", "/prompts", body)["promptId"])

    def _sent(self, method: str, path: str, body: Json | None, headers: dict[str, str] | None = None) -> Json:
        answer = self._http.request(method, path, json=body, headers=headers or self._client)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        found: Json = answer.json()
        return found


def _metric(task: World, judge: str) -> Json:
    if task.landscape.judged:
        return {"kind": "llm_judge", "parameters": {"model": judge, "rubric": RUBRIC}}
    return {"kind": "json", "hard": task.landscape.all_or_nothing}


def measured(customer: Customer, seeds: int) -> list[dict[str, Any]]:
    """What both found in each world, as worths on notes that nobody saw."""
    lines = []
    for landscape, seed in product(COMPARED, range(seeds)):
        task = world(landscape, seed)
        texts = {"served": customer.found(task), "in-process": ours("auto", landscape, seed, ROLLOUTS)[0]}
        line = {"landscape": landscape, "seed": seed, **{who: task.worth(text, HOLDOUT) for who, text in texts.items()}}
        print(line, file=sys.stderr, flush=True)
        lines.append(line)
    return lines


def told(lines: Sequence[dict[str, Any]]) -> str:
    rows = []
    for who in ("served", "in-process"):
        worths = [line[who] for line in lines]
        found = interval_of(worths, 0)
        interval = "" if found is None else f" ({found.low:.3f}, {found.high:.3f})"
        rows.append(f"auto {who}, {len(worths)} worlds: {fmean(worths):.3f}{interval}")
    gap = paired([line["served"] - line["in-process"] for line in lines], 0)
    interval = "" if gap.interval is None else f" ({gap.interval.low:+.3f}, {gap.interval.high:+.3f})"
    return "\n".join([*rows, f"served - in-process: {gap.mean:+.3f}{interval}"])


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.optimizers_served", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(argv)
    with simulated_provider() as provider, running_service({**os.environ, KEY: "none-needed"}) as service:
        service.wait_until_ready()
        with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as http:
            print(told(measured(Customer(http, service.admin_key, provider), given.seeds)))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
