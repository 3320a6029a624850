"""Conditions of a query: SQL text and the values bound to it, kept together."""

from typing import Any


class Conditions:
    """Conditions that hold together, in the order they were added. Formats as a WHERE clause, or as nothing."""

    def __init__(self, **equal: Any) -> None:
        """Each column that is not None must have that value."""
        self.values: tuple[Any, ...] = ()
        self._texts: list[str] = []
        for column, value in equal.items():
            if value is not None:
                self.and_(f"{column} = ?", value)

    def and_(self, text: str, *values: Any) -> "Conditions":
        self._texts.append(text)
        self.values += values
        return self

    def __str__(self) -> str:
        return " WHERE " + " AND ".join(self._texts) if self._texts else ""
