"""Jobs whose callers wait for their end, as they are asked for and as they are shown."""

from typing import Annotated, Any

from pydantic import Field

from api.models.job import JobCreateRequest, Priority, Temperature, Text
from api.models.job_answer import JobResponse, Wire, job_to_wire
from api.models.waiting import WaitingFor, waiting_to_wire
from api.services.direct import Answered

DEFAULT_SECONDS = 60.0
LONGEST_SECONDS = 600.0

Seconds = Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]


class CompleteRequest(JobCreateRequest):
    """A job, with defaults. `timeout` in seconds is how long the answer may take; with 0 nobody waits."""

    operation: Annotated[Text, Field(min_length=1)] = "direct"
    temperature: Temperature = 0.0
    priority: Priority = 1
    timeout: Seconds | None = None


class AcceptedJobResponse(JobResponse):
    """A job that goes on as an ordinary one. `waitsFor` says what for, also when no worker would take it."""

    waits_for: WaitingFor


def accepted_to_wire(answered: Answered) -> Wire:
    """The fields of AcceptedJobResponse, without the last one where the job has ended."""
    shown: dict[str, Any] = job_to_wire(answered.job)
    if answered.waits is not None:
        shown["waitsFor"] = waiting_to_wire((answered.waits.reason, answered.waits.text))
    return shown
