"""What our strategies and the packages are compared on; imports nothing but the simulation, which both sides have."""

from demo.landscape import LANDSCAPES

COMPARED = tuple(name for name, landscape in LANDSCAPES.items() if not landscape.starts_at_optimum)
AT_OPTIMUM = tuple(name for name, landscape in LANDSCAPES.items() if landscape.starts_at_optimum)
LEARNED_FROM = range(210)
"""The notes that every optimizer may use, as it likes."""
HOLDOUT = range(1000, 1300)
"""The notes that decide what a prompt is worth; no optimizer sees them."""
GATE_NOTES = range(2000, 2100)
"""A holdout of 100 notes, for the promotion of a winner."""
JUDGE_REQUEST = """Score the answer from 0 to 1 by what is wanted, and say what is wrong.
{note}
Answer: {answer}
Wanted: {wanted}"""
