"""One provider call of a job, from its model's name to an object, and on the ledger whatever becomes of it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from engine.errors import MetasyncError
from engine.jobs.handler import Assignment
from engine.jobs.job import Call
from engine.jobs.retry import is_transient
from engine.llm import (
    AnswerMisfits,
    Completion,
    CompletionRequest,
    JsonObject,
    ProviderError,
    RateLimited,
    ResponseFormat,
    SecretSource,
    Timeouts,
    Turn,
    UnusableAnswer,
    Usage,
    cost_of_usage,
)
from engine.records.values import Model
from llm_workers.answers import Answers, Misfit, Undecided, Unreadable
from llm_workers.keys import Keys
from llm_workers.prompting import completion_request, correction
from llm_workers.providers.registry import ProviderSet
from utilities.backoff import full_jitter
from utilities.clock import Clock
from utilities.hop import Hop

T = TypeVar("T")

RAW_LIMIT = 64 * 1024
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`name` is work, eval or meta, as the ledger has it; `number` tells repeated tries of one attempt apart."""

    name: str
    model: Model
    system: str
    user: str
    temperature: float
    response_format: ResponseFormat = "json"
    number: int = 1


class Steps:
    """Makes calls. For one event loop."""

    def __init__(
        self,
        *,
        providers: ProviderSet,
        secrets: SecretSource,
        answers: Answers,
        clock: Clock,
        hop: Hop,
        timeouts: Timeouts,
        reasks: int = 1,
    ) -> None:
        self._providers = providers
        self._keys = Keys(providers, secrets, hop)
        self._answers = answers
        self._clock = clock
        self._timeouts = timeouts
        self._reasks = reasks

    async def take(self, work: Assignment, step: Step) -> JsonObject:
        """The answer as an object. Raises ProviderError, UnknownReference, InvalidField and LeaseLost.

        An answer that misses a schema, or is no JSON where one was to fit, is sent back with what is wrong with it, at
        most `reasks` times; then its error stands. Without a schema nothing is asked again: who is told no more than
        "JSON, please" wraps an excuse in braces, and a job that went wrong would look done. When a re-ask fails itself,
        its error decides: a transient one lets the next attempt begin with the first question.
        """
        turns: tuple[Turn, ...] = ()
        for number in range(1, self._reasks + 1):
            try:
                return await self._asked(work, step, turns, number)
            except UnusableAnswer as error:
                if not _can_be_mended(error, step):
                    raise
                turns = correction(error.raw or "", str(error), step.response_format)
        return await self._asked(work, step, turns, self._reasks + 1)

    async def _asked(self, work: Assignment, step: Step, turns: tuple[Turn, ...], number: int) -> JsonObject:
        """One call and what its answer says. `number` is which time the step asks, from 1; raises what `take` raises.

        Once a call has begun it is recorded as it ends: also when it fails, and when this is cancelled.
        """
        provider = await self._providers.get(step.model.sdk)
        request = await self._request(work, step, turns, number)
        await self._answers.prepare(step.response_format)
        work.guard()
        started_at, began = self._clock.now(), self._clock.monotonic()
        completion: Completion | None = None
        try:
            completion = await provider.complete(request)
            result = await self._read(completion, step)
        except BaseException as error:
            duration = self._clock.monotonic() - began
            work.record(_call(step, started_at, duration, _bad_ending(error, completion)))
            raise
        work.record(_call(step, started_at, self._clock.monotonic() - began, _good_ending(completion)))
        return result

    async def _request(self, work: Assignment, step: Step, turns: tuple[Turn, ...], number: int) -> CompletionRequest:
        return completion_request(
            step.model,
            await self._keys.of(step.model),
            system=step.system,
            user=step.user,
            temperature=step.temperature,
            response_format=step.response_format,
            turns=turns,
            attempt_id=_attempt_id(work, step, number),
            timeouts=self._timeouts,
        )

    async def _read(self, completion: Completion, step: Step) -> JsonObject:
        try:
            return await self._answers.read(completion.text, step.response_format)
        except Unreadable as error:
            kind = AnswerMisfits if isinstance(error, Misfit) else UnusableAnswer
            raise kind(
                str(error),
                status=200,
                raw=completion.text[:RAW_LIMIT],
                usage=completion.usage,
                request_id=completion.request_id,
            ) from error


def _attempt_id(work: Assignment, step: Step, number: int) -> str:
    again = f"-r{number - 1}" if number > 1 else ""
    return f"{work.job.id}-{work.job.token}-{step.name}-{step.number}{again}"


def _can_be_mended(error: UnusableAnswer, step: Step) -> bool:
    """Whether the answer was whole and only not as wanted: a refusal or a filter would come again."""
    reading = error.__cause__
    unreadable = isinstance(reading, Unreadable) and not isinstance(reading, Undecided)
    return unreadable and isinstance(step.response_format, dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """How a call ended; `usage` is None where the vendor never told."""

    outcome: str
    usage: Usage | None = None
    error_type: str | None = None
    request_id: str | None = None


def _good_ending(completion: Completion) -> _Ending:
    return _Ending(outcome="ok", usage=completion.usage, request_id=completion.request_id)


def _bad_ending(error: BaseException, completion: Completion | None) -> _Ending:
    """`unknown` where a request was sent and no answer came that can be read: it may have been charged."""
    name = type(error).__name__
    if completion is not None:
        return _Ending(outcome="error", usage=completion.usage, error_type=name, request_id=completion.request_id)
    if not isinstance(error, ProviderError):
        return _Ending(outcome="unknown", error_type=name)
    refused = error.status is not None and not 200 <= error.status < 300
    told = refused or error.usage is not None or not error.sent
    return _Ending(
        outcome="error" if told else "unknown", usage=error.usage, error_type=name, request_id=error.request_id
    )


def _call(step: Step, started_at: datetime, duration: float, ending: _Ending) -> Call:
    usage = ending.usage
    cost = None if usage is None else cost_of_usage(usage, step.model.prices)
    return Call(
        step=step.name,
        model=step.model.name,
        started_at=started_at,
        duration=duration,
        outcome=ending.outcome,
        input_tokens=None if usage is None else usage.input_tokens,
        output_tokens=None if usage is None else usage.output_tokens,
        cached_input_tokens=None if usage is None else usage.cached_input_tokens,
        reasoning_tokens=None if usage is None else usage.reasoning_tokens,
        input_cost=None if cost is None else cost.input,
        output_cost=None if cost is None else cost.output,
        currency=None if cost is None else cost.currency,
        error_type=ending.error_type,
        request_id=ending.request_id,
    )


class Persistence:
    """Tries a further step again within one attempt of its job: the answer before it has been paid for already.

    Transient failures and rate limits are waited for, at most three tries and a minute each; then the error stands.
    """

    def __init__(
        self, rng: random.Random, pause: Callable[[float], Awaitable[object]] = asyncio.sleep, tries: int = 3
    ) -> None:
        self._rng = rng
        self._pause = pause
        self._tries = tries

    async def run(self, attempt: Callable[[int], Awaitable[T]]) -> T:
        """`attempt` gets the number of the try, from 1."""
        for number in range(1, self._tries):
            try:
                return await attempt(number)
            except MetasyncError as error:
                wait = self._wait(error, number)
                if wait is None:
                    raise
            await self._pause(wait.total_seconds())
        return await attempt(self._tries)

    def _wait(self, error: MetasyncError, number: int) -> timedelta | None:
        if not (is_transient(error) or isinstance(error, RateLimited)):
            return None
        wait = full_jitter(number, base=_FIRST_PAUSE, cap=_LONGEST_PAUSE, rng=self._rng)
        announced = error.retry_after if isinstance(error, ProviderError) else None
        wait = wait if announced is None else max(wait, announced)
        return wait if wait <= _LONGEST_PAUSE else None
