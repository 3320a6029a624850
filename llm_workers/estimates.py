"""How many tokens a call will take, guessed before it is made: a count of characters, calibrated by what calls took.

The vendors' own tokenizers load their vocabularies from the network, so none is used.
"""

import math

from engine.llm import CompletionRequest, Usage
from llm_workers.chats import characters_in_chat, characters_in_input, choices_in
from llm_workers.messages import characters_in_messages

_FIRST_RATIO = 3.0
"""Characters per token before anything is known: low, so that the guess is high. English text has about four."""
_LEAST_RATIO, _MOST_RATIO = 0.1, 16.0
"""Of what is no text, and was taken for one, nothing is learned that texts would suffer from."""
_FIRST_ANSWER = 512.0
_SMOOTHING = 0.05
_SAFETY = 1.1
_ROUNDING = 1e-6
_DEVIATIONS = 2.0
_OVERHEAD = 16
"""Tokens for the roles and separators around the texts, which are in the ratio once that is known."""


class Estimator:
    """Learns from one model's calls, of which it has `seen` so many. Not synchronized: a torn average does no harm, and
    is a guess anyway."""

    def __init__(self) -> None:
        self._ratio = _FIRST_RATIO
        self._answer = _FIRST_ANSWER
        self._deviation = 0.0
        self.seen = 0

    def estimate(self, request: CompletionRequest, limit: int | None = None) -> int:
        """Tokens of the whole call, to be booked on a limit: as many as such calls take on average, and a little more
        where so few of them make up the limit that their differences may not even out."""
        if not self.seen or limit is None:
            return sum(self.parts(request))
        answer = self._answer if request.max_tokens is None else min(self._answer, float(request.max_tokens))
        mean = _characters(request) / self._ratio + answer * choices_in(request.chat)
        calls = max(limit / max(mean, 1.0), 1.0)
        return math.ceil(mean + _DEVIATIONS * self._deviation / math.sqrt(calls) - _ROUNDING)

    def parts(self, request: CompletionRequest) -> tuple[int, int]:
        """Tokens in and out, rather too many than too few."""
        answer = self._answer + _DEVIATIONS * self._deviation
        if request.max_tokens is not None:
            answer = min(answer, float(request.max_tokens))
        unknown = 0 if self.seen else _OVERHEAD
        given = int(_characters(request) / self._ratio * _SAFETY)
        return given + unknown + 1, int(answer * choices_in(request.chat))

    def so_far(self, request: CompletionRequest, characters: int) -> Usage:
        """What a call has taken whose answer was cut off after so many characters."""
        given = math.ceil(_characters(request) / self._ratio)
        return Usage(input_tokens=given, output_tokens=math.ceil(characters / self._ratio))

    def learn(self, request: CompletionRequest, usage: Usage) -> None:
        if usage.input_tokens <= 0:
            return
        self.seen += 1
        weight = max(_SMOOTHING, 1 / self.seen)
        ratio = _characters(request) / max(usage.input_tokens, 1)
        self._ratio += weight * (min(max(ratio, _LEAST_RATIO), _MOST_RATIO) - self._ratio)
        off = usage.output_tokens / choices_in(request.chat) - self._answer
        self._deviation += weight * (abs(off) - self._deviation) if self.seen > 1 else 0.0
        self._answer += weight * off


def _characters(request: CompletionRequest) -> int:
    if request.chat is not None:
        return characters_in_chat(request.chat)
    if request.messages is not None:
        return characters_in_messages(request.messages)
    if request.embeds is not None:
        return characters_in_input(request.embeds)
    return len(request.system) + len(request.user) + sum(len(turn.text) for turn in request.turns)
