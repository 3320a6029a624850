"""Searches in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

SEARCHES = """
import hashlib, json
from llm_optimizer.strategies.registry import built_in
from llm_optimizer.strategies.state_codec import to_document
from tests.support.searching import Toy, search
from tests.unit.test_strategies import VARIANTS, setup_of

for name, parameters, arms in VARIANTS:
    world = Toy(handicap=(0.0, 0.5, 0.2, 0.7))
    driven = search(built_in(name), setup_of(parameters, seed=7, arms=arms), world, rollouts=300)
    told = [to_document(driven.state), [item.key for item in driven.items]]
    print(name, hashlib.sha256(json.dumps(told).encode()).hexdigest())
"""


def test_the_order_of_sets_decides_nothing() -> None:
    """Two processes whose sets and hashes are in other orders plan the same items and end in the same states."""
    root = Path(__file__).parents[2]
    told = [
        subprocess.run(
            [sys.executable, "-c", SEARCHES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert told[0].count("\n") > 10
