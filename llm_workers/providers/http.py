"""What all providers that speak JSON over HTTP share. A vendor's file says only what is the vendor's own."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import orjson
from yarl import URL

from engine.llm import (
    AnswerCutOff,
    AnswerRefused,
    Completion,
    CompletionRequest,
    ContentFiltered,
    JsonObject,
    Level,
    Piece,
    ProviderError,
    TransientProviderError,
    UnusableAnswer,
    Usage,
)
from llm_workers.providers.chat_answers import chat_completion
from llm_workers.providers.chat_chunks import ChatFold, Translation, text_in
from llm_workers.providers.events import Fold, event_data
from llm_workers.providers.faults import (
    cleaned,
    document_of,
    failed_midway,
    raw_text,
    refused,
    request_id,
    sdk_unusable,
    unreadable,
)
from llm_workers.providers.limit_headers import levels_in
from llm_workers.providers.rehearsal import Rehearsal, Rehearsals
from utilities.json_depth import may_be_too_deep, too_deep

if TYPE_CHECKING:
    from llm_workers.transport import HttpAnswer, HttpStream, Transport

Reading = Callable[[JsonObject, CompletionRequest], Completion]
"""An answer's document, and what was asked, to the completion in it."""

_STRANGE = (KeyError, TypeError, AttributeError, IndexError, ValueError)


@dataclass(frozen=True, slots=True)
class Embedding:
    """A request for vectors: its body, where it goes, given where a plain call goes, and how its answer is read."""

    body: JsonObject
    url: Callable[[URL], URL]
    read: Reading


class HttpProvider(ABC):
    """`sdk` names the vendor in errors; `attempt_header` carries the attempt's id where the vendor takes one.

    `key_variable` is the usual name of the vendor's key, for models whose key is `default`.
    """

    sdk: str
    needs_key: ClassVar[bool] = True
    takes_chat: ClassVar[bool] = True
    takes_messages: ClassVar[bool] = False
    key_variable: ClassVar[str | None] = None
    attempt_header: str | None = None

    def __init__(self, transport: "Transport") -> None:
        self._transport = transport
        self._rehearsals = Rehearsals(self._rehearsed)

    @abstractmethod
    def rehearse(self, request: CompletionRequest) -> Rehearsal:
        """The request as the vendor's own SDK makes it. Imports the SDK: not on an event loop."""

    @abstractmethod
    def body(self, request: CompletionRequest) -> JsonObject:
        """The JSON body; equal to the rehearsed one, which the contract suite checks. A chat's is the translated one.

        Raises UnsupportedParameter for a chat that the vendor cannot take.
        """

    @abstractmethod
    def read(self, document: JsonObject, request: CompletionRequest) -> Completion:
        """The completion in a whole answer. Raises ProviderError for refusals, filters and limits.

        KeyError, TypeError, AttributeError and IndexError mean that the answer has not the shape it should have.
        """

    @abstractmethod
    def fold(self) -> Fold:
        """What adds the events of one streamed answer up."""

    @abstractmethod
    def chat_answer(self, document: JsonObject, request: CompletionRequest, now: datetime) -> JsonObject:
        """A chat's whole answer in OpenAI's shape. Errors as in `read`, but refusals, filters and limits are none."""

    @abstractmethod
    def chat_translation(self) -> Translation:
        """What makes OpenAI's chunks of one streamed chat's events."""

    @abstractmethod
    def embedding(self, request: CompletionRequest) -> Embedding:
        """How the vendor embeds what is asked. Raises UnsupportedParameter where it does not."""

    def stream_body(self, request: CompletionRequest) -> JsonObject:
        return {**self.body(request), "stream": True}

    def stream_url(self, url: URL) -> URL:
        """Where a streamed call goes, given where a plain one goes."""
        return url

    async def prepare(self, request: CompletionRequest) -> None:
        """What takes long the first time, such as importing the SDK: before the call's own time begins.

        A chat is translated beforehand, so that one that cannot be is no call at all.
        """
        if request.chat is not None:
            self.body(request)
        if request.embeds is not None:
            self.embedding(request)
        await self._rehearsals.of(request)

    async def complete(self, request: CompletionRequest) -> Completion:
        rehearsal = await self._rehearsals.of(request)
        return await self._posted(rehearsal.url, self.body(request), request, self.reading_of(request))

    async def embed(self, request: CompletionRequest) -> Completion:
        embedding = self.embedding(request)
        rehearsal = await self._rehearsals.of(request)
        return await self._posted(embedding.url(rehearsal.url), embedding.body, request, embedding.read)

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[Piece | Completion, None]:
        rehearsal = await self._rehearsals.of(request)
        sent = self.stream_body(request)
        url, headers = self.stream_url(rehearsal.url), self._headers(rehearsal, request)
        answer = await self._transport.open(url, headers, orjson.dumps(sent), request.timeouts)
        fold, texts = self.fold_of(request), list[str]()
        try:
            if not 200 <= answer.status < 300:
                raise self.refusal(await answer.whole(), request, sent)
            async for data in event_data(answer.pieces()):
                piece = self._piece(fold, data, answer, request)
                if piece:
                    texts.append(text_in(piece))
                    yield piece
                if fold.ended and request.messages is not None:  # some keep the connection open after the last event
                    break
            yield self._streamed(fold, "".join(texts), answer, request)
        except ProviderError as error:
            error.levels = self._levels(answer)
            self._tell_of_the_part(error, fold, "".join(texts), request)
            raise
        finally:
            answer.close()

    async def aclose(self) -> None:
        await self._transport.aclose()

    def refusal(self, answer: "HttpAnswer", request: CompletionRequest, sent: JsonObject) -> ProviderError:  # noqa: ARG002 - for overriding
        """The error for a status other than 2xx. `sent` is what was refused: the next body may differ already."""
        now = self._transport.clock.now()
        key = request.endpoint.key
        return refused(answer.status, answer.headers, answer.body, sdk=self.sdk, key=key, now=now)

    async def _posted(self, url: URL, sent: JsonObject, request: CompletionRequest, reading: Reading) -> Completion:
        headers = self._headers(await self._rehearsals.of(request), request)
        answer = await self._transport.post(url, headers, orjson.dumps(sent), request.timeouts)
        try:
            if not 200 <= answer.status < 300:
                raise self.refusal(answer, request, sent)
            return self._completion(answer, request, reading)
        except ProviderError as error:
            error.levels = self._levels(answer)
            raise

    def reading_of(self, request: CompletionRequest) -> Reading:
        """What reads a whole answer."""
        return self.read if request.chat is None else self._read_chat

    def fold_of(self, request: CompletionRequest) -> Fold:
        """What adds the events of a streamed answer up."""
        if request.chat is None:
            return self.fold()
        return ChatFold(self.chat_translation(), self._transport.clock.now())

    def _read_chat(self, document: JsonObject, request: CompletionRequest) -> Completion:
        return chat_completion(self.chat_answer(document, request, self._transport.clock.now()))

    def _rehearsed(self, request: CompletionRequest) -> Rehearsal:
        """Of a plain request: where calls go is the endpoint's, and what clients ask for may be new to the SDK."""
        try:
            return self.rehearse(replace(request, chat=None, messages=None, embeds=None))
        except Exception as error:  # noqa: BLE001 - SDKs refuse settings with whatever they like
            sdk_unusable(error, self.sdk)

    def headers_for(self, request: CompletionRequest) -> dict[str, str]:  # noqa: ARG002 - for overriding
        """Headers of a request's own."""
        return {}

    def _headers(self, rehearsal: Rehearsal, request: CompletionRequest) -> dict[str, str]:
        headers = {**rehearsal.headers, **self.headers_for(request)}
        if self.attempt_header is not None and request.attempt_id:
            headers[self.attempt_header] = request.attempt_id
        return headers

    def _completion(self, answer: "HttpAnswer", request: CompletionRequest, reading: Reading) -> Completion:
        key = request.endpoint.key
        document = document_of(answer.body)
        if not isinstance(document, dict):
            raise unreadable(answer.status, answer.headers, answer.body, sdk=self.sdk, key=key)
        if document.get("error"):
            # Gateways that had promised an answer before their vendor failed.
            now = self._transport.clock.now()
            raise failed_midway(document, answer.headers, answer.body, sdk=self.sdk, key=key, now=now)
        return self._read(document, answer, request, reading)

    def _read(
        self, document: JsonObject, answer: "HttpAnswer", request: CompletionRequest, reading: Reading
    ) -> Completion:
        key = request.endpoint.key
        try:
            completion = reading(document, request)
        except (TransientProviderError, UnusableAnswer) as error:
            error.status, error.request_id = answer.status, request_id(answer.headers)
            error.raw = error.raw if error.raw is not None else raw_text(answer.body, key)
            raise
        except _STRANGE as error:
            raise unreadable(answer.status, answer.headers, answer.body, sdk=self.sdk, key=key) from error
        return replace(completion, request_id=request_id(answer.headers), levels=self._levels(answer))

    def _levels(self, answer: "HttpAnswer | HttpStream") -> tuple[Level, ...]:
        return levels_in(answer.headers, self._transport.clock.now())

    def _piece(self, fold: Fold, data: bytes, answer: "HttpStream", request: CompletionRequest) -> Piece | None:
        key, event = request.endpoint.key, document_of(data)
        try:
            if event.get("error"):
                now = self._transport.clock.now()
                raise failed_midway(event, answer.headers, data, sdk=self.sdk, key=key, now=now)
            if may_be_too_deep(data) and too_deep(event):
                raise TypeError("nested too deeply")
            return fold.feed(event)
        except _STRANGE as error:
            raise unreadable(answer.status, answer.headers, data, sdk=self.sdk, key=key) from error

    def _streamed(self, fold: Fold, text: str, answer: "HttpStream", request: CompletionRequest) -> Completion:
        from llm_workers.transport import HttpAnswer  # noqa: PLC0415 - loaded already where there is a stream

        if not fold.ended:
            raise TransientProviderError("the stream ended before the answer did", status=answer.status)
        whole = HttpAnswer(answer.status, answer.headers, text.encode())
        return self._read({}, whole, request, lambda _, asked: self.read_folded(fold.document(text), asked))

    def read_folded(self, document: JsonObject, request: CompletionRequest) -> Completion:
        """The completion in what a fold has added up."""
        return self.read(document, request) if request.chat is None else chat_completion(document)

    def _tell_of_the_part(self, error: ProviderError, fold: Fold, text: str, request: CompletionRequest) -> None:
        """A call that broke off in the middle gave a text, and may have told its usage."""
        if text:
            error.raw = cleaned(text, request.endpoint.key)
        if error.usage is None:
            error.usage = self._used_so_far(fold, request)

    def _used_so_far(self, fold: Fold, request: CompletionRequest) -> Usage | None:
        """What the vendor has told of an unfinished answer, if anything."""
        try:
            usage = self.read_folded(fold.document("so far"), request).usage
        except (ProviderError, *_STRANGE):
            return None
        return usage if usage.input_tokens or usage.output_tokens else None


def refused_by_model(text: str, usage: Usage) -> AnswerRefused:
    """`text` is what the model said instead."""
    return AnswerRefused("the answer cannot be used: the model refused", raw=text or None, usage=usage)


def filtered(reason: str, text: str, usage: Usage) -> ContentFiltered:
    """`reason` is the vendor's word."""
    return ContentFiltered(f"the vendor's content filter stopped it ({reason})", raw=text or None, usage=usage)


def cut_off(text: str, usage: Usage) -> AnswerCutOff:
    """JSON that breaks off is none; under responseFormat text a part of an answer is one."""
    return AnswerCutOff("the answer cannot be used: it was cut off at the token limit", raw=text or None, usage=usage)


def broken_off(reason: str, text: str, usage: Usage) -> TransientProviderError:
    """An answer that the vendor could not end."""
    return TransientProviderError(f"the vendor broke the answer off ({reason})", raw=text, usage=usage)


def nothing_said(usage: Usage) -> TransientProviderError:
    """An answer without a candidate: a vendor's glitch, paid for all the same."""
    return TransientProviderError("the answer holds no completion", usage=usage)
