"""The port to providers: what is asked, what comes back, and how it can fail. No vendor SDK here.

ProviderError
├── TransientProviderError    the same call may well succeed later: retried with backoff, charged to the retry budget
│   └── ProviderTimeout       nothing came within the time allowed
├── RateLimited               too many requests or tokens: waits `retry_after`, charges nothing
│   └── ModelPaused           no call was made: a limit of ours, or a pause that the vendor asked for
├── QuotaExhausted            money or quota is used up: waits long, charges nothing
└── PermanentProviderError    the same call will fail again: not retried
    ├── ProviderRefusedKey    the key is missing, wrong or not allowed
    ├── UnsupportedParameter  the request has what the provider cannot take: nothing was sent
    │   └── UnsupportedEndpoint   it takes no requests of this kind at all
    └── UnusableAnswer        the answer came and cannot be used; `raw` keeps it, `usage` was paid for
        ├── AnswerRefused     the model would not do it
        ├── ContentFiltered   the vendor's filter stopped the question or the answer
        ├── AnswerCutOff      it ended at the token limit, where a part of it is of no use
        └── AnswerMisfits     it is JSON and misses its schema
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Literal, Protocol

from engine.errors import MetasyncError
from engine.pricing import Cost, Prices, cost_of

_LONGEST_PARAM = 100

JsonObject = dict[str, Any]
ResponseFormat = Literal["json", "text"] | JsonObject
"""`json`, `text`, or {"type": "json_schema", "schema": {...}}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and how a model is reached. `key` is the secret itself: never logged, never part of repr."""

    sdk: str
    base_url: str
    deployment: str
    api_type: str = ""
    api_version: str = ""
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds: to connect, between two reads (so also to the first byte), and for the whole call."""

    connect: float = 10.0
    read: float = 120.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation. Its text is not blank: vendors refuse that."""

    role: Literal["assistant", "user"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """One call. `temperature` and `max_tokens` are within the model's limits; None leaves them to the vendor.

    `turns` follow `user`, in the order in which they were said; the last one is the user's.

    `chat` is the body of a request to OpenAI's chat completions, as a client sent it. Where it is set, it says what is
    asked, but for its model, stream options, temperature and token limits: in their place `temperature` and
    `max_tokens` count, which are the client's own within the model's limits. A provider translates it, and answers with
    a Completion that has a `body`; for one that does not know of it `system`, `user` and `turns` hold its texts.

    `messages` is the body of a request to Anthropic's Messages API, for a provider whose `takes_messages` is True. It
    is sent as it came, but for its model, temperature and token limit; the completion's `body` is the vendor's own.

    `embeds` is the body of a request to OpenAI's embeddings, for a provider's `embed`; nothing else is then asked.
    """

    endpoint: Endpoint
    system: str
    user: str
    temperature: float | None = None
    max_tokens: int | None = None
    response_format: ResponseFormat = "json"
    turns: tuple[Turn, ...] = ()
    chat: JsonObject | None = None
    messages: JsonObject | None = None
    embeds: JsonObject | None = None
    attempt_id: str = ""
    timeouts: Timeouts = Timeouts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the vendor counted them. `cached_input` is part of `input`, `reasoning` part of `output`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0


def cost_of_usage(usage: Usage, prices: Prices) -> Cost:
    """What the tokens cost, cached input at its own price where it has one."""
    return cost_of(usage.input_tokens, usage.output_tokens, prices, usage.cached_input_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What a vendor says of one of its limits: `kind` is requests or tokens, `resets_in` seconds until it is whole."""

    kind: str
    limit: int
    remaining: int
    resets_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """`finish_reason` is the vendor's word; `request_id` is what the vendor's support asks for.

    `levels` is what the answer's headers said of the vendor's limits. `body` is set where a `chat` or `embeds` was
    asked: the answer as OpenAI's endpoint gives it, by whichever vendor, streamed or not; where `messages` were, it is
    Anthropic's own. Refusals, filters and limits are then in its finish or stop reason; `text` is what the first choice
    says, and may be empty.
    """

    text: str
    usage: Usage
    finish_reason: str | None = None
    request_id: str | None = None
    levels: tuple[Level, ...] = ()
    body: JsonObject | None = None


class Provider(Protocol):
    """A vendor's adapter, bound to one event loop.

    What a plug-in need not have: `prepare` does beforehand what takes long the first time and is no part of a call; it
    may refuse the request by UnsupportedParameter. `takes_chat` True says that `chat` is read; a provider without it is
    asked for texts only, and a request for anything else is refused.

    `complete` makes exactly one call: no retries of its own. It raises only ProviderError (and CancelledError); every
    other exception is a bug of the adapter. Secrets never appear in its errors.
    """

    needs_key: ClassVar[bool]

    async def complete(self, request: CompletionRequest) -> Completion: ...

    async def aclose(self) -> None: ...


Piece = str | JsonObject
"""A part of a streamed answer: text, for a `chat` a chunk as OpenAI streams it, for `messages` an event of Anthropic's.

A chunk is {"choices": [{"index", "delta", "logprobs"?, "finish_reason"}], ...} without id, object, created, model and
usage, which whoever answers the client adds. Each has something in it; a choice's first delta has the role.
"""


class StreamingProvider(Provider, Protocol):
    """A provider that can also answer piece by piece.

    `stream` makes one call and yields the pieces as they come, none of them empty, and last the Completion with all of
    the text (for a `chat`: and the `body` that would have come without streaming). It raises what `complete` raises,
    also in the middle; `raw` then holds the text so far, `usage` what is known of it. Close it (contextlib.aclosing)
    where it is not read to its end: that drops the call.
    """

    def stream(self, request: CompletionRequest) -> AsyncGenerator[Piece | Completion, None]: ...


class EmbeddingProvider(Provider, Protocol):
    """A provider that also answers `embeds`: one call, errors as `complete`, a Completion with a body and no text."""

    async def embed(self, request: CompletionRequest) -> Completion: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What an error says for programs, in the fields of OpenAI's errors: None where the vendor does not say it."""

    type: str | None = None
    code: str | None = None
    param: str | None = None


class ProviderError(MetasyncError):
    """`status` is the HTTP status if there was one; `raw` the vendor's text (bounded); `usage` what it still cost.

    `complaint` is the vendor's own, where its error has OpenAI's fields.

    `sent` is False where the request cannot have reached the vendor, so that nothing can have been charged.
    """

    code = "provider_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: timedelta | None = None,
        raw: str | None = None,
        usage: Usage | None = None,
        request_id: str | None = None,
        sent: bool = True,
        levels: tuple[Level, ...] = (),
        complaint: Complaint | None = None,
    ) -> None:
        super().__init__(message)
        self.levels = levels
        self.complaint = complaint
        self.status = status
        self.retry_after = retry_after
        self.raw = raw
        self.usage = usage
        self.request_id = request_id
        self.sent = sent


class TransientProviderError(ProviderError):
    code = "provider_transient"


class ProviderTimeout(TransientProviderError):
    code = "provider_timeout"


class RateLimited(ProviderError):
    code = "rate_limited"


class ModelPaused(RateLimited):
    """Not now: `reason` is a stable word (requests, tokens, concurrency, rate_limit, quota, breaker)."""

    code = "model_paused"

    def __init__(self, message: str, *, reason: str, retry_after: timedelta) -> None:
        super().__init__(message, retry_after=retry_after, sent=False)
        self.reason = reason


class QuotaExhausted(ProviderError):
    code = "quota_exhausted"


class PermanentProviderError(ProviderError):
    code = "provider_permanent"


class ProviderRefusedKey(PermanentProviderError):
    code = "provider_key_refused"


class UnsupportedParameter(PermanentProviderError):
    """`param` names it as the client did, such as tools or messages[2].content; the text says what is wrong with it."""

    code = "unsupported_parameter"

    def __init__(self, param: str, why: str) -> None:
        param = param[:_LONGEST_PARAM]
        complaint = Complaint(type="invalid_request_error", code=self.code, param=param)
        super().__init__(f"{param}: {why}", status=400, sent=False, complaint=complaint)
        self.param = param


class UnsupportedEndpoint(UnsupportedParameter):
    """Other vendors' models may take such requests, so that those are tried."""

    code = "unsupported_endpoint"

    def __init__(self, why: str) -> None:
        super().__init__("model", why)


class UnusableAnswer(PermanentProviderError):
    code = "unusable_answer"


class AnswerRefused(UnusableAnswer):
    code = "answer_refused"


class ContentFiltered(UnusableAnswer):
    code = "content_filtered"


class AnswerCutOff(UnusableAnswer):
    code = "answer_cut_off"


class AnswerMisfits(UnusableAnswer):
    code = "answer_misfits"


class ProviderRegistry(Protocol):
    """Which sdk names exist. `problems` names the plug-ins that could not be loaded and why, for readiness."""

    def names(self) -> frozenset[str]: ...

    def needs_key(self, sdk: str) -> bool: ...

    def problems(self) -> Mapping[str, str]: ...


class SecretSource(Protocol):
    """Looks a provider key up by a model's key name and name, at call time; None where there is none."""

    def provider_key(self, key_name: str | None, model_name: str, service: str | None) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """What a model allows: prices and the ranges that requests are clamped to."""

    prices: Prices
    min_temperature: float
    max_temperature: float
    max_tokens: int | None
