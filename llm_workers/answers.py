"""What an answer's text means under a job's responseFormat. The result is always an object."""

from typing import Any

import orjson

from engine.errors import InvalidField
from engine.llm import JsonObject, ResponseFormat
from utilities.apart import Apart, GaveUp
from utilities.hop import Hop
from utilities.json_repair import repaired_json, strict_json

JUDGING_SECONDS = 10.0
_MOST_SCHEMAS = 256
_SHORT = 2000
"""Characters that can be repaired here: it takes a fraction of a second at worst."""


class Unreadable(ValueError):
    """The text is not what the format asks for. Holds nothing of the text."""


class Misfit(Unreadable):
    """It is JSON and breaks the schema."""


class Undecided(Unreadable):
    """It could not be found out whether it is: another answer would hardly fare better."""


class Answers:
    """Reads answers. What may take long is done by a process of its own, and given up after `seconds`.

    For one event loop. `hop` is best not the one that reaches the storage: whoever waits for that process keeps a
    thread waiting.
    """

    def __init__(self, hop: Hop, seconds: float = JUDGING_SECONDS) -> None:
        self._hop = hop
        self._apart = Apart("llm_workers.judging", seconds)
        self._good: set[bytes] = set()

    async def prepare(self, wanted: ResponseFormat) -> None:
        """Raises InvalidField where the format's schema is none: before a call is paid for."""
        if not isinstance(wanted, dict):
            return
        fingerprint = orjson.dumps(wanted["schema"], option=orjson.OPT_SORT_KEYS)
        if fingerprint in self._good:
            return
        try:
            problem = (await self._judged("compile", wanted["schema"]))["problem"]
        except Unreadable as error:
            raise InvalidField("responseFormat", "the schema cannot be checked in time") from error
        if problem is not None:
            raise InvalidField("responseFormat", problem)
        if len(self._good) >= _MOST_SCHEMAS:
            self._good.clear()
        self._good.add(fingerprint)

    async def read(self, text: str, wanted: ResponseFormat) -> JsonObject:
        """The object that is stored: {"text": …}, the JSON object itself, or {"value": …} for a list or scalar.

        Raises Unreadable, and InvalidField as `prepare` does.
        """
        if wanted == "text":
            return {"text": text}
        value = await self._value(text)
        if isinstance(wanted, dict):
            await self.prepare(wanted)
            await self._check(wanted["schema"], value)
        return value if isinstance(value, dict) else {"value": value}

    async def aclose(self) -> None:
        self._apart.close()

    async def _check(self, schema: Any, value: Any) -> None:
        judged = await self._judged("check", schema, value)
        if "error" in judged:
            raise Undecided(f"the answer cannot be held to the schema: {judged['error']}")
        if judged["problem"] is not None:
            raise Misfit(f"the answer does not match the schema: {judged['problem']}")

    async def _value(self, text: str) -> Any:
        try:
            return strict_json(text)
        except ValueError:
            pass
        try:
            return await self._hop(repaired_json, text) if len(text) < _SHORT else await self._repaired(text)
        except Unreadable:
            raise
        except ValueError as error:
            raise Unreadable(f"the answer is not JSON: {error}") from error

    async def _repaired(self, text: str) -> Any:
        answer = await self._judged("repair", text)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["value"]

    async def _judged(self, *request: Any) -> dict[str, Any]:
        """Raises Undecided where it took too long."""
        try:
            answer: dict[str, Any] = orjson.loads(await self._hop(self._apart, orjson.dumps(request)))
        except (GaveUp, TypeError) as error:  # TypeError: half a character, which JSON cannot hold
            raise Undecided("the answer could not be read in time, or at all") from error
        return answer
