"""Everything that can go wrong, as one tree. No HTTP here: `api.middleware.errors` holds the one table of statuses.

MetasyncError
├── NotFound                  nothing live has this id, or the caller may not know of it
├── Refused                   the request is well formed but not allowed as things stand
│   ├── TransitionRefused     the job's state does not allow this event
│   ├── UnknownReference      a named prompt, model or client does not exist for this caller
│   ├── Duplicate             a unique name or version is taken
│   └── InvalidField          a field's value is not acceptable; names the field
├── Unauthenticated           no valid credentials
├── Forbidden                 valid credentials, not enough
├── BudgetExhausted           a client's budget or a worker's cost cap is used up: waits, charges nothing
├── CallsUsedUp               a job has made as many calls as it may
├── TooManyAtOnce             this process has as much to do as it may: try again soon
├── LeaseLost                 the lease or its fencing token is no longer current
├── Interrupted               a stream was ended before its answer had come
│   ├── ClientDisconnected    whoever asked for it hung up
│   └── ServiceStopping       the process ends, and the grace is over
├── StorageError
│   ├── StorageUnavailable    the database cannot be reached, is busy or is full: try again later
│   └── StorageCorrupt        a stored document cannot be read
└── ProviderError             see engine.llm
"""

from typing import ClassVar

_LONGEST_SHOWN = 200


def _shown(name: str) -> str:
    """A caller's own text as an error shows it: cut where it is long."""
    return name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…"


class MetasyncError(Exception):
    """Base of all errors that Metasync raises on purpose. `code` is stable and safe to match on."""

    code: ClassVar[str] = "metasync_error"


class NotFound(MetasyncError):
    """`kind` is the resource's name in singular, as users say it."""

    code = "not_found"

    def __init__(self, kind: str, identifier: str) -> None:
        super().__init__(f"{kind} not found: {_shown(identifier)}")
        self.kind = kind
        self.identifier = identifier


class Refused(MetasyncError):
    code = "refused"


class TransitionRefused(Refused):
    code = "transition_refused"


class UnknownReference(Refused):
    """`field` names what kind of thing was looked up, `name` what was not found."""

    code = "unknown_reference"

    def __init__(self, field: str, name: str) -> None:
        super().__init__(f"{field} not found: {_shown(name)}")
        self.field = field
        self.name = name


class Duplicate(Refused):
    code = "duplicate"


class InvalidField(Refused):
    code = "invalid_field"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


class Unauthenticated(MetasyncError):
    code = "unauthenticated"


class Forbidden(MetasyncError):
    code = "forbidden"


class BudgetExhausted(MetasyncError):
    code = "budget_exhausted"


class CallsUsedUp(MetasyncError):
    code = "calls_used_up"


class TooManyAtOnce(MetasyncError):
    """Nothing was done. `retry_after` in seconds is a hint for the caller."""

    code = "too_many_at_once"

    def __init__(self, what: str, retry_after: float = 1.0) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class LeaseLost(MetasyncError):
    code = "lease_lost"


class Interrupted(MetasyncError):
    code = "interrupted"


class ClientDisconnected(Interrupted):
    code = "client_disconnected"


class ServiceStopping(Interrupted):
    code = "service_stopping"


class StorageError(MetasyncError):
    code = "storage_error"


class StorageUnavailable(StorageError):
    """`retry_after` in seconds is a hint for the caller."""

    code = "storage_unavailable"

    def __init__(self, reason: str, retry_after: float = 2.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class StorageCorrupt(StorageError):
    code = "storage_corrupt"
