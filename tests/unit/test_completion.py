"""What a completion job sends, stores and puts on the ledger."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.errors import LeaseLost, UnknownReference
from engine.jobs.held import Held
from engine.jobs.retry import is_transient
from engine.llm import (
    AnswerCutOff,
    AnswerRefused,
    ContentFiltered,
    ProviderRefusedKey,
    ProviderTimeout,
    QuotaExhausted,
    RateLimited,
    Timeouts,
    TransientProviderError,
    UnusableAnswer,
)
from engine.pricing import Prices
from tests.support.completing import KEY, Completing, completing
from tests.support.fake_provider import Rule, fault

PRICES = Prices(tokens=1000, currency="EUR", input=Decimal(2), output=Decimal(5))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Completing]:
    with completing(tmp_path) as made:
        yield made


def test_what_is_sent(lab: Completing) -> None:
    """Prompts joined by a blank line are the system text, requestData as indented JSON is the user text."""
    lab.model()
    job = lab.job(lab.prompt("First."), lab.prompt("Second."), request_data={"b": ["ä", 1], "a": None})

    done = lab.run(job)

    assert done.result == {"answer": "ok", "score": 1}
    (call,) = lab.fake.seen.calls
    assert call.system == "First.\n\nSecond."
    assert call.user == '{\n  "b": [\n    "ä",\n    1\n  ],\n  "a": null\n}'
    assert call.attempt_id == f"{job.id}-{done.job.token}-work-1"


@pytest.mark.parametrize(("wanted", "sent"), [(0.0, 0.25), (0.5, 0.5), (2.0, 0.75)])
def test_the_temperature_is_clamped(lab: Completing, wanted: float, sent: float) -> None:
    """It is brought within the model's range."""
    lab.model(min_temperature=0.25, max_temperature=0.75)

    lab.run(lab.job(temperature=wanted))

    assert lab.fake.seen.calls[0].body["temperature"] == sent


@pytest.mark.parametrize(
    ("limits", "sent"),
    [
        ({"max_token": 10, "max_completion_token": 20}, 20),
        ({"max_token": 10}, 10),
        ({"max_completion_token": 20}, 20),
        ({}, None),
    ],
)
def test_the_token_limit(lab: Completing, limits: dict[str, int], sent: int | None) -> None:
    """maxCompletionToken, else maxToken, else none."""
    lab.model(**limits)

    lab.run(lab.job())

    assert lab.fake.seen.calls[0].body.get("max_tokens") == sent


@pytest.mark.parametrize(("limits", "sent"), [({"max_token": 10}, 7), ({"max_token": 5}, 5), ({}, 7)])
def test_the_token_limit_of_a_job(lab: Completing, limits: dict[str, int], sent: int) -> None:
    """A job may be held to shorter answers than its model gives, never allowed longer ones."""
    lab.model(**limits)

    lab.run(lab.job(most_output=7))

    assert lab.fake.seen.calls[0].body["max_tokens"] == sent


def test_a_call_on_the_ledger(lab: Completing) -> None:
    """A good call is recorded with its tokens, its time and what it cost by the model's prices."""
    lab.model("m!usage,input=300,output=100,cached=200,reasoning=50", prices=PRICES)

    done = lab.run(lab.job(model="m!usage,input=300,output=100,cached=200,reasoning=50"))

    (call,) = done.calls
    assert (call.step, call.outcome, call.error_type) == ("work", "ok", None)
    assert (call.input_tokens, call.output_tokens) == (300, 100)
    assert (call.cached_input_tokens, call.reasoning_tokens) == (200, 50)
    assert (call.input_cost, call.output_cost, call.currency) == (Decimal("0.6"), Decimal("0.5"), "EUR")
    assert call.request_id == "req_fake"
    assert call.duration > 0


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        ("list", {"value": ["a", "b"]}),
        ("scalar", {"value": 42}),
        ("broken", {"answer": "broken", "items": [1, 2], "n": 3}),
        ("prose", {"answer": "prose"}),
    ],
)
def test_answers_that_can_be_used(lab: Completing, kind: str, result: dict[str, Any]) -> None:
    """Lists and scalars are valid results; broken JSON and JSON between words are repaired."""
    lab.model(f"m!{kind}")

    assert lab.run(lab.job(model=f"m!{kind}")).result == result


@pytest.mark.parametrize(
    ("kind", "error", "raw"),
    [
        ("sentence", UnusableAnswer, "I would rather talk about the weather today."),
        ("empty", UnusableAnswer, ""),
        ("length", AnswerCutOff, '{"answer": "this goes on and o'),
        ("content_filter", ContentFiltered, '{"answer": "filt'),
        ("refusal", AnswerRefused, "I cannot help with that."),
    ],
)
def test_answers_that_cannot(lab: Completing, kind: str, error: type[UnusableAnswer], raw: str) -> None:
    """They are permanent errors that keep the raw text, and what they cost is booked."""
    lab.model(f"m!{kind}", prices=PRICES)

    done = lab.run(lab.job(model=f"m!{kind}"))

    assert isinstance(done.error, UnusableAnswer)
    assert type(done.error) is error
    assert done.error.raw == raw
    assert not is_transient(done.error)
    (call,) = done.calls
    assert (call.outcome, call.error_type) == ("error", error.__name__)
    assert (call.input_tokens, call.input_cost) == (11, Decimal("0.022"))


def test_text(lab: Completing) -> None:
    """Under responseFormat text any answer is a result."""
    lab.model("m!sentence")

    done = lab.run(lab.job(model="m!sentence", response_format="text"))

    assert done.result == {"text": "I would rather talk about the weather today."}


@pytest.mark.parametrize(
    ("kind", "error", "outcome"),
    [
        ("status,code=503", TransientProviderError, "error"),
        ("rate_limit,seconds=3", RateLimited, "error"),
        ("quota", QuotaExhausted, "error"),
        ("key", ProviderRefusedKey, "error"),
        ("reset", TransientProviderError, "unknown"),
        ("cut", TransientProviderError, "unknown"),
        ("truncated", TransientProviderError, "unknown"),
        ("not_json", TransientProviderError, "unknown"),
        ("hang", ProviderTimeout, "unknown"),
    ],
)
def test_a_failed_call_on_the_ledger(lab: Completing, kind: str, error: type[Exception], outcome: str) -> None:
    """A call that failed is recorded too: `unknown` where it was sent and no answer came that can be read, since it may
    be charged."""
    lab.model(f"m!{kind}")

    done = asyncio.run(lab.handled(lab.claimed(lab.job(model=f"m!{kind}")), timeouts=Timeouts(read=0.25, total=5)))

    assert type(done.error) is error
    (call,) = done.calls
    assert (call.outcome, call.error_type) == (outcome, error.__name__)
    assert (call.input_tokens, call.input_cost, call.currency) == (None, None, None)


def test_a_call_that_never_left(lab: Completing) -> None:
    """Without a connection nothing can have been charged: an error, not unknown."""
    lab.model(endpoint="http://127.0.0.1:1/v1")

    done = lab.run(lab.job())

    assert isinstance(done.error, TransientProviderError)
    assert done.calls[0].outcome == "error"


def test_a_cancelled_call(lab: Completing) -> None:
    """A job that is taken away in a call closes the call, records it as unknown and lets the cancellation pass."""
    lab.model("m!hang")

    async def cancel(attempt: "asyncio.Future[Any]", work: Held) -> None:
        await asyncio.to_thread(lab.fake.seen.wait_until, lambda seen: seen.in_flight == 1)
        attempt.cancel()

    done = asyncio.run(lab.handled(lab.claimed(lab.job(model="m!hang")), meanwhile=cancel))

    assert isinstance(done.error, asyncio.CancelledError)
    assert (done.calls[0].outcome, done.calls[0].error_type) == ("unknown", "CancelledError")
    lab.fake.seen.wait_until(lambda seen: seen.hung_up == 1)


def test_no_call_on_an_uncertain_lease(lab: Completing) -> None:
    """When the lease can have run out, nothing is called."""
    lab.model()
    job = lab.claimed(lab.job())

    async def run() -> None:
        work, handler = lab.held(job), lab.handler()
        work.good_until = lab.clock.monotonic() - 1
        with pytest.raises(LeaseLost):
            await handler.handle(work)
        await handler.aclose()

    asyncio.run(run())
    assert lab.fake.seen.total == 0


@pytest.mark.parametrize("missing", ["model", "prompt"])
def test_a_missing_reference(lab: Completing, missing: str) -> None:
    """A model or prompt that is gone is a permanent error naming it and what to do."""
    prompt = lab.prompt()
    lab.model("another" if missing == "model" else "m")
    job = lab.job(working_prompts=(prompt.id, "0" * 24 if missing == "prompt" else prompt.id))

    done = lab.run(job)

    assert isinstance(done.error, UnknownReference)
    assert not is_transient(done.error)
    assert str(done.error).startswith(f"{missing} not found: {'m' if missing == 'model' else '0' * 24} (")
    assert done.calls == ()


def test_a_missing_key(lab: Completing) -> None:
    """Without a key nothing is called; the error names the variables that would hold it."""
    lab.model(name="my-model", key="other key", service="vault")
    lab.environment.clear()

    done = lab.run(lab.job(model="my-model"))

    assert isinstance(done.error, ProviderRefusedKey)
    assert not is_transient(done.error)
    assert "OTHER_KEY or MY_MODEL_KEY" in str(done.error)
    assert "vault" in str(done.error)
    assert lab.fake.seen.total == 0


def test_the_key_is_read_at_call_time(lab: Completing) -> None:
    """A key that appears while the service runs is used at once, no restart."""
    lab.model()
    lab.environment.clear()
    first = lab.run(lab.job())
    lab.environment["M_KEY"] = KEY

    second = lab.run(lab.job())

    assert isinstance(first.error, ProviderRefusedKey)
    assert second.completed is not None


def test_an_unknown_sdk(lab: Completing) -> None:
    """A model of a plug-in that is no longer installed is a permanent error naming the sdk."""
    lab.model(sdk="GonePlugin")

    done = lab.run(lab.job())

    assert isinstance(done.error, UnknownReference)
    assert "GonePlugin" in str(done.error)


def test_the_test_provider(lab: Completing) -> None:
    """It needs no key and no network, and is priced like any other."""
    lab.environment.clear()
    lab.model(sdk="test", endpoint="none", prices=PRICES)

    done = lab.run(lab.job())

    assert done.result["status"] == "ok"
    assert (done.calls[0].input_tokens, done.calls[0].output_tokens) == (1, 1)
    assert done.calls[0].input_cost == Decimal("0.002")


def test_many_jobs_read_their_model_once(lab: Completing) -> None:
    """A hundred jobs at a time ask the storage for their model, its news, their prompts and their client once."""
    lab.model()
    prompt = lab.prompt()
    jobs = [lab.claimed(lab.job(prompt)) for _ in range(100)]
    reads: list[str] = []
    inner = lab.hop

    async def counting(function: Any, /, *args: Any, **kwargs: Any) -> Any:
        reads.append(function.__qualname__)
        return await inner(function, *args, **kwargs)

    lab.hop = counting  # type: ignore[assignment]

    async def run() -> None:
        handler = lab.handler()
        await asyncio.gather(*(handler.handle(lab.held(job)) for job in jobs))
        await handler.aclose()

    asyncio.run(run())
    assert lab.fake.seen.total == 100
    assert len(reads) == 4


def test_scripted_recovery(lab: Completing) -> None:
    """One attempt makes one call: a transient failure ends it, and the next attempt is a new call with its own id."""
    lab.model()
    lab.fake.add(Rule(fault("status", code=500), times=1))

    first = lab.run(lab.job())
    second = lab.run(lab.job())

    assert isinstance(first.error, TransientProviderError)
    assert second.completed is not None
    assert lab.fake.seen.total == 2
    assert len(lab.fake.seen.by_attempt) == 2
