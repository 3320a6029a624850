"""What a completion job means: prompts and data to a model, its answer to a result, then evaluation and meta step.

A job with an `endpoint` is a request to that one of OpenAI's: its body goes to the model, and the result is the body
that comes back, under the name that the job has for its model.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from engine.errors import LeaseLost, MetasyncError, UnknownReference
from engine.evaluation.judging import JudgeCall
from engine.jobs.handler import Assignment
from engine.jobs.job import Job
from engine.jobs.outcome import Completed
from engine.llm import JsonObject, ProviderTimeout, SecretSource, Timeouts, UnusableAnswer
from engine.records.pinning import unpinned
from engine.records.store import PromptStore
from engine.records.values import Prompt
from llm_workers.answers import Answers
from llm_workers.catalogue import Catalogue
from llm_workers.lanes import Lanes
from llm_workers.persistence import Persistence
from llm_workers.prompting import system_text, user_text
from llm_workers.providers.registry import ProviderSet
from llm_workers.routes import Routes
from llm_workers.scoring import Scoring, judged_too, sample_of
from llm_workers.steps import Step, Steps
from llm_workers.suggestions import Suggestions
from llm_workers.wallets import Wallets
from utilities.clock import Clock
from utilities.hop import Hop
from utilities.ids import ObjectIds

_SHARE = 0.95
"""Of the time that an attempt may take: by then the steps after the first are given up, so that its answer is kept."""

log = structlog.get_logger(__name__)


class CompletionHandler:
    """Implements engine.jobs.handler.JobHandler. One instance per event loop; closes its providers with itself."""

    def __init__(
        self,
        *,
        providers: ProviderSet,
        catalogue: Catalogue,
        secrets: SecretSource,
        prompts: PromptStore,
        clock: Clock,
        ids: ObjectIds,
        hop: Hop,
        lanes: Lanes,
        wallets: Wallets,
        reading: Hop | None = None,
        timeouts: Timeouts | None = None,
        persistence: Persistence | None = None,
        reasks: int = 1,
        rng: random.Random | None = None,
    ) -> None:
        """`hop` reaches the storage, `reading` is for answers that take long to read; `reasks` are as in Steps.

        `lanes` and `wallets` are all loops'.
        """
        chance = rng or random.Random()
        self._providers = providers
        self._catalogue = catalogue
        self._clock = clock
        self._hop = hop
        self._timeouts = timeouts or Timeouts()
        self._suggestions = Suggestions(prompts, ids)
        self._answers = Answers(reading or hop)
        self._scoring = Scoring(reading or hop)
        self._persistence = persistence or Persistence(chance)
        self._steps = Steps(
            providers=providers,
            secrets=secrets,
            answers=self._answers,
            clock=clock,
            hop=hop,
            timeouts=self._timeouts,
            lanes=lanes,
            wallets=wallets,
            routes=Routes(catalogue, lanes, chance),
            reasks=reasks,
        )

    async def handle(self, work: Assignment) -> Completed:
        """Raises what the first call raises; what goes wrong after it costs the evaluation or suggestion only.

        LeaseLost ends everything at once.
        """
        deadline = asyncio.get_running_loop().time() + self._timeouts.total * _SHARE
        result = await self._worked(work)
        if work.job.eval_prompt is None and work.job.evaluator is None and work.job.meta_prompt is None:
            return Completed(result=result)
        evaluation = await self._evaluated(work, await work.reload(), result, deadline)
        job = await work.reload()
        suggestion = await self._suggested(work, job, result, evaluation, deadline)
        return Completed(result=result, eval_result=evaluation, suggested_prompt_id=suggestion)

    async def aclose(self) -> None:
        self._scoring.close()
        await self._answers.aclose()
        await self._providers.aclose()

    async def _worked(self, work: Assignment) -> JsonObject:
        job = work.job
        model = await self._catalogue.model(job.model)
        if job.endpoint is not None:
            step = Step(name="work", model=model, path=job.endpoint, body=job.request_data)
            return await self._steps.take(work, step)
        step = Step(
            name="work",
            model=model,
            system=system_text(await self._prompts(job, job.working_prompts), job.instructions),
            user=user_text(job.request_data),
            temperature=job.temperature,
            response_format=job.response_format,
            most_output=job.most_output,
        )
        return await self._steps.take(work, step)

    async def _evaluated(self, work: Assignment, job: Job, result: JsonObject, deadline: float) -> JsonObject | None:
        """The evaluation, or an object with error and errorType; None where the job wants none."""
        prompt_id, model_name = job.eval_prompt, job.eval_model
        data = {"request": job.request_data, "result": result}
        try:
            if job.evaluator is not None:
                return await self._scored(work, job, job.evaluator, result, deadline)
            if prompt_id is None or model_name is None:
                return None
            async with _ending(deadline, "evaluation"):
                return await self._further(work, job, "eval", (prompt_id, model_name), data)
        except LeaseLost:
            raise
        except MetasyncError as error:
            log.warning("evaluation_failed", job_id=job.id, error_type=type(error).__name__)
            return {"error": str(error), "errorType": type(error).__name__}

    async def _scored(
        self, work: Assignment, job: Job, evaluator_id: str, result: JsonObject, deadline: float
    ) -> JsonObject:
        """Each judge ends by `deadline` for itself: one that is late does not cost what the others have said."""

        async def ask(call: JudgeCall, number: Callable[[], int]) -> JsonObject:
            async def attempt(_number: int) -> JsonObject:
                step = Step(
                    name="eval",
                    model=await self._catalogue.model(call.model),
                    system=call.instructions,
                    user=user_text(call.request_data),
                    temperature=call.temperature,
                    response_format=call.response_format,
                    number=number(),
                    most_output=job.most_output,
                )
                return await self._steps.take(work, step)

            async with _ending(deadline, "judge"):
                return await self._persistence.run(attempt)

        evaluator = await self._catalogue.evaluator(evaluator_id)
        sample = sample_of(job, result)
        async with _ending(deadline, "evaluation"):
            measured = await self._scoring.measured(evaluator, sample)
        return await judged_too(job, evaluator, sample, measured, ask)

    async def _suggested(
        self, work: Assignment, job: Job, result: JsonObject, evaluation: JsonObject | None, deadline: float
    ) -> str | None:
        """The id of the prompt that the meta step wrote; None where the job wants none, or where it failed."""
        prompt_id, model_name = job.meta_prompt, job.meta_model
        if prompt_id is None or model_name is None:
            return None
        try:
            async with _ending(deadline, "meta step"):
                originals = await self._prompts(job, job.working_prompts)
                data = {"evaluation": evaluation, "prompts": [each.text for each in originals], "result": result}
                answer = await self._further(work, job, "meta", (prompt_id, model_name), data)
                return await self._kept(job, originals, answer["text"].strip())
        except LeaseLost:
            raise
        except MetasyncError as error:
            log.warning("suggestion_failed", job_id=job.id, error_type=type(error).__name__)
            return None

    async def _further(
        self, work: Assignment, job: Job, name: str, prompt_and_model: tuple[str, str], data: JsonObject
    ) -> JsonObject:
        prompt_id, model_name = prompt_and_model

        async def attempt(number: int) -> JsonObject:
            step = Step(
                name=name,
                model=await self._catalogue.model(model_name),
                system=system_text(await self._prompts(job, (prompt_id,))),
                user=user_text(data),
                temperature=job.temperature,
                response_format="text" if name == "meta" else "json",
                number=number,
                most_output=job.most_output,
            )
            return await self._steps.take(work, step)

        return await self._persistence.run(attempt)

    async def _prompts(self, job: Job, ids: tuple[str, ...]) -> tuple[Prompt, ...]:
        """Those that the job was given as it was given them, the others as they are. Raises UnknownReference."""
        if not job.pins:
            return await self._catalogue.prompts(ids)
        given = {one: unpinned(job.pins, one, job.client_id, job.metadata) for one in ids}
        left = tuple(one for one in ids if given[one] is None)
        known = {prompt.id: prompt for prompt in await self._catalogue.prompts(left)}
        return tuple(given[one] or known[one] for one in ids)

    async def _kept(self, job: Job, originals: tuple[Prompt, ...], text: str) -> str:
        if not text:
            raise UnusableAnswer("the meta step's answer is empty")
        if not originals:
            raise UnknownReference("prompt", "the job has none that could be improved")

        async def attempt(_number: int) -> str:
            return await self._hop(self._suggestions.keep, job, originals[0], text, self._clock.now())

        return await self._persistence.run(attempt)


@asynccontextmanager
async def _ending(deadline: float, what: str) -> AsyncIterator[None]:
    """Raises ProviderTimeout where the block has not ended by `deadline`, an instant of the event loop's clock."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise ProviderTimeout(f"the attempt had no time left for the {what}") from error
