"""The state as a JSON document and back: `from_document(json.loads(json.dumps(to_document(state)))) == state`."""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from engine.errors import StorageCorrupt
from llm_optimizer.strategies.interface import Candidate, FinishReason, Setup, State

_OBJECTS = ("parameters", "weights")


def to_document(state: State) -> dict[str, Any]:
    """Lists, strings, numbers, booleans and None only; nothing of it is shared with `state`."""
    setup = {name: _listed(value) for name, value in asdict(state.setup).items()}
    return {
        "strategy": state.strategy,
        "setup": setup,
        "phase": state.phase,
        "candidates": [{name: _listed(value) for name, value in asdict(one).items()} for one in _rows(state)],
        "scores": {candidate: dict(scores) for candidate, scores in state.scores.items()},
        "step": state.step,
        "counters": dict(state.counters),
        "scratch": copy.deepcopy(state.scratch),
        "finish": state.finish.value if state.finish is not None else None,
    }


def from_document(document: Mapping[str, Any]) -> State:
    """Raises StorageCorrupt for a document that `to_document` has not made."""
    try:
        candidates = [Candidate(**{**one, "parents": tuple(one["parents"])}) for one in document["candidates"]]
        return State(
            strategy=document["strategy"],
            setup=Setup(**{name: _tupled(name, value) for name, value in document["setup"].items()}),
            phase=document["phase"],
            candidates={one.id: one for one in candidates},
            scores={candidate: dict(scores) for candidate, scores in document["scores"].items()},
            step=document["step"],
            counters=dict(document["counters"]),
            scratch=copy.deepcopy(document["scratch"]),
            finish=FinishReason(document["finish"]) if document["finish"] is not None else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageCorrupt(f"the state of a search cannot be read: {type(error).__name__}") from error


def copied(state: State) -> State:
    """A state that can be changed without changing `state`."""
    return State(
        strategy=state.strategy,
        setup=state.setup,
        phase=state.phase,
        candidates=dict(state.candidates),
        scores={candidate: dict(scores) for candidate, scores in state.scores.items()},
        step=state.step,
        counters=dict(state.counters),
        scratch=copy.deepcopy(state.scratch),
        finish=state.finish,
    )


def _rows(state: State) -> list[Candidate]:
    return list(state.candidates.values())


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tupled(name: str, value: Any) -> Any:
    return tuple(value) if isinstance(value, list) and name not in _OBJECTS else value
