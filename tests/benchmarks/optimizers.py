"""`python -m tests.benchmarks.optimizers`: our strategies beside public optimizers, with equal numbers of rollouts.

The tasks and what is assumed about models are demo.landscape and demo.meta_model, which were fixed before anything was
compared. Six landscapes with ten seeds each make 60 worlds; a row's figure is the mean over them of what its prompt is
worth on 300 notes that no optimizer saw (the expected score: the luck of single answers is not in it), with a bootstrap
interval over the worlds. Rollouts are calls of the working model; answers that a cache has are not calls.

Ours run in-process through the function that also answers over HTTP; --packages is an interpreter that has gepa and
dspy, for theirs over HTTP. Without it only ours are measured.
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from demo.landscape import LANDSCAPES, world
from engine.evaluation.statistics import interval_of, paired
from llm_optimizer.strategies.interface import Setup
from llm_optimizer.strategies.registry import built_in
from llm_optimizer.strategies.splitting import split
from tests.benchmarks.optimizer_tasks import AT_OPTIMUM, COMPARED, GATE_NOTES, HOLDOUT, LEARNED_FROM
from tests.benchmarks.simulated_tasks import Simulated, note_ids
from tests.support.searching import Driven, search

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = (200, 600, 1500)
ENDLESS: Mapping[str, Any] = {"maxIterations": 10_000, "patience": 0}
OURS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "greedy last": ("refine", {"select": "last", "maxIterations": 10_000}),
    "refine best": ("refine", ENDLESS),
    "opro": ("opro", {"steps": 10_000, "patience": 0}),
    "reflect pareto": ("reflect", {"parents": "pareto"}),
    "reflect mix": ("reflect", {"parents": "mix"}),
    "beam": ("beam", {}),
    "duel": ("duel", {"rounds": 10_000}),
    "auto": ("auto", {}),
}
"""All go on until the budget is used, as the others do; auto is left as it is."""
THEIRS = ("gepa default", "gepa tuned", "dspy MIPROv2")
LEAST_GAIN = 0.01
Worths = dict[tuple[str, int], float]


def setup_of(landscape: str, seed: int, rollouts: int, parameters: Mapping[str, Any], arms: int = 1) -> Setup:
    """What a run would give its strategy: the split is the service's own, all its holdout left unused."""
    parts = split(dict.fromkeys(note_ids(LEARNED_FROM), ()), seed=seed, rollouts=rollouts, holdout=0, arms=arms)
    return Setup(
        prompt=world(landscape, seed).first_prompt,
        feedback=parts.feedback,
        validation=parts.validation,
        golds=parts.feedback,
        seed=seed,
        rollouts=rollouts,
        judge_noise=LANDSCAPES[landscape].judge_noise,
        arms=arms,
        parameters=parameters,
    )


def ours(row: str, landscape: str, seed: int, rollouts: int) -> tuple[str, Driven]:
    """The winner's text, and the search."""
    name, parameters = OURS[row]
    setup = setup_of(landscape, seed, rollouts, parameters)
    driven = search(built_in(name), setup, Simulated(world(landscape, seed)), rollouts=rollouts)
    return driven.state.candidates[built_in(name).best(driven.state).candidate].text, driven


def measure_ours(row: str, rollouts: int, seeds: int) -> Iterator[dict[str, Any]]:
    for landscape in COMPARED:
        for seed in range(seeds):
            prompt, driven = ours(row, landscape, seed, rollouts)
            worth = world(landscape, seed).worth(prompt, HOLDOUT)
            yield line_of(row, landscape, seed, rollouts) | {"spent": driven.spent, "worth": worth}


def measure_theirs(python: str, url: str, row: str, rollouts: int, seeds: int) -> Iterator[dict[str, Any]]:
    command = [python, "-m", "tests.benchmarks.optimizer_packages", row, "--url", url]
    command += ["--rollouts", str(rollouts), "--seeds", str(seeds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield from (json.loads(line) for line in process.stdout if line.startswith('{"row"'))
    if process.returncode:
        raise RuntimeError(f"{row} failed: {' '.join(command)}")


def line_of(row: str, landscape: str, seed: int, rollouts: int) -> dict[str, Any]:
    return {"row": row, "landscape": landscape, "seed": seed, "rollouts": rollouts}


@contextmanager
def endpoint() -> Iterator[str]:
    """The simulated provider as a process of its own; its URL."""
    command = [sys.executable, "-m", "demo.simulated"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def promotion(seeds: int, rollouts: int = 600) -> dict[str, Any]:
    """Worlds whose first prompt is the best there is: how often each rule ships something worse.

    `proven` is the service's rule: the winner against the first prompt on a holdout, by the paired test. `argmax`
    ships the winner of validation, `last` the last text of greedy refinement.
    """
    shipped = {"proven": 0, "argmax": 0, "last": 0}
    worse = dict.fromkeys(shipped, 0)
    for landscape in AT_OPTIMUM:
        for seed in range(seeds):
            task = world(landscape, seed)
            texts = {
                name: ours(row, landscape, seed, rollouts)[0]
                for name, row in (("argmax", "auto"), ("last", "greedy last"))
            }
            if is_proven(landscape, seed, texts["argmax"]):
                texts["proven"] = texts["argmax"]
            for rule, text in texts.items():
                gain = task.worth(text, HOLDOUT) - task.worth(task.first_prompt, HOLDOUT)
                shipped[rule] += text != task.first_prompt
                worse[rule] += gain < -1e-9
    return {"worlds": seeds * len(AT_OPTIMUM), "shipped": shipped, "worse": worse}


def is_proven(landscape: str, seed: int, prompt: str) -> bool:
    """Whether the gate lets the prompt through."""
    simulated = Simulated(world(landscape, seed))
    first = world(landscape, seed).first_prompt
    gaps = [simulated.score(prompt, number) - simulated.score(first, number) for number in GATE_NOTES]
    return paired(gaps, seed).proves(LEAST_GAIN)


SIZES = ("large", "medium", "small")
ARMS = tuple((working, meta) for working in SIZES for meta in SIZES)


def halving(seeds: int, rollouts: int = 1800) -> dict[str, Any]:
    """Nine combinations of working and meta-model: how often the best working model is left, and what it comes to.

    Beside it: the same rollouts in equal parts for each combination, and all of them for one combination.
    """
    found = both = 0
    worths: dict[str, list[float]] = {"halving": [], "equal parts": [], "one arm": []}
    for seed in range(seeds):
        task, strategy = world("fields", seed), built_in("combos")
        driven = search(
            strategy, setup_of("fields", seed, rollouts, {}, arms=len(ARMS)), Simulated(task, ARMS), rollouts=rollouts
        )
        best = strategy.best(driven.state)
        working, meta = ARMS[best.arm]
        found += working == "large"
        both += (working, meta) == ("large", "large")
        worths["halving"].append(task.worth(driven.state.candidates[best.candidate].text, HOLDOUT, tier=working))
        parts = [one_arm(seed, arm, rollouts // len(ARMS)) for arm in ARMS]
        worths["equal parts"].append(max(parts)[1])
        worths["one arm"].append(one_arm(seed, ARMS[seed % len(ARMS)], rollouts)[1])
    means = {name: fmean(values) for name, values in worths.items()}
    return {"worlds": seeds, "right working model": found, "right pair": both, "worth": means}


def one_arm(seed: int, arm: tuple[str, str], rollouts: int) -> tuple[float, float]:
    """The winner's mean in validation and what it is worth, of a search with one combination."""
    task, strategy = world("fields", seed), built_in("reflect")
    setup = setup_of("fields", seed, rollouts, {})
    driven = search(strategy, setup, Simulated(task, (arm,)), rollouts=rollouts)
    best = strategy.best(driven.state)
    return best.mean or 0.0, task.worth(driven.state.candidates[best.candidate].text, HOLDOUT, tier=arm[0])


def worths_of(lines: Sequence[Mapping[str, Any]], row: str, rollouts: int) -> Worths:
    chosen = (one for one in lines if one["row"] == row and one["rollouts"] == rollouts)
    return {(one["landscape"], one["seed"]): one["worth"] for one in chosen}


def table(lines: Sequence[Mapping[str, Any]], budgets: Sequence[int]) -> str:
    """Rows by budgets, each a mean with its interval, and behind a slash the rollouts really spent."""
    rows = list(dict.fromkeys(str(one["row"]) for one in lines))
    out = ["| | " + " | ".join(f"{rollouts} rollouts" for rollouts in budgets) + " |", "|---|" + "---|" * len(budgets)]
    for row in rows:
        cells = [cell(lines, row, rollouts) for rollouts in budgets]
        out.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def cell(lines: Sequence[Mapping[str, Any]], row: str, rollouts: int) -> str:
    worths = list(worths_of(lines, row, rollouts).values())
    interval = interval_of(worths, 0)
    if interval is None:
        return "–"
    spent = fmean(one["spent"] for one in lines if one["row"] == row and one["rollouts"] == rollouts)
    return f"{fmean(worths):.3f} ({interval.low:.3f}, {interval.high:.3f}) / {spent:.0f}"


def by_landscape(lines: Sequence[Mapping[str, Any]], rollouts: int) -> str:
    rows = list(dict.fromkeys(str(one["row"]) for one in lines))
    out = [f"| at {rollouts} | " + " | ".join(COMPARED) + " |", "|---|" + "---|" * len(COMPARED)]
    for row in rows:
        found = worths_of(lines, row, rollouts)
        each = [[worth for (name, _), worth in found.items() if name == landscape] for landscape in COMPARED]
        out.append(f"| {row} | " + " | ".join(f"{fmean(one):.3f}" if one else "–" for one in each) + " |")
    return "\n".join(out)


def against(lines: Sequence[Mapping[str, Any]], row: str, rollouts: int) -> str:
    """auto minus another row, world by world."""
    mine, theirs = worths_of(lines, "auto", rollouts), worths_of(lines, row, rollouts)
    found = paired([mine[one] - theirs[one] for one in mine if one in theirs], 0)
    if found.interval is None:
        return f"auto - {row} at {rollouts}: not measured"
    return f"auto - {row} at {rollouts}: {found.mean:+.3f} ({found.interval.low:+.3f}, {found.interval.high:+.3f})"


def measured(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for rollouts in given.budgets:
        for row in OURS:
            yield from measure_ours(row, rollouts, given.seeds)
    if given.packages:
        with endpoint() as url:
            for rollouts in given.budgets:
                for row in THEIRS:
                    yield from measure_theirs(given.packages, url, row, rollouts, given.seeds)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.optimizers", description="Compare optimizers.")
    parser.add_argument("--packages", metavar="PYTHON", help="an interpreter with requirements-bench.txt installed")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), metavar="ROLLOUTS")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path, default=ROOT / ".cache" / "optimizers.json", metavar="FILE")
    given = parser.parse_args(argv)
    lines = []
    for line in measured(given):
        lines.append(line)
        print(json.dumps(line), file=sys.stderr, flush=True)
    extras: dict[str, Callable[[int], dict[str, Any]]] = {"promotion": promotion, "halving": halving}
    found = {name: measure(2 * given.seeds) for name, measure in extras.items()}
    given.json.write_text(json.dumps({"lines": lines, **found}, indent=1), encoding="utf-8")
    print(table(lines, given.budgets), *(by_landscape(lines, rollouts) for rollouts in given.budgets), sep="\n\n")
    print("", *(against(lines, row, rollouts) for rollouts in given.budgets for row in THEIRS), sep="\n")
    print("", *(f"{name}: {json.dumps(value)}" for name, value in found.items()), sep="\n")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended too
    sys.exit(main(sys.argv[1:]))
