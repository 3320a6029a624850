"""What the comparison of optimizers claims, on a few of its worlds."""

from demo.landscape import world
from llm_optimizer.strategies.interface import Propose
from llm_optimizer.strategies.registry import built_in
from tests.benchmarks.optimizer_tasks import COMPARED, HOLDOUT
from tests.benchmarks.optimizers import ARMS, against, is_proven, ours, setup_of, table
from tests.benchmarks.simulated_tasks import Simulated
from tests.support.searching import search, through_json


def test_the_default_strategy_makes_prompts_better() -> None:
    """With 600 rollouts on every landscape, auto's winner is worth far more on unseen notes than the first prompt."""
    for landscape in COMPARED:
        prompt, driven = ours("auto", landscape, 0, 600)
        task = world(landscape, 0)
        assert driven.spent <= 600
        assert task.worth(prompt, HOLDOUT) > task.worth(task.first_prompt, HOLDOUT) + 0.25


def test_nothing_worse_is_proven() -> None:
    """Where the first prompt is the best there is, the gate lets nothing through, noisy judge or not."""
    for landscape in ("optimum", "optimum-judged"):
        for seed in range(2):
            assert not is_proven(landscape, seed, ours("auto", landscape, seed, 200)[0])
            assert not is_proven(landscape, seed, ours("greedy last", landscape, seed, 200)[0])


def test_halving_finds_the_best_working_model() -> None:
    """All nine combinations try new texts, and the one that is left has the large working model."""
    setup = setup_of("fields", 0, 1800, {}, arms=len(ARMS))
    task = Simulated(world("fields", 0), ARMS)
    driven = search(built_in("combos"), setup, task, rollouts=1800, between=through_json)
    assert ARMS[built_in("combos").best(driven.state).arm][0] == "large"
    assert {item.arm for item in driven.items if isinstance(item, Propose)} == set(range(9))


def test_tables_show_means_intervals_and_what_was_spent() -> None:
    """A row has a cell per budget; a row that was not measured says so, and auto is compared world by world."""
    lines = [
        {"row": row, "landscape": "fields", "seed": seed, "rollouts": 200, "spent": 190, "worth": worth + seed / 10}
        for row, worth in (("auto", 0.7), ("gepa tuned", 0.5))
        for seed in range(3)
    ]
    assert "| auto | 0.800 (0.700, 0.900) / 190 | – |" in table(lines, [200, 600])
    assert against(lines, "gepa tuned", 200) == "auto - gepa tuned at 200: +0.200 (+0.200, +0.200)"
    assert "not measured" in against(lines, "gepa default", 200)
