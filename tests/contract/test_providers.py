"""One suite for all providers, each against a local server that speaks its vendor's wire format.

To add a provider: its wire format in tests/support/fake_provider/wire, and a line in tests.support.vendors.VENDORS.
"""

import asyncio
import logging
import socket
import threading
from dataclasses import replace
from datetime import timedelta

import orjson
import pytest

from engine.llm import (
    Completion,
    Endpoint,
    PermanentProviderError,
    ProviderError,
    ProviderRefusedKey,
    ProviderTimeout,
    QuotaExhausted,
    RateLimited,
    TransientProviderError,
    Usage,
)
from llm_workers.providers.registry import ProviderSet, Registry
from tests.support.fake_provider import FakeProvider
from tests.support.fake_provider.server import PLAIN_ANSWER
from tests.support.vendors import KEY, TINY, Vendor, answer, asked, complete, error, shown_by, wrong


def test_completion(vendor: Vendor, fake: FakeProvider) -> None:
    """System and user text arrive as separate messages, the answer and what it used come back."""
    result = answer(asked(vendor.endpoint(fake)))

    assert result.text == PLAIN_ANSWER
    assert result.usage == Usage(input_tokens=11, output_tokens=7)
    assert result.request_id == "req_fake"
    (call,) = fake.seen.calls
    assert (call.model, call.system, call.user) == ("m", "Answer as JSON.", '{"text": "hello"}')
    assert call.attempt_id == ("attempt-1" if vendor.takes_attempt_id else "")


def test_usage(vendor: Vendor, fake: FakeProvider) -> None:
    """Cached tokens are part of the input and reasoning tokens part of the output, however the vendor counts them."""
    result = answer(asked(vendor.endpoint(fake, "m!usage,input=100,output=60,cached=40,reasoning=25")))

    assert result.usage == Usage(input_tokens=100, output_tokens=60, cached_input_tokens=40, reasoning_tokens=25)


def test_no_system_prompt(vendor: Vendor, fake: FakeProvider) -> None:
    """Without a system text, temperature and limit nothing empty is sent in their place."""
    endpoint = vendor.endpoint(fake)
    answer(asked(endpoint, system="", temperature=None, max_tokens=None, response_format="text"))

    (call,) = fake.seen.calls
    assert call.system == ""
    sent = orjson.dumps(call.body).decode()
    assert "null" not in sent
    assert "emperature" not in sent


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status,code=400", PermanentProviderError),
        ("status,code=403", ProviderRefusedKey),
        ("status,code=404", PermanentProviderError),
        ("status,code=408", TransientProviderError),
        ("status,code=422", PermanentProviderError),
        ("status,code=500", TransientProviderError),
        ("status,code=502,html=1", TransientProviderError),
        ("status,code=503", TransientProviderError),
        ("status,code=529", TransientProviderError),
        ("rate_limit", RateLimited),
        ("quota", QuotaExhausted),
        ("key", ProviderRefusedKey),
        ("reset", TransientProviderError),
        ("cut", TransientProviderError),
        ("truncated", TransientProviderError),
        ("not_json", TransientProviderError),
        ("belated,code=502", TransientProviderError),
        ("belated,code=429", RateLimited),
        ("belated,code=402", QuotaExhausted),
    ],
)
def test_error_classes(vendor: Vendor, fake: FakeProvider, fault: str, kind: type[ProviderError]) -> None:
    """Each way to fail is exactly one class of error, made by one call: nothing is repeated unasked."""
    problem = wrong(vendor, fake, fault)

    assert type(problem) is kind
    assert fake.seen.total == 1
    assert KEY not in str(problem)


@pytest.mark.parametrize("fault", ["no_choices", "length", "content_filter", "refusal"])
def test_a_useless_answer_is_paid_for(vendor: Vendor, fake: FakeProvider, fault: str) -> None:
    """An answer that cannot be used says why, as far as the vendor does; it still tells what it cost, and its text is
    kept. An answer without a choice is a glitch that may pass."""
    problem = wrong(vendor, fake, fault)

    assert type(problem) is (TransientProviderError if fault == "no_choices" else vendor.unusable(fault))
    assert fake.seen.total == 1
    assert problem.usage == Usage(input_tokens=11, output_tokens=7)
    assert problem.request_id == "req_fake"
    assert problem.raw


def test_a_text_may_be_cut_off(vendor: Vendor, fake: FakeProvider) -> None:
    """Under responseFormat text an answer that ended at the token limit is an answer."""
    result = answer(asked(vendor.endpoint(fake, "m!length"), response_format="text"))

    assert result.text.endswith("goes on and o")


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        ("rate_limit", None),
        ("rate_limit,seconds=0", 0.0),
        ("rate_limit,seconds=7", 7.0),
        ("rate_limit,seconds=1.5", 1.5),
        ("rate_limit,seconds=600", 600.0),
        ("rate_limit,ms=1250", 1.25),
        ("rate_limit,seconds=9,ms=1250", 1.25),
        ("rate_limit,seconds=-3", 0.0),
        ("rate_limit,seconds=soon", None),
        ("rate_limit,seconds=inf", None),
        ("rate_limit,seconds=99999999999", 86400.0),
        ("status,code=503,seconds=30", 30.0),
    ],
)
def test_retry_after(vendor: Vendor, fake: FakeProvider, fault: str, wait: float | None) -> None:
    """Retry-After is understood in seconds and milliseconds, over two minutes too; nonsense counts as not said."""
    problem = wrong(vendor, fake, fault)

    assert problem.retry_after == (None if wait is None else timedelta(seconds=wait))


@pytest.mark.parametrize("seconds", [-30, 40, 300])
def test_retry_after_date(vendor: Vendor, fake: FakeProvider, seconds: int) -> None:
    """An HTTP date is the time until then; one in the past is no wait."""
    problem = wrong(vendor, fake, f"rate_limit,date={seconds}")

    assert problem.retry_after is not None
    assert abs(problem.retry_after.total_seconds() - max(seconds, 0)) <= 1


@pytest.mark.parametrize(
    ("fault", "which"),
    [("hang", "first-byte timeout"), ("drip,seconds=1", "idle timeout"), ("drip,seconds=0.1", "total")],
)
def test_timeouts(vendor: Vendor, fake: FakeProvider, fault: str, which: str) -> None:
    """A call that gets no byte, no further byte, or bytes for too long ends in an error that says which it was."""
    problem = wrong(vendor, fake, fault, timeouts=TINY)

    assert type(problem) is ProviderTimeout
    assert which in str(problem)
    assert problem.sent
    fake.seen.wait_until(lambda seen: seen.hung_up == 1)


def test_connect_timeout(vendor: Vendor) -> None:
    """A server that takes no connection: the error says so, and that nothing was sent."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        fillers = [_connecting(port) for _ in range(4)]
        endpoint = Endpoint(
            sdk=vendor.sdk, base_url=f"http://127.0.0.1:{port}", deployment="m", api_version=vendor.version, key=KEY
        )

        problem = error(asked(endpoint, timeouts=TINY))

        for filler in fillers:
            filler.close()
    assert type(problem) is ProviderTimeout
    assert "connect timeout" in str(problem)
    assert not problem.sent


def _connecting(port: int) -> socket.socket:
    """A connection that fills the listener's queue."""
    filler = socket.socket()
    filler.setblocking(False)
    filler.connect_ex(("127.0.0.1", port))
    return filler


def test_nobody_listens(vendor: Vendor) -> None:
    """A refused connection is transient, and known not to have cost anything."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = Endpoint(
        sdk=vendor.sdk, base_url=f"http://127.0.0.1:{port}", deployment="m", api_version=vendor.version, key=KEY
    )

    problem = error(asked(endpoint))

    assert type(problem) is TransientProviderError
    assert not problem.sent


def test_reset_before_the_request_was_read(vendor: Vendor, fake: FakeProvider) -> None:
    """A connection that is reset as it is accepted is a transient error; the next call goes through."""
    fake.reset_next_connections(1)

    first, second = complete(asked(vendor.endpoint(fake)), asked(vendor.endpoint(fake)))

    assert type(first) is TransientProviderError
    assert isinstance(second, Completion)


def test_cancellation_closes_the_connection(vendor: Vendor, fake: FakeProvider) -> None:
    """A cancelled call is seen by the vendor as a caller that hung up."""
    request = asked(vendor.endpoint(fake, "m!hang"))

    async def run() -> None:
        providers = ProviderSet(Registry())
        provider = await providers.get(vendor.sdk)
        call = asyncio.ensure_future(provider.complete(request))
        await asyncio.to_thread(fake.seen.wait_until, lambda seen: seen.in_flight == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.to_thread(fake.seen.wait_until, lambda seen: seen.hung_up == 1)
        await providers.aclose()

    asyncio.run(run())


def test_connections_are_kept(vendor: Vendor, fake: FakeProvider) -> None:
    """Fifty calls at a time share a pool: all are in flight together, and a second wave needs no new connection."""
    request = asked(vendor.endpoint(fake))

    async def run() -> None:
        providers = ProviderSet(Registry())
        provider = await providers.get(vendor.sdk)
        for wave in (1, 2):
            fake.hold()
            calls = [asyncio.ensure_future(provider.complete(request)) for _ in range(50)]
            await asyncio.to_thread(fake.seen.wait_until, lambda seen, wave=wave: seen.total == 50 * wave)
            fake.release()
            await asyncio.gather(*calls)
        await providers.aclose()

    before = fake.connections
    asyncio.run(run())
    assert fake.seen.max_in_flight == 50
    assert fake.connections - before == 50


def test_a_large_request(vendor: Vendor, fake: FakeProvider) -> None:
    """A request of several megabytes arrives whole."""
    result = answer(asked(vendor.endpoint(fake), user="x" * 3_000_000))

    assert result.text == PLAIN_ANSWER
    assert fake.seen.total == 1


@pytest.mark.parametrize(
    "fault", ["none", "key", "status,code=500", "reset", "hang", "truncated", "refusal", "rate_limit"]
)
def test_the_key_is_never_shown(
    vendor: Vendor, fake: FakeProvider, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No log line at any level and no part of an error holds the key, even where the vendor repeats it."""
    caplog.set_level(logging.DEBUG)
    request = asked(vendor.endpoint(fake, f"m!{fault}"), timeouts=TINY)

    (result,) = complete(request)

    shown = caplog.text + repr(request) + (shown_by(result) if isinstance(result, BaseException) else repr(result))
    assert KEY not in shown
    assert fake.seen.total == 1


def test_a_malformed_http_answer_hides_the_key(vendor: Vendor) -> None:
    """An answer that is no HTTP is transient; the transport's own error, which knows the headers, forgets them."""
    with _answering(b"HTTP/9.9 banana\r\nnot: \x00http\r\n\r\n") as port:
        endpoint = Endpoint(
            sdk=vendor.sdk, base_url=f"http://127.0.0.1:{port}", deployment="m", api_version=vendor.version, key=KEY
        )
        problem = error(asked(endpoint))

    assert isinstance(problem, TransientProviderError)
    assert KEY not in shown_by(problem)


class _answering:  # noqa: N801 - reads as a verb in a with statement
    """A server that answers every connection with the same bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __enter__(self) -> int:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self._listening.getsockname()[1]

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(self._data)


@pytest.mark.parametrize("key", ["key with\nnewline", "key\r\nX-Other: header"])
def test_an_impossible_key(vendor: Vendor, fake: FakeProvider, key: str) -> None:
    """A key that cannot be a header is a permanent error that does not repeat it."""
    problem = error(asked(replace(vendor.endpoint(fake), key=key)))

    assert isinstance(problem, PermanentProviderError)
    assert key not in shown_by(problem)
