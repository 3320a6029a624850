"""What callers may do with prompts and prompt flows, which are public or belong to one client: pure."""

from typing import TypeVar

from api.core.authentication import Caller
from engine.errors import Forbidden, NotFound, Unauthenticated, UnknownReference
from engine.records.values import Prompt, PromptFlow

R = TypeVar("R", Prompt, PromptFlow)

NEEDS_ADMIN = "Admin API key is required for public resources"


def creator(caller: Caller, *, public: bool) -> str | None:
    """The client id of what `caller` creates: None for public things, which need an admin (Forbidden).

    Private ones need a client that proved itself, also where an admin asks (Unauthenticated).
    """
    if public:
        if not caller.admin:
            raise Forbidden(NEEDS_ADMIN)
        return None
    if caller.client_id is None:
        raise Unauthenticated("Client ID and API key are needed for authentication to create private resources")
    return caller.client_id


def readable(record: R | None, kind: str, record_id: str, caller: Caller) -> R:
    """Raises NotFound for what is not there or is another client's."""
    if record is None or not _visible(record, caller):
        raise NotFound(kind, record_id)
    return record


def deletable(record: R | None, kind: str, record_id: str, caller: Caller) -> R:
    """Raises NotFound as `readable` does, Forbidden for public ones without an admin."""
    found = readable(record, kind, record_id, caller)
    _check_public(found, caller)
    return found


def editable(record: R | None, kind: str, record_id: str, caller: Caller) -> R:
    """Raises UnknownReference for what is not there or is another client's, Forbidden as `deletable` does."""
    if record is None or not _visible(record, caller):
        raise UnknownReference(kind, record_id)
    _check_public(record, caller)
    return record


def _visible(record: Prompt | PromptFlow, caller: Caller) -> bool:
    return caller.admin or record.is_public or record.client_id == caller.client_id


def _check_public(record: Prompt | PromptFlow, caller: Caller) -> None:
    if record.is_public and not caller.admin:
        raise Forbidden(NEEDS_ADMIN)
