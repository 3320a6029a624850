"""Jobs that are requests to an OpenAI endpoint: what is sent, stored and put on the ledger."""

import base64
import struct
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.errors import InvalidField
from engine.jobs.job import Job
from engine.jobs.retry import failure_of, is_transient
from engine.llm import Complaint, PermanentProviderError, UnsupportedParameter, UnusableAnswer
from engine.pricing import Prices
from tests.support.completing import Completing, completing
from tests.support.factories import NOW
from tests.support.fake_provider import Rule, fault
from tests.support.fake_provider.server import PLAIN_ANSWER

PRICES = Prices(tokens=1000, currency="EUR", input=Decimal(2), output=Decimal(5))
CHAT = "/v1/chat/completions"
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Completing]:
    with completing(tmp_path) as made:
        yield made


def chat(lab: Completing, model: str = "m", **body: Any) -> Job:
    data = {"model": "whatever", "messages": HELLO, **body}
    return lab.job(model=model, working_prompts=(), endpoint=CHAT, request_data=data)


@pytest.mark.parametrize(("sdk", "base"), [("OpenAI", "/v1"), ("Anthropic", ""), ("Gemini", "")])
def test_a_chat(lab: Completing, sdk: str, base: str) -> None:
    """The answer has OpenAI's shape by whichever vendor, under the model's name as it was asked for, and its call is on
    the ledger with its cost."""
    lab.model(deployment="vendors-name", sdk=sdk, endpoint=f"{lab.fake.url}{base}", api_version="v1beta", prices=PRICES)

    done = lab.run(chat(lab))

    [choice] = done.result["choices"]
    message = {"role": "assistant", "content": PLAIN_ANSWER, "refusal": None}
    assert choice == {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    assert (done.result["object"], done.result["model"]) == ("chat.completion", "m")
    assert done.result["id"].startswith("chatcmpl-")
    assert (done.result["usage"]["prompt_tokens"], done.result["usage"]["total_tokens"]) == (11, 18)
    [call] = done.calls
    assert (call.step, call.outcome, call.input_cost) == ("work", "ok", Decimal("0.022"))
    [seen] = lab.fake.seen.calls
    assert (seen.model, seen.system, seen.user) == ("vendors-name", "Be brief.", "Hello.")


def test_no_json_is_looked_for(lab: Completing) -> None:
    """Whatever the model says is the answer: nothing is parsed and nothing asked again."""
    lab.model("m!sentence")

    done = lab.run(chat(lab, "m!sentence"))

    assert done.result["choices"][0]["message"]["content"] == "I would rather talk about the weather today."
    assert lab.fake.seen.total == 1


def test_an_answer_that_is_nested_too_deeply(lab: Completing) -> None:
    """What can be stored and shown is; deeper than that it is an unusable answer, whose call is booked."""
    lab.model("m!deep,levels=199", sdk="OpenAI", prices=PRICES)
    lab.model("m!deep,levels=200", sdk="OpenAI", prices=PRICES)

    assert orjson.dumps(lab.run(chat(lab, "m!deep,levels=199")).result).count(b"[[") == 198 // 2
    done = lab.run(chat(lab, "m!deep,levels=200"))

    assert isinstance(done.error, UnusableAnswer)
    assert str(done.error) == "the answer is nested more than 200 levels deep"
    assert not is_transient(done.error)
    [call] = done.calls
    assert (call.outcome, call.input_cost) == ("error", Decimal("0.022"))


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {"max_tokens": 100}),
        ({"temperature": 2, "max_tokens": 10}, {"temperature": 1.5, "max_tokens": 10}),
        (
            {"max_completion_tokens": 5000, "seed": 7, "novel": {"a": 1}},
            {"max_tokens": 100, "seed": 7, "novel": {"a": 1}},
        ),
        ({"stream": True, "stream_options": {"include_usage": True}, "n": None}, {"max_tokens": 100, "n": None}),
    ],
)
def test_the_models_limits(lab: Completing, asked: dict[str, Any], sent: dict[str, Any]) -> None:
    """Temperature and token limit are brought within the model's, the limit under the name that the endpoint takes; all
    else goes through as it came."""
    lab.model(max_temperature=1.5, max_token=100)

    lab.run(chat(lab, **asked))

    assert lab.fake.seen.calls[0].body == {"model": "m", **sent}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
    ],
)
def test_a_body_that_cannot_be_read(lab: Completing, asked: dict[str, Any], param: str) -> None:
    """It is a permanent error that names the parameter, and no call."""
    lab.model()

    done = lab.run(chat(lab, **asked))

    assert isinstance(done.error, UnsupportedParameter)
    assert (done.error.param, done.error.status, done.calls) == (param, 400, ())
    assert str(done.error).startswith(f"{param}: ")
    assert lab.fake.seen.total == 0


def test_what_a_vendor_refuses_is_the_clients_to_know(lab: Completing) -> None:
    """A parameter that the client asked for is not dropped: the vendor's status and words are kept with the job."""
    lab.model("m!status,code=422")

    done = lab.run(chat(lab, "m!status,code=422", logit_bias={"1": 5}))

    assert isinstance(done.error, PermanentProviderError)
    assert not is_transient(done.error)
    failure = failure_of(done.error, 1, NOW)
    assert failure.status == 422
    assert failure.complaint == Complaint(type="invalid_request_error", code="unsupported_value", param=None)


def test_the_next_model_answers(lab: Completing) -> None:
    """Failover is as for other jobs, and the answer keeps the name that was asked for."""
    lab.model(fallbacks=("other",))
    lab.model("other", sdk="Anthropic", endpoint=lab.fake.url)
    lab.fake.add(Rule(fault("key"), model="m"))

    done = lab.run(chat(lab))

    assert done.result["model"] == "m"
    assert [call.model for call in done.calls] == ["m", "other"]


@pytest.mark.parametrize("sdk", ["Anthropic", "Gemini"])
def test_what_a_vendor_has_not_is_no_call(lab: Completing, sdk: str) -> None:
    """It is refused before the call, so that nothing is on the ledger and no fallback is asked."""
    lab.model(sdk=sdk, endpoint=lab.fake.url, fallbacks=("other",))
    lab.model("other")

    done = lab.run(chat(lab, logit_bias={"1": 5}))

    assert isinstance(done.error, UnsupportedParameter)
    assert done.calls == ()
    assert lab.fake.seen.total == 0


@pytest.mark.parametrize(("sdk", "base"), [("OpenAI", "/v1"), ("Gemini", "")])
def test_embeddings(lab: Completing, sdk: str, base: str) -> None:
    """Vectors are the result, in base64 as OpenAI's client wants them, and only input is booked."""
    lab.model(deployment="e", sdk=sdk, endpoint=f"{lab.fake.url}{base}", api_version="v1beta", prices=PRICES)
    data = {"model": "whatever", "input": ["a", "bcd"], "encoding_format": "base64"}

    done = lab.run(lab.job(working_prompts=(), endpoint="/v1/embeddings", request_data=data))

    assert (done.result["object"], done.result["model"]) == ("list", "m")
    first, second = (base64.b64decode(each["embedding"]) for each in done.result["data"])
    assert struct.unpack("<3f", first) == (1.0, 0.5, 0.5)
    assert struct.unpack("<3f", second) == (3.0, 0.5, 0.5)
    [call] = done.calls
    assert (call.input_tokens, call.output_tokens) == (2, 0)
    assert (call.input_cost, call.output_cost) == (Decimal("0.004"), Decimal(0))


def test_who_has_no_embeddings(lab: Completing) -> None:
    """Anthropic says so, and nothing is asked of it."""
    lab.model(sdk="Anthropic", endpoint=lab.fake.url)

    done = lab.run(lab.job(working_prompts=(), endpoint="/v1/embeddings", request_data={"input": "a"}))

    assert isinstance(done.error, UnsupportedParameter)
    assert "has no embeddings" in str(done.error)
    assert (done.calls, lab.fake.seen.total) == ((), 0)


def test_dimensions_that_are_no_number(lab: Completing) -> None:
    """They are refused by name, by the test provider too."""
    lab.model(sdk="test")
    data = {"input": "a", "dimensions": "many"}

    done = lab.run(lab.job(working_prompts=(), endpoint="/v1/embeddings", request_data=data))

    assert isinstance(done.error, UnsupportedParameter)
    assert done.error.param == "dimensions"


def test_an_endpoint_that_is_not_served(lab: Completing) -> None:
    """It is refused by name."""
    lab.model()

    done = lab.run(lab.job(working_prompts=(), endpoint="/v1/audio/speech", request_data={"input": "x"}))

    assert isinstance(done.error, InvalidField)
    assert "/v1/audio/speech" in str(done.error)
