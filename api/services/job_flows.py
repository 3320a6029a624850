"""Prompt flows that jobs name in place of prompts: pure but for the one query."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

from api.services.references import User
from engine.errors import InvalidField, UnknownReference
from engine.jobs.job import Job
from engine.records.canaries import assigned, is_sampled, substituted
from engine.records.store import RecordStore
from engine.records.values import PromptFlow

KIND = "prompt flow"
FIELD = "promptFlow"
MOST_PROMPTS = 1_000
"""Of one job, as where prompts are named one by one."""

Flows = Mapping[str, PromptFlow]
NONE: Flows = {}


def flows_of(store: RecordStore[PromptFlow], named: Iterable[str | None]) -> Flows:
    """Those of the named flows that exist, as they are now: with one query, or none where nobody names one."""
    wanted = sorted({name for name in named if name is not None})
    return store.get_many(wanted) if wanted else NONE


def check_flow(named: str | None, flows: Flows, user: User) -> None:
    """Raises UnknownReference for a flow that `user` may not name, InvalidField for one that is no job's prompts."""
    if named is None:
        return
    flow = flows.get(named)
    if flow is None or not (user.any_prompt or flow.is_public or flow.client_id == user.client_id):
        raise UnknownReference(KIND, named)
    if not flow.prompt_ids:
        raise InvalidField(FIELD, f"prompt flow {named} has no prompts")
    if len(flow.prompt_ids) > MOST_PROMPTS:
        raise InvalidField(FIELD, f"prompt flow {named} has more than {MOST_PROMPTS} prompts")


def only_with(flow: PromptFlow, prompts: Container[str]) -> PromptFlow:
    """The flow without the canaries whose prompts are not there."""
    return replace(flow, canaries=tuple(each for each in flow.canaries if each.prompt_id in prompts))


def with_canary(job: Job, flows: Flows) -> Job:
    """The job with its flow's canary where it is the job's turn; the same for the same flow and job, however often.

    The jobs of other clients get none: what they ask would be asked again by the flow's owner.
    """
    flow = None if job.prompt_flow is None else flows.get(job.prompt_flow)
    if flow is None or flow.client_id != job.client_id:
        return job
    canary = assigned(flow, job.id)
    if canary is None:
        return job
    return replace(
        job,
        working_prompts=substituted(job.working_prompts, canary),
        canary=canary.prompt_id,
        canary_trial=canary.id if is_sampled(flow, canary, job.id) else None,
    )
