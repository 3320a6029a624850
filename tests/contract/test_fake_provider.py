"""The fake provider speaks what the vendors' own SDKs understand, and does as it is told from other processes."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.benchmarks.bare_sdks import SDKS
from tests.benchmarks.stage import Provider
from tests.support.fake_provider import FakeProvider
from tests.support.fake_provider.server import PLAIN_ANSWER
from tests.support.vendors import VENDORS


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


def test_openai_stream(fake: FakeProvider) -> None:
    """OpenAI's client reads the streamed text and the usage chunk at its end."""
    import openai

    with openai.OpenAI(api_key="k", base_url=fake.openai_url, max_retries=0) as client:
        stream = client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)

    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == PLAIN_ANSWER
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 18


def test_openai_lists(fake: FakeProvider) -> None:
    """Models and embeddings answer too."""
    import openai

    with openai.OpenAI(api_key="k", base_url=fake.openai_url, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["fake-small", "fake-large"]
        made = client.embeddings.create(model="e", input=["a", "bcd"], encoding_format="float")
    assert [each.embedding[0] for each in made.data] == [1.0, 3.0]


def test_anthropic_stream(fake: FakeProvider) -> None:
    """Anthropic's client assembles the streamed message."""
    import anthropic

    with (
        anthropic.Anthropic(api_key="k", base_url=fake.url, max_retries=0) as client,
        client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as stream,
    ):
        message = stream.get_final_message()

    assert message.content[0].text == PLAIN_ANSWER
    assert message.usage.output_tokens == 7


def test_gemini_stream(fake: FakeProvider) -> None:
    """Google's client reads the streamed parts."""
    from google import genai
    from google.genai import types

    client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=fake.url, api_version="v1beta"))
    chunks = list(client.models.generate_content_stream(model="m", contents="hi"))
    client.close()

    assert "".join(chunk.text or "" for chunk in chunks) == PLAIN_ANSWER


def test_a_stream_that_breaks_off(fake: FakeProvider) -> None:
    """A scripted cut resets the connection in the middle of a stream."""
    import openai

    with openai.OpenAI(api_key="k", base_url=fake.openai_url, max_retries=0) as client:
        stream = client.chat.completions.create(
            model="m!cut", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        with pytest.raises(Exception, match=r"reset|closed|disconnect|incomplete|Connection|Errno"):
            list(stream)
    fake.seen.wait_until(lambda seen: seen.in_flight == 0)
    assert fake.seen.calls[0].outcome == "reset"


def test_as_a_process() -> None:
    """It prints its URL, takes scripts and gates over HTTP, and shows what it saw."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_provider", "--seed", "1"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        base = process.stdout.readline().strip()
        root = base.removesuffix("/v1")
        _post(f"{root}/_script", {"fault": "text", "options": {"content": "scripted"}, "containing": "x", "times": 1})

        first = _post(f"{base}/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "x"}]})
        second = _post(f"{base}/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "x"}]})

        assert first["choices"][0]["message"]["content"] == "scripted"
        assert json.loads(second["choices"][0]["message"]["content"])["answer"] == "ok"
        with urllib.request.urlopen(f"{root}/_seen", timeout=10) as answer:
            seen = json.load(answer)
        assert seen["byModel"] == {"m": 2}
        assert [call["user"] for call in seen["calls"]] == ["x", "x"]
    finally:
        process.terminate()
        process.communicate(timeout=10)
    assert process.returncode == 0


def _post(url: str, document: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


# google-genai does what aiohttp discourages.
@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
def test_the_benchmarks_provider_speaks_to_every_vendors_client() -> None:
    """The vendors' own clients, as the benchmarks call them, read the fixed answers."""

    async def called(sdk: str, url: str) -> str:
        async with SDKS[sdk](url) as call:
            return repr(await call(0))

    with closing(Provider()) as provider:
        urls = {vendor.sdk: f"{provider.url}{vendor.path}" for vendor in VENDORS if vendor.sdk in SDKS}
        answers = [asyncio.run(called(sdk, urls[sdk])) for sdk in SDKS]
        assert provider.count()["total"] == len(SDKS)
    assert all("score" in answer for answer in answers)


def test_a_meter_is_set_and_read_by_other_processes(fake: FakeProvider) -> None:
    """A model's limits count what a call's marker says that it uses; what exceeds them is refused with a wait."""
    import openai

    put = urllib.request.Request(
        f"{fake.url}/_meter/m",
        data=json.dumps({"requests": 9, "tokens": 50, "seconds": 60, "penalty": 5}).encode(),
        method="PUT",
    )
    urllib.request.urlopen(put).close()
    with openai.OpenAI(api_key="k", base_url=fake.openai_url, max_retries=0) as client:

        def ask() -> Any:
            return client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "[[usage input=20 output=10]]"}]
            )

        assert ask().usage.total_tokens == 30
        with pytest.raises(openai.RateLimitError) as refused:
            ask()
    assert refused.value.response.headers["retry-after-ms"] == "5000"
    with urllib.request.urlopen(f"{fake.url}/_meter/m") as answer:
        assert [call[1:] for call in json.load(answer)["calls"]] == [[30, True], [30, False]]
