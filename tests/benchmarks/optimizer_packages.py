"""Public optimizers from PyPI on the simulated tasks, over HTTP: run with an interpreter that has gepa and dspy.

    python -m tests.benchmarks.optimizer_packages <row> --url http://127.0.0.1:…/v1 --rollouts 600 --seeds 10

One JSON line per world: {"row", "landscape", "seed", "rollouts", "spent", "worth"}. `spent` counts calls of the working
model, which is what a budget is of; a call that a package's own cache answers is not made and not counted.
"""

import argparse
import http.client
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from demo.landscape import World, as_text, world
from tests.benchmarks.optimizer_tasks import COMPARED, HOLDOUT, JUDGE_REQUEST, LEARNED_FROM

QUICK_START = 45
"""Examples to train and as many to validate on: what gepa's own quick start has."""
MINIBATCH = 6
DSPY_CANDIDATES = {200: 4, 600: 7}
BOOTSTRAPPING = 10
"""Rollouts that a set of demonstrations takes, about."""
REPEATED = 1.1
"""Trials that are planned for one that has to be paid: the others repeat a combination, which the cache answers."""


class Task:
    """One world behind the endpoint: answers, scores, and the count of rollouts."""

    def __init__(self, url: str, of: World) -> None:
        parts = urlsplit(url)
        self.of, self.url, self.spent = of, url, 0
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._path = f"{parts.path}/chat/completions"

    def model(self, role: str) -> str:
        return f"sim:{self.of.name}:{self.of.seed}:{role}"

    def ask(self, role: str, messages: list[dict[str, Any]], **others: Any) -> str:
        body = json.dumps({"model": self.model(role), "messages": messages, **others})
        self._http.request("POST", self._path, body, {"Content-Type": "application/json"})
        answer = json.loads(self._http.getresponse().read())
        text: str = answer["choices"][0]["message"]["content"]
        return text

    def answer(self, prompt: str, number: int) -> str:
        self.spent += 1
        note = {"role": "user", "content": self.of.note(number)}
        return self.ask("work", [{"role": "system", "content": prompt}, note])

    def marked(self, number: int, output: str) -> tuple[float, str]:
        """Score and feedback: the program's, or the judge's where the task has one."""
        try:
            answer = json.loads(output)
        except ValueError:
            return 0.0, "The answer is no JSON."
        if not self.of.landscape.judged:
            return self.of.score(number, answer), self.of.feedback(number, answer)
        wanted = as_text(self.of.wanted(number))
        request = JUDGE_REQUEST.format(note=self.of.note(number), answer=output, wanted=wanted)
        verdict = json.loads(self.ask("judge", [{"role": "user", "content": request}]))
        return verdict["score"], verdict["feedback"]


class GepaAdapter:
    """gepa's one point of contact with a system: evaluates a candidate, and lays out what it is reflected on."""

    propose_new_texts = None

    def __init__(self, task: Task) -> None:
        self._task = task

    def evaluate(self, batch: list[int], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        from gepa import EvaluationBatch

        outputs = [self._task.answer(candidate["prompt"], number) for number in batch]
        marks = [self._task.marked(number, output) for number, output in zip(batch, outputs, strict=True)]
        traces = [
            {"Inputs": self._task.of.note(number), "Generated Outputs": output, "Feedback": mark[1]}
            for number, output, mark in zip(batch, outputs, marks, strict=True)
        ]
        scores = [mark[0] for mark in marks]
        return EvaluationBatch(outputs=outputs, scores=scores, trajectories=traces if capture_traces else None)

    def make_reflective_dataset(self, candidate: dict[str, str], eval_batch: Any, components: list[str]) -> Any:
        return dict.fromkeys(components, eval_batch.trajectories)


def gepa_run(task: Task, rollouts: int, *, tuned: bool) -> float:
    """At its defaults with its quick start's data, or with one parent, six examples a step and little validation."""
    import gepa

    validated = max(8, min(60, rollouts // 20)) if tuned else QUICK_START
    notes = list(LEARNED_FROM)
    serials = iter(range(10**9))
    options: dict[str, Any] = {}
    if tuned:
        options = {
            "candidate_selection_strategy": "current_best",
            "reflection_minibatch_size": MINIBATCH,
            "cache_evaluation": True,
        }
    found = gepa.optimize(
        seed_candidate={"prompt": task.of.first_prompt},
        trainset=notes[validated:] if tuned else notes[validated : validated + QUICK_START],
        valset=notes[:validated],
        adapter=GepaAdapter(task),
        reflection_lm=lambda request: task.ask("meta", [{"role": "user", "content": request}], seed=next(serials)),
        max_metric_calls=rollouts,
        seed=task.of.seed,
        logger=Silent(),
        **options,
    )
    return task.of.worth(found.best_candidate["prompt"], HOLDOUT)


class Silent:
    def log(self, message: str) -> None:
        """What gepa tells goes nowhere."""


def dspy_run(task: Task, rollouts: int) -> float:
    """MIPROv2 with demonstrations; trials, candidates and validation so that the budget is about used."""
    import dspy

    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    validated = max(20, min(60, rollouts // 20))
    candidates = DSPY_CANDIDATES.get(rollouts, 10)
    left = rollouts - BOOTSTRAPPING * candidates - validated
    trials = max(2, round(REPEATED * left / validated))
    lms = {
        role: dspy.LM(f"openai/{task.model(role)}", api_base=task.url, api_key="none", temperature=temperature)
        for role, temperature in (("work", 0.0), ("meta", 1.0))
    }
    made = [dspy.Example(note=task.of.note(n), answer=as_text(task.of.wanted(n)), number=n) for n in LEARNED_FROM]
    examples = [one.with_inputs("note") for one in made]
    program = dspy.Predict(dspy.Signature("note -> answer", task.of.first_prompt))

    def metric(example: Any, prediction: Any, trace: Any = None) -> float | bool:
        score = task.marked(example.number, prediction.answer)[0]
        return score if trace is None else score >= 0.99

    called = lms["work"].forward
    seen: set[str] = set()

    def forward(*args: Any, **kwargs: Any) -> Any:
        seen.add(json.dumps([args, kwargs], sort_keys=True, default=str))
        return called(*args, **kwargs)

    lms["work"].forward = forward
    with dspy.context(lm=lms["work"]):
        optimizer = dspy.MIPROv2(
            metric=metric,
            prompt_model=lms["meta"],
            task_model=lms["work"],
            auto=None,
            num_candidates=candidates,
            num_threads=1,
            seed=task.of.seed + 1,
        )
        compiled = optimizer.compile(
            program, trainset=examples[validated:], valset=examples[:validated], num_trials=trials, minibatch=False
        )
    task.spent = len(seen)
    shown = [next(one.number for one in made if one.note == demo["note"]) for demo in compiled.demos]
    return task.of.worth(compiled.signature.instructions, HOLDOUT, shown=shown)


ROWS: dict[str, Callable[[Task, int], float]] = {
    "gepa default": lambda task, rollouts: gepa_run(task, rollouts, tuned=False),
    "gepa tuned": lambda task, rollouts: gepa_run(task, rollouts, tuned=True),
    "dspy MIPROv2": dspy_run,
}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.optimizer_packages")
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rollouts", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    for landscape in COMPARED:
        for seed in range(given.seeds):
            started = time.monotonic()
            task = Task(given.url, world(landscape, seed))
            worth = ROWS[given.row](task, given.rollouts)
            line = {"row": given.row, "landscape": landscape, "seed": seed, "rollouts": given.rollouts}
            seconds = round(time.monotonic() - started, 2)
            print(json.dumps({**line, "spent": task.spent, "worth": worth, "seconds": seconds}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
