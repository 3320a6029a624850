"""A job's life: the table of transitions, written down a second time."""

import pytest

from engine.errors import TransitionRefused
from engine.jobs.states import (
    REQUESTS,
    TRANSITIONS,
    Event,
    JobState,
    Surface,
    requested_event,
    transition,
)

EVERY = " ".join(JobState)
LIFE = {
    "claim": ("PENDING", "PROCESSING"),
    "complete": ("PROCESSING", "PROCESSED"),
    "retry": ("PROCESSING", "PENDING"),
    "release": ("PROCESSING", "PENDING"),
    "dead_letter": ("PROCESSING", "ERROR_PROCESSING"),
    "expire": ("PROCESSING", "PENDING"),
    "cancel": ("PENDING PROCESSED PROCESSING", "CANCELED"),
    "consume": ("PROCESSED", "CONSUMED"),
    "reject": ("PROCESSED", "ERROR_CONSUMING"),
    "redrive": ("ERROR_PROCESSING", "PENDING"),
    "reoffer": ("ERROR_CONSUMING", "PROCESSED"),
    "reopen": ("CANCELED", "PENDING"),
    "requeue": ("PROCESSING", "PENDING"),
    "force_dead_letter": (EVERY, "ERROR_PROCESSING"),
    "force_reject": (EVERY, "ERROR_CONSUMING"),
}
"""Event: from which states, to which one. An expired lease is claimed by way of `expire`, which records the loss."""
FENCING = {"claim", "expire", "cancel", "requeue", "force_dead_letter", "force_reject"}
"""What takes a job from whoever holds it, or gives it to a new holder."""
OF_THE_HOLDER = {Event.RETRY, Event.RELEASE, Event.EXPIRE}
"""What only whoever works on a job, or recovery, can bring about."""


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("event", Event)
def test_every_event_from_every_state(state: JobState, event: Event) -> None:
    """An event leads where the table says, and is refused from every other state with a message that names both."""
    sources, target = LIFE[event]
    if state in sources.split():
        assert transition(state, event) == target
        return
    with pytest.raises(TransitionRefused) as refusal:
        transition(state, event)
    assert str(event) in str(refusal.value)
    assert str(state) in str(refusal.value)


def test_what_takes_a_job_away_fences_its_holder() -> None:
    """The token rises with every claim and with every event that takes the job from its holder, and no other."""
    assert {str(event) for event, rule in TRANSITIONS.items() if rule.fences} == FENCING


def test_every_state_is_reached_and_left() -> None:
    """No state is out of reach of a new job, and an admin can lead a job out of any."""
    reached, frontier = {JobState.PENDING}, [JobState.PENDING]
    while frontier:
        state = frontier.pop()
        found = {rule.target for rule in TRANSITIONS.values() if state in rule.sources} - reached
        reached |= found
        frontier += found
    assert reached == set(JobState)
    assert all(
        any(state in rule.sources and rule.target != state for rule in TRANSITIONS.values()) for state in reached
    )


@pytest.mark.parametrize("admin", [False, True])
@pytest.mark.parametrize("surface", Surface)
@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("wanted", JobState)
def test_a_wish_means_an_event_that_grants_it(state: JobState, wanted: JobState, surface: Surface, admin: bool) -> None:
    """Whatever a caller may wish for, the event it means is possible and leads to just that status; the rest is refused
    with a message that names both states."""
    if not any(wanted in wishes.get(state, {}) for wishes in REQUESTS[surface, admin]):
        with pytest.raises(TransitionRefused, match=f"from {state} to {wanted}"):
            requested_event(state, wanted, surface, admin=admin)
        return
    event = requested_event(state, wanted, surface, admin=admin)
    assert transition(state, event) is wanted
    assert event not in OF_THE_HOLDER


@pytest.mark.parametrize("surface", Surface)
@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("wanted", JobState)
def test_an_admin_may_whatever_a_client_may(state: JobState, wanted: JobState, surface: Surface) -> None:
    """What a client is granted, an admin is granted by the same event."""
    try:
        event = requested_event(state, wanted, surface, admin=False)
    except TransitionRefused:
        return
    assert requested_event(state, wanted, surface, admin=True) is event


@pytest.mark.parametrize("state", JobState)
def test_an_admin_may_force_an_error_from_anywhere(state: JobState) -> None:
    """Forcing a job into an error state is never refused to an admin, on either endpoint."""
    for surface in Surface:
        for wanted in (JobState.ERROR_PROCESSING, JobState.ERROR_CONSUMING):
            assert requested_event(state, wanted, surface, admin=True)


def test_nobody_works_by_wishing() -> None:
    """Through PATCH /status nobody can take a job as a worker does, nor give a result."""
    for state in JobState:
        with pytest.raises(TransitionRefused):
            requested_event(state, JobState.PROCESSING, Surface.STATUS, admin=True)
    with pytest.raises(TransitionRefused):
        requested_event(JobState.PROCESSING, JobState.PROCESSED, Surface.STATUS, admin=True)
