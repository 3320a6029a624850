"""A value that only a service can judge, refused in the form of a failed validation."""

from typing import Any

from engine.errors import MetasyncError


class Unprocessable(MetasyncError):
    """Answered as 422 with `detail` = [{type, loc, msg, input}]. `loc` is like ("body", "sdk")."""

    code = "unprocessable"

    def __init__(self, loc: tuple[str | int, ...], message: str, value: Any) -> None:
        super().__init__(message)
        self.loc = loc
        self.value = value


class KeyReused(Unprocessable):
    """An idempotency key came back with another body."""

    code = "idempotency_key_reused"

    def __init__(self, key: str) -> None:
        place = ("header", "Idempotency-Key")
        super().__init__(place, "this Idempotency-Key was used before with another request body", key)
