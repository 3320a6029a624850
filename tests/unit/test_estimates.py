"""How many tokens a call will take, guessed before it is made."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.llm import CompletionRequest, Endpoint, Turn, Usage
from llm_workers.estimates import Estimator


def request(characters: int = 4000, **fields: Any) -> CompletionRequest:
    endpoint = Endpoint(sdk="test", base_url="", deployment="m")
    return CompletionRequest(endpoint=endpoint, system="", user="x" * characters, **fields)


def test_the_first_guess_is_high() -> None:
    """Before anything is known it is above what English takes, at four characters a token, with a short answer."""
    assert 1000 + 200 < Estimator().estimate(request(4000)) < 2500


def test_an_answer_is_no_longer_than_is_allowed() -> None:
    """The token limit of a call bounds what is reserved for its answer."""
    estimator = Estimator()

    assert estimator.estimate(request(max_tokens=10)) == estimator.estimate(request()) - 502


def test_all_turns_count() -> None:
    """What was said since is sent along, and counted like the prompts."""
    turns = (Turn("assistant", "y" * 1000), Turn("user", "z" * 2000))

    assert Estimator().estimate(request(1000, turns=turns)) == Estimator().estimate(request(4000))


@pytest.mark.parametrize(("per_token", "answer"), [(4.0, 50), (1.2, 700), (6.0, 3)])
def test_it_learns_what_calls_take(per_token: float, answer: int) -> None:
    """After some calls it is above what they take and within a quarter of it, whatever the language."""
    estimator = Estimator()
    rng = random.Random(1)
    for _ in range(100):
        size = rng.randint(500, 8000)
        used = Usage(input_tokens=int(size / per_token), output_tokens=answer + rng.randint(-1, 1))
        estimator.learn(request(size), used)

    actual = 4000 / per_token + answer
    assert actual <= estimator.estimate(request(4000)) <= 1.25 * actual


def test_it_follows_a_change() -> None:
    """When answers become longer it has caught up after some dozen calls."""
    estimator = Estimator()
    for answer in (20, 2000):
        for _ in range(100):
            estimator.learn(request(), Usage(input_tokens=1000, output_tokens=answer))

    assert estimator.estimate(request()) >= 1000 + 2000 * 0.95


def test_nothing_is_learned_from_a_call_without_usage() -> None:
    """Vendors that tell no tokens leave the guess as it was."""
    estimator = Estimator()
    before = estimator.estimate(request())
    estimator.learn(request(), Usage())

    assert estimator.estimate(request()) == before


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10**7), st.integers(0, 10**7)), max_size=20))
def test_an_estimate_is_always_a_number(seen: list[tuple[int, int, int]]) -> None:
    """Whatever vendors claim to have counted, estimates stay positive."""
    estimator = Estimator()
    for characters, given_tokens, answered in seen:
        estimator.learn(request(characters), Usage(input_tokens=given_tokens, output_tokens=answered))

    assert estimator.estimate(request(100)) > 0
