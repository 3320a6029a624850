"""Requests to Anthropic's Messages API as they are sent on, and streamed messages added up."""

from typing import Any

import pytest

from api.services.said_again import events_of
from engine.llm import UnsupportedParameter, Usage
from llm_workers.messages import MESSAGES, characters_in_messages, size_of_event, text_in_event
from llm_workers.prompting import request_to
from llm_workers.providers.anthropic_messages import MessageEvents, message_body, read_message
from llm_workers.providers.chat_chunks import size_of, text_in
from tests.support.factories import make_model

ASKED: dict[str, Any] = {"model": "mine", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}


def request(body: dict[str, Any], **model: Any) -> Any:
    made = make_model(sdk="Anthropic", deployment="theirs", **model)
    return request_to(MESSAGES, made, "k", body=body, attempt_id="a", timeouts=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("limit", "sent"), [(None, 50), (20, 20), (100, 50)])
def test_limits_are_the_models(limit: int | None, sent: int) -> None:
    """The smaller of the client's token limit and the model's is sent, a temperature within the model's range where the
    client gives one, everything else as it came, and no word of streaming."""
    model = {"max_token": limit, "max_completion_token": None, "min_temperature": 0.0, "max_temperature": 0.5}
    body = message_body(request({**ASKED, "stream": True, "top_k": 3, "odd": [None]}, **model))
    assert body == {**ASKED, "model": "theirs", "max_tokens": sent, "top_k": 3, "odd": [None]}
    assert message_body(request({**ASKED, "temperature": 0.9}, **model))["temperature"] == 0.5


@pytest.mark.parametrize("limit", [None, 0, -1, True, 1.5, "5"])
def test_a_limit_is_needed(limit: object) -> None:
    """Anthropic's API asks for one; what is none is refused by its name before anything is sent."""
    with pytest.raises(UnsupportedParameter) as raised:
        request({**ASKED, "max_tokens": limit})
    assert raised.value.param == "max_tokens"


def test_what_there_is_to_read_is_estimated() -> None:
    """Texts count by their length, pictures and documents as about a thousand tokens, tools as they are written."""
    blocks = [{"type": "text", "text": "x" * 10}, {"type": "image", "source": {}}]
    plain = characters_in_messages({**ASKED, "system": [{"type": "text", "text": "12345"}]})
    assert plain == 10
    assert characters_in_messages({"messages": [{"role": "user", "content": blocks}]}) == 3010
    assert characters_in_messages({**ASKED, "tools": [{"name": "look"}]}) > plain
    result = {
        "type": "tool_result",
        "tool_use_id": "toolu",
        "content": [{"type": "image", "source": {"data": "x" * 9999}}],
    }
    text = {"type": "document", "source": {"type": "text", "data": "x" * 5000}}
    inside = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "12"}, blocks[1]]}}
    for block, weight in ((result, 3000), (text, 5000), (inside, 3002)):
        assert characters_in_messages({"messages": [{"role": "user", "content": [block]}]}) == weight


def delta(index: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def begin(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {"id": "msg", "role": "assistant", "content": [], "usage": {"input_tokens": 7}},
    },
    {"type": "ping"},
    begin(0, type="thinking", thinking="", signature=""),
    delta(0, type="thinking_delta", thinking="Let me "),
    delta(0, type="thinking_delta", thinking="see."),
    delta(0, type="signature_delta", signature="sig"),
    {"type": "content_block_stop", "index": 0},
    begin(1, type="text", text=""),
    delta(1, type="text_delta", text="It "),
    delta(1, type="citations_delta", citation={"cited_text": "rain"}),
    delta(1, type="text_delta", text="rains."),
    {"type": "content_block_stop", "index": 1},
    begin(2, type="tool_use", id="toolu", name="look", input={}),
    delta(2, type="input_json_delta", partial_json='{"at": '),
    delta(2, type="input_json_delta", partial_json='"it"}'),
    {"type": "content_block_stop", "index": 2},
    begin(3, type="tool_use", id="toolu_2", name="wait", input={}),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 9},
    },
    {"type": "message_stop"},
]


def test_a_streamed_message_is_the_whole_one() -> None:
    """Each event but the last is a piece as it came; together they make the message that would have come without
    streaming."""
    fold = MessageEvents()
    for event in EVENTS[:-1]:
        assert not fold.ended
        assert fold.feed(event) == event
    assert fold.feed(EVENTS[-1]) is None
    assert fold.ended
    completion = read_message(fold.document(""), request(ASKED))
    assert completion.body == {
        "id": "msg",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Let me see.", "signature": "sig"},
            {"type": "text", "text": "It rains.", "citations": [{"cited_text": "rain"}]},
            {"type": "tool_use", "id": "toolu", "name": "look", "input": {"at": "it"}},
            {"type": "tool_use", "id": "toolu_2", "name": "wait", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 9},
    }
    assert (completion.text, completion.finish_reason) == ("It rains.", "tool_use")
    assert completion.usage == Usage(input_tokens=7, output_tokens=9)


def test_what_is_said_again() -> None:
    """The events made of a whole answer add up to it, whatever its blocks; what no delta tells is there at once."""
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "odd", "text": "kept"}]}
    blocks = [
        {"type": "thinking", "thinking": "Let me see.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xx"},
        {"type": "text", "text": "It rains.", "citations": [{"cited_text": "rain"}, {"cited_text": "wet"}]},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "toolu", "name": "look", "input": {"at": "it"}},
        {"type": "tool_use", "id": "toolu_2", "name": "wait", "input": {}},
        result,
    ]
    usage = {"input_tokens": 7, "output_tokens": 9}
    answer = {"id": "msg", "type": "message", "content": blocks, "stop_reason": "end_turn", "usage": usage}

    said = list(events_of(answer))

    fold = MessageEvents()
    for event in [*said, EVENTS[-1]]:
        fold.feed(event)
    assert fold.ended
    assert fold.document("") == answer
    assert "".join(map(text_in_event, said)) == "It rains."
    assert [event["content_block"] for event in said if event["type"] == "content_block_start"][-1] == result


def test_what_the_pieces_say() -> None:
    """Text is the answer's own; thoughts and arguments count where it is guessed what a part of an answer cost."""
    assert "".join(map(text_in_event, EVENTS)) == "".join(map(text_in, EVENTS)) == "It rains."
    assert sum(map(size_of_event, EVENTS)) == sum(map(size_of, EVENTS)) == len('Let me see.It rains.{"at": "it"}')


def test_arguments_that_broke_off() -> None:
    """They are an empty object, so that what did come can be read."""
    fold = MessageEvents()
    for event in EVENTS[:14]:
        fold.feed(event)
    assert fold.document("")["content"][2]["input"] == {}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message_start", "message": []},
        {"type": "content_block_start", "index": 0, "content_block": "text"},
        delta(1, type="text_delta", text=None),
        {"type": "content_block_delta", "index": 1, "delta": "text"},
        {"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "message_delta", "delta": None},
    ],
)
def test_odd_events_are_told_as_such(event: dict[str, Any]) -> None:
    """They raise what providers take for an answer of a strange shape, before anything of them is handed on."""
    fold = MessageEvents()
    for each in EVENTS[:8]:
        fold.feed(each)
    with pytest.raises((TypeError, KeyError)):
        fold.feed(event)
