"""What something waits for, as it is shown."""

from typing import Any

from api.models.base import Answer


class WaitingFor(Answer):
    """`reason` and `text` as in GET /jobs/{job_id}/explain; database_away where that cannot be told now."""

    reason: str
    text: str


def waiting_to_wire(waits: tuple[str, str] | None) -> dict[str, Any] | None:
    """The fields of WaitingFor; None where nothing is waited for."""
    return None if waits is None else {"reason": waits[0], "text": waits[1]}
