"""What is left of a model's limits, in the headers in which OpenAI's API tells it, with answers and errors alike."""

from collections.abc import Callable, Mapping, Sequence

from starlette.types import Scope

from engine.llm import Level

_LEVELS = "metasync.levels"


def limit_headers(levels: Sequence[Level]) -> dict[str, str]:
    """Nothing of limits that the model does not have."""
    headers = {}
    for level in levels:
        headers[f"x-ratelimit-limit-{level.kind}"] = str(level.limit)
        headers[f"x-ratelimit-remaining-{level.kind}"] = str(level.remaining)
        headers[f"x-ratelimit-reset-{level.kind}"] = f"{level.resets_in:.3f}s"
    return headers


def tell_if_it_fails(scope: Scope, levels: Callable[[], Sequence[Level]]) -> None:
    """From now on an error of this request tells `levels`, as they are then. For callers who are known already."""
    scope[_LEVELS] = levels


def limits_told(scope: Scope) -> Mapping[str, str]:
    """The headers of an error: none before it is known which model is meant, and by whom."""
    levels = scope.get(_LEVELS)
    return {} if levels is None else limit_headers(levels())
