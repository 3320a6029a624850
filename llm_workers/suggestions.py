"""Prompts that a meta step wrote."""

from dataclasses import replace
from datetime import datetime

from engine.errors import Duplicate
from engine.jobs.job import Job
from engine.metadata import Metadata
from engine.records.store import PromptStore
from engine.records.values import Prompt, PromptStatus
from utilities.ids import ObjectIds

_LONGEST_NAME = 255
_TRIES = 5


class Suggestions:
    """Keeps suggested prompts. Synchronous: reaches the storage."""

    def __init__(self, prompts: PromptStore, ids: ObjectIds) -> None:
        self._prompts = prompts
        self._ids = ids

    def keep(self, job: Job, original: Prompt, text: str, now: datetime) -> str:
        """Stores `text` as a private draft of the job's client and answers its id.

        The id is the job's own (they live in different collections), so that a step that is repeated replaces its
        draft and never leaves two. Raises Duplicate only where no free version could be found in five tries.
        """
        known = self._prompts.get(job.id)
        if known is not None and self._prompts.compare_and_set(
            replace(known, text=text, metadata=known.metadata.touched(now, job.client_id))
        ):
            return known.id
        draft = _draft(job, original, text, now)
        for _ in range(_TRIES):
            try:
                self._prompts.add(draft)
            except Duplicate:
                draft = self._another(draft)
            else:
                return draft.id
        raise Duplicate(f"no free version for prompt {draft.name}")

    def _another(self, draft: Prompt) -> Prompt:
        """With a version and an id that are free: another job's draft has the name, or the job's draft was deleted."""
        highest = self._prompts.highest_version(draft.name, draft.type, draft.client_id)
        return replace(draft, id=self._ids.new() if highest == 0 else draft.id, version=highest + 1)


def _draft(job: Job, original: Prompt, text: str, now: datetime) -> Prompt:
    time = now.strftime("%Y%m%d_%H%M%S")
    room = _LONGEST_NAME - len(f"optimized__{time}")
    return Prompt(
        id=job.id,
        name=f"optimized_{original.name[:room]}_{time}",
        version=1,
        type=original.type,
        status=PromptStatus.DRAFT,
        text=text,
        client_id=job.client_id,
        is_public=False,
        metadata=Metadata(created_at=now, created_by=job.client_id),
    )
