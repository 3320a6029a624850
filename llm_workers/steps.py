"""A step of a job, from its model's name to an object: which models are asked, and how often."""

from dataclasses import dataclass, field, replace
from functools import partial

from engine.errors import MetasyncError, UnknownReference
from engine.jobs.handler import Assignment
from engine.llm import (
    AnswerMisfits,
    Completion,
    CompletionRequest,
    JsonObject,
    ProviderError,
    ResponseFormat,
    SecretSource,
    Timeouts,
    Turn,
    UnusableAnswer,
)
from engine.records.values import Model
from llm_workers.answers import Answers, Misfit, Undecided, Unreadable
from llm_workers.asking import answer, prepare
from llm_workers.booking import Booking
from llm_workers.keys import Keys
from llm_workers.lanes import Lanes
from llm_workers.prompting import completion_request, correction, request_to
from llm_workers.providers.registry import ProviderSet
from llm_workers.routes import Routes, most_hopeful
from llm_workers.wallets import Wallets
from utilities.clock import Clock
from utilities.hop import Hop
from utilities.json_depth import DEEPEST, too_deep

RAW_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`name` is work, eval or meta, as the ledger has it; `number` tells repeated tries of one attempt apart.

    `place` is the model's on the way of those that are tried, from 0. Where `path` is an OpenAI endpoint's, `body` is
    what it is asked, instead of the texts; the answer is then the endpoint's body, and nothing is asked again.
    """

    name: str
    model: Model
    system: str = ""
    user: str = ""
    temperature: float = 0.0
    path: str | None = None
    body: JsonObject = field(default_factory=dict)
    response_format: ResponseFormat = "json"
    most_output: int | None = None
    number: int = 1
    place: int = 0


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
        lanes: Lanes,
        wallets: Wallets,
        routes: Routes,
        reasks: int = 1,
    ) -> None:
        self._lanes = lanes
        self._wallets = wallets
        self._routes = routes
        self._providers = providers
        self._keys = Keys(providers, secrets, hop)
        self._answers = answers
        self._clock = clock
        self._timeouts = timeouts
        self._reasks = reasks

    async def take(self, work: Assignment, step: Step) -> JsonObject:
        """The answer as an object: the step's model's, or that of one which answers in its place.

        Raises ProviderError, UnknownReference, InvalidField and LeaseLost. Where several models were tried, what is
        raised is the failure that leaves the most hope.
        """
        failures: list[MetasyncError] = []
        for place, model in enumerate(await self._routes.to(step.model)):
            try:
                return await self._answered(work, replace(step, model=model, place=place))
            except (ProviderError, UnknownReference) as error:
                failures.append(error)
                if not self._routes.goes_on(error, step.model, model):
                    break
        raise most_hopeful(failures)

    async def _answered(self, work: Assignment, step: Step) -> JsonObject:
        """One model's answer.

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
        """One call and what its answer says. `number` is which time the model is asked, from 1.

        Once a call has begun it is recorded as it ends: also when it fails, and when this is cancelled.
        """
        provider = await self._providers.get(step.model.sdk)
        request = await self._request(work, step, turns, number)
        await self._answers.prepare(step.response_format)
        await prepare(provider, request)
        estimate = partial(self._lanes.cost, step.model, request)
        async with self._wallets.call(work.job, step.model, estimate) as spending:
            booking = Booking(work, step.name, step.model, self._clock)
            try:
                async with self._lanes.call(step.model, request) as call:
                    work.guard()
                    booking.begin()
                    booking.completion = call.completion = completion = await answer(
                        provider, request, self._clock.now()
                    )
                result = await self._read(completion, work.job.model, step)
            except BaseException as error:
                spending.made = booking.end_badly(error)
                raise
            spending.made = booking.end_well(completion)
            return result

    async def _request(self, work: Assignment, step: Step, turns: tuple[Turn, ...], number: int) -> CompletionRequest:
        key, attempt_id = await self._keys.of(step.model), _attempt_id(work, step, number)
        if step.path is not None:
            return request_to(
                step.path, step.model, key, body=step.body, attempt_id=attempt_id, timeouts=self._timeouts
            )
        return completion_request(
            step.model,
            key,
            system=step.system,
            user=step.user,
            temperature=step.temperature,
            response_format=step.response_format,
            turns=turns,
            attempt_id=attempt_id,
            timeouts=self._timeouts,
            most_output=step.most_output,
        )

    async def _read(self, completion: Completion, asked: str, step: Step) -> JsonObject:
        """`asked` is the model's name as whoever asks knows it."""
        if step.path is not None and completion.body is not None:
            if too_deep(completion.body):
                raise UnusableAnswer(
                    f"the answer is nested more than {DEEPEST} levels deep",
                    status=200,
                    usage=completion.usage,
                    request_id=completion.request_id,
                )
            return {**completion.body, "model": asked}
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
    """One for each call: first the job and its token, then which call of the attempt it is."""
    elsewhere = f"-f{step.place}" if step.place else ""
    again = f"-r{number - 1}" if number > 1 else ""
    return f"{work.job.id}-{work.job.token}-{step.name}-{step.number}{elsewhere}{again}"


def _can_be_mended(error: UnusableAnswer, step: Step) -> bool:
    """Whether the answer was whole and only not as wanted: a refusal or a filter would come again."""
    reading = error.__cause__
    unreadable = isinstance(reading, Unreadable) and not isinstance(reading, Undecided)
    return unreadable and isinstance(step.response_format, dict)
