"""What all providers that speak JSON over HTTP share. A vendor's file says only what is the vendor's own."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from engine.llm import (
    Completion,
    CompletionRequest,
    JsonObject,
    ProviderError,
    TransientProviderError,
    UnusableAnswer,
    Usage,
)
from llm_workers.providers.faults import document_of, raw_text, refused, request_id, sdk_unusable, unreadable
from llm_workers.providers.rehearsal import Rehearsal, Rehearsals

if TYPE_CHECKING:
    from llm_workers.transport import HttpAnswer, Transport


class HttpProvider(ABC):
    """`sdk` names the vendor in errors; `attempt_header` carries the attempt's id where the vendor takes one.

    `key_variable` is the usual name of the vendor's key, for models whose key is `default`.
    """

    sdk: str
    needs_key: ClassVar[bool] = True
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
        """The JSON body; equal to the rehearsed one, which the contract suite checks."""

    @abstractmethod
    def read(self, document: JsonObject, request: CompletionRequest) -> Completion:
        """The completion in a whole answer. Raises ProviderError for refusals, filters and limits.

        KeyError, TypeError, AttributeError and IndexError mean that the answer has not the shape it should have.
        """

    async def complete(self, request: CompletionRequest) -> Completion:
        rehearsal = await self._rehearsals.of(request)
        headers = rehearsal.headers
        if self.attempt_header is not None and request.attempt_id:
            headers = {**headers, self.attempt_header: request.attempt_id}
        sent = self.body(request)
        answer = await self._transport.post(rehearsal.url, headers, orjson.dumps(sent), request.timeouts)
        if not 200 <= answer.status < 300:
            raise self.refusal(answer, request, sent)
        return self._completion(answer, request)

    async def aclose(self) -> None:
        await self._transport.aclose()

    def refusal(self, answer: "HttpAnswer", request: CompletionRequest, sent: JsonObject) -> ProviderError:  # noqa: ARG002 - for overriding
        """The error for a status other than 2xx. `sent` is what was refused: the next body may differ already."""
        now = self._transport.clock.now()
        key = request.endpoint.key
        return refused(answer.status, answer.headers, answer.body, sdk=self.sdk, key=key, now=now)

    def _rehearsed(self, request: CompletionRequest) -> Rehearsal:
        try:
            return self.rehearse(request)
        except Exception as error:  # noqa: BLE001 - SDKs refuse settings with whatever they like
            sdk_unusable(error, self.sdk)

    def _completion(self, answer: "HttpAnswer", request: CompletionRequest) -> Completion:
        key = request.endpoint.key
        document = document_of(answer.body)
        if not isinstance(document, dict):
            raise unreadable(answer.status, answer.headers, answer.body, sdk=self.sdk, key=key)
        try:
            completion = self.read(document, request)
        except (TransientProviderError, UnusableAnswer) as error:
            error.status, error.request_id = answer.status, request_id(answer.headers)
            error.raw = error.raw if error.raw is not None else raw_text(answer.body, key)
            raise
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise unreadable(answer.status, answer.headers, answer.body, sdk=self.sdk, key=key) from error
        return Completion(
            text=completion.text,
            usage=completion.usage,
            finish_reason=completion.finish_reason,
            request_id=request_id(answer.headers),
        )


def count(value: Any) -> int:
    """A number of tokens, 0 where the vendor told none."""
    return int(value) if value else 0


def stopped(reason: str, text: str, usage: Usage) -> UnusableAnswer:
    """An answer that ended before it was one."""
    return UnusableAnswer(f"the answer cannot be used: {reason}", raw=text, usage=usage)


def broken_off(reason: str, text: str, usage: Usage) -> TransientProviderError:
    """An answer that the vendor could not end."""
    return TransientProviderError(f"the vendor broke the answer off ({reason})", raw=text, usage=usage)


def nothing_said(usage: Usage) -> TransientProviderError:
    """An answer without a candidate: a vendor's glitch, paid for all the same."""
    return TransientProviderError("the answer holds no completion", usage=usage)
