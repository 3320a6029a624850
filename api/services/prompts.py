"""Prompts: texts with versions, public or a client's own."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from api.core.authentication import Caller
from api.services.changing import changed
from api.services.prompt_access import NEEDS_ADMIN, creator, deletable, editable, readable
from engine.errors import Duplicate, Forbidden, InvalidField, StorageUnavailable
from engine.jobs.queue import Page
from engine.metadata import Metadata
from engine.records.store import PromptStore, RecordStore, Where
from engine.records.values import Client, Prompt, PromptStatus
from utilities.clock import Clock
from utilities.ids import ObjectIds

KIND = "Prompt"
TRIES = 200
"""How often the next version is looked for while others take it first; every failure means that somebody succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptDraft:
    """A prompt as it was asked for; `version` None means the next one."""

    name: str
    version: int | str | None
    type: str
    status: PromptStatus
    text: str
    is_public: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptEdit:
    """What shall change; None leaves a field as it is."""

    version: int | str | None = None
    status: PromptStatus | None = None
    text: str | None = None
    is_public: bool | None = None
    client_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFilter:
    """None does not restrict. `version` "2" finds 2 and "2"."""

    name: str | None = None
    type: str | None = None
    status: PromptStatus | None = None
    version: str | None = None


class PromptService:
    """Synchronous. Callers see public prompts and their own, an admin all. `forget` drops what is remembered."""

    def __init__(
        self,
        prompts: PromptStore,
        clients: RecordStore[Client],
        *,
        clock: Clock,
        ids: ObjectIds,
        forget: Callable[[], None],
    ) -> None:
        self._prompts = prompts
        self._clients = clients
        self._clock = clock
        self._ids = ids
        self._forget = forget

    def create(self, draft: PromptDraft, caller: Caller) -> Prompt:
        """Raises Forbidden and Unauthenticated as `creator` does, Duplicate where the version is taken."""
        client_id = creator(caller, public=draft.is_public)
        prompt = Prompt(
            id=self._ids.new(),
            name=draft.name,
            version=1 if draft.version is None else draft.version,
            type=draft.type,
            status=draft.status,
            text=draft.text,
            client_id=client_id,
            is_public=draft.is_public,
            metadata=Metadata(created_at=self._clock.now(), created_by=client_id or caller.by),
        )
        if draft.version is None:
            return self._add_next(prompt)
        self._prompts.add(prompt)
        return prompt

    def list(self, wanted: PromptFilter, page: Page, caller: Caller) -> tuple[list[Prompt], int]:
        """A page of the matching prompts, and how many match."""
        where = Where(equals=_conditions(wanted), visible_to=caller.visible_to)
        return self._prompts.find(where, page), self._prompts.count(where)

    def get(self, prompt_id: str, caller: Caller) -> Prompt:
        """Raises NotFound."""
        return readable(self._prompts.get(prompt_id), KIND, prompt_id, caller)

    def update(self, prompt_id: str, edit: PromptEdit, caller: Caller) -> Prompt:
        """Raises UnknownReference, Forbidden, Duplicate, and InvalidField where the result has no valid owner."""

        def change(found: Prompt | None) -> Prompt:
            prompt = editable(found, KIND, prompt_id, caller)
            wanted = self._edited(prompt, edit, caller)
            if wanted == prompt:
                return prompt
            return replace(wanted, metadata=prompt.metadata.touched(self._clock.now(), caller.by))

        prompt = changed(self._prompts, prompt_id, change)
        self._forget()
        return prompt

    def delete(self, prompt_id: str, caller: Caller) -> None:
        """Raises NotFound and Forbidden."""
        now = self._clock.now()

        def change(found: Prompt | None) -> Prompt:
            prompt = deletable(found, KIND, prompt_id, caller)
            return replace(prompt, metadata=prompt.metadata.deleted(now, caller.by))

        changed(self._prompts, prompt_id, change)
        self._forget()

    def _add_next(self, prompt: Prompt) -> Prompt:
        for _ in range(TRIES):
            highest = self._prompts.highest_version(prompt.name, prompt.type, prompt.client_id)
            numbered = replace(prompt, version=highest + 1)
            with suppress(Duplicate):
                self._prompts.add(numbered)
                return numbered
        raise StorageUnavailable("the next versions are being taken by many at once")

    def _edited(self, prompt: Prompt, edit: PromptEdit, caller: Caller) -> Prompt:
        wanted = replace(
            prompt,
            version=prompt.version if edit.version is None else edit.version,
            status=prompt.status if edit.status is None else edit.status,
            text=prompt.text if edit.text is None else edit.text,
        )
        if edit.is_public is None and edit.client_id is None:
            return wanted
        return self._moved(wanted, edit, caller)

    def _moved(self, prompt: Prompt, edit: PromptEdit, caller: Caller) -> Prompt:
        """`prompt` with another owner or visibility."""
        public = prompt.is_public if edit.is_public is None else edit.is_public
        if not caller.admin and (public or edit.client_id is not None):
            raise Forbidden(NEEDS_ADMIN)
        if public:
            if edit.client_id is not None:
                raise InvalidField("clientId", "a public prompt belongs to no client")
            return replace(prompt, is_public=True, client_id=None)
        owner = prompt.client_id if edit.client_id is None else edit.client_id
        if owner is None or self._clients.get(owner) is None:
            raise InvalidField("clientId", "a private prompt needs an existing client")
        return replace(prompt, is_public=False, client_id=owner)


def _conditions(wanted: PromptFilter) -> dict[str, list[int | str]]:
    given = {"name": wanted.name, "type": wanted.type, "status": wanted.status}
    equals: dict[str, list[int | str]] = {name: [str(value)] for name, value in given.items() if value is not None}
    if wanted.version is not None:
        equals["version"] = _spellings(wanted.version)
    return equals


def _spellings(version: str) -> list[int | str]:
    """The stored versions that a query's text may mean."""
    digits = version.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 17 and str(int(version)) == version:
        return [version, int(version)]
    return [version]
