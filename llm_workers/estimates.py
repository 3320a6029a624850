"""How many tokens a call will take, guessed before it is made: a count of characters, calibrated by what calls took.

The vendors' own tokenizers load their vocabularies from the network, so none is used. The guess is meant to be a little
high: what it was too high is given back when the call has ended.
"""

from engine.llm import CompletionRequest, Usage

_FIRST_RATIO = 3.0
"""Characters per token before anything is known: low, so that the guess is high. English text has about four."""
_FIRST_ANSWER = 512.0
_SMOOTHING = 0.05
_SAFETY = 1.1
_DEVIATIONS = 2.0
_OVERHEAD = 16
"""Tokens for the roles and separators around the texts."""


class Estimator:
    """Learns from one model's calls. Not synchronized: a torn average does no harm, and is a guess anyway."""

    def __init__(self) -> None:
        self._ratio = _FIRST_RATIO
        self._answer = _FIRST_ANSWER
        self._deviation = 0.0
        self._seen = 0

    def estimate(self, request: CompletionRequest) -> int:
        """Tokens of the whole call, in and out."""
        return sum(self.parts(request))

    def parts(self, request: CompletionRequest) -> tuple[int, int]:
        """Tokens in and out."""
        answer = self._answer + _DEVIATIONS * self._deviation
        if request.max_tokens is not None:
            answer = min(answer, float(request.max_tokens))
        return int(_characters(request) / self._ratio * _SAFETY) + _OVERHEAD, int(answer)

    def learn(self, request: CompletionRequest, usage: Usage) -> None:
        if usage.input_tokens <= 0:
            return
        self._seen += 1
        weight = max(_SMOOTHING, 1 / self._seen)
        ratio = _characters(request) / max(usage.input_tokens, 1)
        self._ratio += weight * (max(ratio, 0.1) - self._ratio)
        off = usage.output_tokens - self._answer
        self._deviation += weight * (abs(off) - self._deviation) if self._seen > 1 else 0.0
        self._answer += weight * off


def _characters(request: CompletionRequest) -> int:
    return len(request.system) + len(request.user) + sum(len(turn.text) for turn in request.turns)
