"""A job's life: the states, the events, and the one table of transitions.

Services refuse by it, the consumer settles by it, the documentation draws it. `REQUESTS` says which wished-for status
means which event, for whom and on which endpoint; the events themselves are guarded by `TRANSITIONS` alone.
"""

from dataclasses import dataclass
from enum import StrEnum

from engine.errors import TransitionRefused


class JobState(StrEnum):
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    PROCESSED = "PROCESSED"
    CONSUMED = "CONSUMED"
    ERROR_PROCESSING = "ERROR_PROCESSING"
    ERROR_CONSUMING = "ERROR_CONSUMING"
    CANCELED = "CANCELED"


class Event(StrEnum):
    CLAIM = "claim"
    COMPLETE = "complete"
    RETRY = "retry"
    RELEASE = "release"
    DEAD_LETTER = "dead_letter"
    EXPIRE = "expire"
    CANCEL = "cancel"
    CONSUME = "consume"
    REJECT = "reject"
    REDRIVE = "redrive"
    REOFFER = "reoffer"
    REOPEN = "reopen"
    REQUEUE = "requeue"
    FORCE_DEAD_LETTER = "force_dead_letter"
    FORCE_REJECT = "force_reject"


class Surface(StrEnum):
    """Which endpoint a wished-for status came through."""

    STATUS = "status"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Rule:
    """`fences` tells that the event takes the job from whoever holds it: the fencing token rises."""

    sources: frozenset[JobState]
    target: JobState
    fences: bool = False


_S = JobState
_ANY = frozenset(JobState)

TRANSITIONS: dict[Event, Rule] = {
    Event.CLAIM: Rule(frozenset({_S.PENDING}), _S.PROCESSING, fences=True),
    Event.COMPLETE: Rule(frozenset({_S.PROCESSING}), _S.PROCESSED),
    Event.RETRY: Rule(frozenset({_S.PROCESSING}), _S.PENDING),
    Event.RELEASE: Rule(frozenset({_S.PROCESSING}), _S.PENDING),
    Event.DEAD_LETTER: Rule(frozenset({_S.PROCESSING}), _S.ERROR_PROCESSING),
    Event.EXPIRE: Rule(frozenset({_S.PROCESSING}), _S.PENDING, fences=True),
    Event.CANCEL: Rule(frozenset({_S.PENDING, _S.PROCESSING, _S.PROCESSED}), _S.CANCELED, fences=True),
    Event.CONSUME: Rule(frozenset({_S.PROCESSED}), _S.CONSUMED),
    Event.REJECT: Rule(frozenset({_S.PROCESSED}), _S.ERROR_CONSUMING),
    Event.REDRIVE: Rule(frozenset({_S.ERROR_PROCESSING}), _S.PENDING),
    Event.REOFFER: Rule(frozenset({_S.ERROR_CONSUMING}), _S.PROCESSED),
    Event.REOPEN: Rule(frozenset({_S.CANCELED}), _S.PENDING),
    Event.REQUEUE: Rule(frozenset({_S.PROCESSING}), _S.PENDING, fences=True),
    Event.FORCE_DEAD_LETTER: Rule(_ANY, _S.ERROR_PROCESSING, fences=True),
    Event.FORCE_REJECT: Rule(_ANY, _S.ERROR_CONSUMING, fences=True),
}

_Wishes = dict[JobState, dict[JobState, Event]]

_CLIENT_STATUS: _Wishes = {
    _S.PENDING: {_S.CANCELED: Event.CANCEL},
    _S.PROCESSING: {_S.CANCELED: Event.CANCEL},
    _S.PROCESSED: {_S.CONSUMED: Event.CONSUME, _S.ERROR_CONSUMING: Event.REJECT, _S.CANCELED: Event.CANCEL},
    _S.ERROR_PROCESSING: {_S.PENDING: Event.REDRIVE},
    _S.ERROR_CONSUMING: {_S.PROCESSED: Event.REOFFER},
}
_CLIENT_FULL: _Wishes = {
    _S.PENDING: {_S.PROCESSING: Event.CLAIM},
    _S.PROCESSING: {_S.PROCESSED: Event.COMPLETE, _S.ERROR_PROCESSING: Event.DEAD_LETTER},
}
_FORCED = {_S.ERROR_PROCESSING: Event.FORCE_DEAD_LETTER, _S.ERROR_CONSUMING: Event.FORCE_REJECT}
_ADMIN_STATUS: _Wishes = {
    **{state: dict(_FORCED) for state in JobState},
    _S.PROCESSING: {**_FORCED, _S.PENDING: Event.REQUEUE},
    _S.CANCELED: {**_FORCED, _S.PENDING: Event.REOPEN},
}
_ADMIN_FULL: _Wishes = {
    **{state: dict(_FORCED) for state in JobState},
    _S.PENDING: {**_FORCED, _S.CANCELED: Event.CANCEL},
    _S.CANCELED: {**_FORCED, _S.PENDING: Event.REOPEN},
}

REQUESTS: dict[tuple[Surface, bool], tuple[_Wishes, ...]] = {
    (Surface.STATUS, False): (_CLIENT_STATUS,),
    (Surface.STATUS, True): (_CLIENT_STATUS, _ADMIN_STATUS),
    (Surface.FULL, False): (_CLIENT_FULL,),
    (Surface.FULL, True): (_CLIENT_FULL, _ADMIN_FULL),
}


def transition(state: JobState, event: Event) -> JobState:
    """The state after `event`; raises TransitionRefused where the table has no such row."""
    rule = TRANSITIONS[event]
    if state not in rule.sources:
        raise TransitionRefused(f"invalid status transition: {event} is not possible from {state}")
    return rule.target


def requested_event(state: JobState, wanted: JobState, surface: Surface, *, admin: bool) -> Event:
    """The event a caller means who wishes `wanted` for a job in `state`; raises TransitionRefused.

    The client's own meaning goes first: what a client may do is done the same way for an admin.
    """
    for wishes in REQUESTS[surface, admin]:
        event = wishes.get(state, {}).get(wanted)
        if event is not None:
            return event
    raise TransitionRefused(f"invalid status transition from {state} to {wanted}")
