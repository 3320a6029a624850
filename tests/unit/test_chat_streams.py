"""Chats that are streamed: chunks to the reader, text and calls on the record."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.services.said_again import chunks_of
from engine.errors import MetasyncError
from engine.llm import JsonObject, UnsupportedParameter
from engine.records.streams import Stream, StreamStatus
from llm_workers.catalogue import Catalogue
from llm_workers.lanes import Lanes
from llm_workers.providers.chat_chunks import ChatFold, size_of, text_in
from llm_workers.providers.registry import ProviderSet, Registry
from llm_workers.streaming import Streaming, StreamTerms
from llm_workers.wallets import Wallets
from tests.support.completing import Completing, completing
from tests.support.factories import NOW, make_stream
from tests.support.fake_provider import Rule, fault
from tests.support.fake_provider.server import PLAIN_ANSWER
from utilities.secrets import ProviderSecrets

HELLO = {"role": "user", "content": "Hello."}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Completing]:
    with completing(tmp_path) as made:
        yield made


@dataclass
class Read:
    """What a reader got, and what was stored."""

    chunks: list[Any]
    error: MetasyncError | None
    stream: Stream

    @property
    def text(self) -> str:
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in self.chunks)


def read(lab: Completing, stop_after: int | None = None, *, repeatable: bool = False, **body: Any) -> Read:
    """A chat of model `m`, read to its end, or hung up on after so many chunks."""
    chat = {"messages": [HELLO], **body}
    stream = make_stream(model="m", user_prompt="", lease=None, chat=chat, repeatable=repeatable)

    async def run() -> Read:
        streaming = streaming_of(lab)
        live = await streaming.open(stream)
        chunks: list[Any] = []
        error: MetasyncError | None = None
        try:
            while (piece := await live.next()) is not None:
                chunks.append(piece)
                if len(chunks) == stop_after:
                    live.hang_up()
        except MetasyncError as failed:
            error = failed
        await streaming.aclose()
        stored = lab.storage.streams.get(stream.id)
        assert stored is not None
        return Read(chunks, error, stored)

    return asyncio.run(run())


def streaming_of(lab: Completing) -> Streaming:
    return Streaming(
        StreamTerms(replica="test"),
        store=lab.storage.streams,
        providers=ProviderSet(Registry()),
        catalogue=Catalogue(
            models=lab.storage.models,
            prompts=lab.storage.prompts,
            evaluators=lab.storage.evaluators,
            hop=lab.hop,
            clock=lab.clock,
        ),
        secrets=ProviderSecrets(lab.environment),
        clock=lab.clock,
        hop=lab.hop,
        lanes=Lanes(lab.storage, clock=lab.clock, hop=lab.hop, replica="test"),
        wallets=Wallets(lab.storage, clock=lab.clock, hop=lab.hop, replica="test"),
    )


@pytest.mark.parametrize(("sdk", "base"), [("OpenAI", "/v1"), ("Anthropic", ""), ("Gemini", "")])
def test_chunks_and_record(lab: Completing, sdk: str, base: str) -> None:
    """The reader gets OpenAI's chunks by whichever vendor; the record has the text, the chat as asked and the call."""
    lab.model(sdk=sdk, endpoint=f"{lab.fake.url}{base}", api_version="v1beta")

    got = read(lab, max_tokens=9, stop="x")

    assert got.error is None
    assert got.text == got.stream.text == PLAIN_ANSWER
    assert got.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert not {"id", "model", "usage", "created", "object"} & set().union(*got.chunks)
    assert got.stream.status is StreamStatus.COMPLETED
    assert got.stream.chat == {"messages": [HELLO], "max_tokens": 9, "stop": "x"}
    [call] = got.stream.calls
    assert (call.step, call.outcome, call.input_tokens, call.output_tokens) == ("stream", "ok", 11, 7)


def test_the_next_model_streams(lab: Completing) -> None:
    """As long as nothing was said another model can answer, another vendor's too: a role alone says nothing."""
    lab.model(fallbacks=("other",))
    lab.model("other", sdk="Anthropic", endpoint=lab.fake.url)
    lab.fake.add(Rule(fault("key"), model="m"))

    got = read(lab)

    assert got.text == PLAIN_ANSWER
    assert [call.model for call in got.stream.calls] == ["m", "other"]


def test_one_who_hangs_up(lab: Completing) -> None:
    """The record has the text so far and a guess at what it cost."""
    lab.model()
    lab.fake.add(Rule(fault("drip", seconds=0.02)))

    got = read(lab, stop_after=3)

    assert got.stream.status is StreamStatus.ERROR
    assert got.text[:8] == got.stream.text[:8] == PLAIN_ANSWER[:8]
    [call] = got.stream.calls
    assert call.output_tokens is not None
    assert call.output_tokens > 0


@pytest.mark.parametrize(("sdk", "base"), [("OpenAI", "/v1"), ("Anthropic", ""), ("Gemini", "")])
def test_what_can_be_said_again(lab: Completing, sdk: str, base: str) -> None:
    """A repeatable stream keeps its whole answer, and chunks made of it add up to that again, calls of tools too."""
    lab.model(sdk=sdk, endpoint=f"{lab.fake.url}{base}", api_version="v1beta")
    lab.fake.add(Rule(fault("tools")))
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]

    answer = read(lab, repeatable=True, tools=tools).stream.answer

    assert answer is not None
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert {**answer, **summed(chunks_of(answer))} == answer


def test_chunks_of_all_that_an_answer_may_have() -> None:
    """Choices, log probabilities, refusals and fields that only its vendor has are told; what is empty is not."""
    message = {"role": "assistant", "content": "Hi", "refusal": None, "reasoning": "Because."}
    answer = {
        "id": "a",
        "system_fingerprint": "fp",
        "choices": [
            {"index": 0, "message": message, "logprobs": {"content": [{"token": "Hi"}]}, "finish_reason": "stop"},
            {"index": 1, "message": {**message, "content": None, "refusal": "No."}, "finish_reason": "length"},
        ],
    }
    first, *_, last = chunks = list(chunks_of(answer))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "Hi", "reasoning": "Because."}
    assert last == {"system_fingerprint": "fp", "choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}
    assert summed(chunks)["choices"] == [answer["choices"][0], {**answer["choices"][1], "logprobs": None}]


def summed(chunks: Iterable[JsonObject]) -> JsonObject:
    """What chunks add up to, but for what comes from elsewhere."""
    fold = ChatFold(lambda chunk: chunk, NOW)
    for chunk in chunks:
        fold.feed(chunk)
    whole = fold.document("")
    return {name: value for name, value in whole.items() if name not in ("id", "created", "model", "usage")}


def test_what_is_not_kept(lab: Completing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole answer to a stream that nobody may ask for again, and one that no document could hold: the stream ends
    as well as any other."""
    lab.model()
    assert read(lab).stream.answer is None
    monkeypatch.setattr("llm_workers.streaming.LONGEST_TEXT", 10)
    got = read(lab, repeatable=True)
    assert (got.stream.status, got.stream.answer, got.text) == (StreamStatus.COMPLETED, None, PLAIN_ANSWER)


def test_how_much_was_said() -> None:
    """A chat's text is the first choice's, but all that was said counts: other choices, arguments of tools."""
    function = {"name": "f", "arguments": "12345"}
    chunk = {
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": "abc"}},
            {"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": function}]}},
            {"index": 1, "delta": {"content": "de"}},
        ]
    }

    assert text_in(chunk) == "abc"
    assert size_of(chunk) == 3 + 5 + 2


def test_what_the_vendor_has_not(lab: Completing) -> None:
    """It is the stream's error before the first chunk, with the parameter's name, and on the record with its status."""
    lab.model(sdk="Anthropic", endpoint=lab.fake.url)

    got = read(lab, n=2)

    assert isinstance(got.error, UnsupportedParameter)
    assert got.error.param == "n"
    assert (got.chunks, got.stream.calls) == ([], ())
    assert got.stream.failure is not None
    assert got.stream.failure.status == 400
    assert got.stream.failure.complaint is not None
    assert got.stream.failure.complaint.param == "n"
