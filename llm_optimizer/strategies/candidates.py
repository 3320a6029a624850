"""What a proposed text must be before a rollout is spent on it, and how it becomes a candidate. Pure."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace

from llm_optimizer.strategies.interface import Candidate, Proposal, State
from llm_optimizer.strategies.pool import FAULT

VARIABLE = re.compile(r"\{\{\s*([\w.]+)\s*\}\}")
SHORTEST_LIMIT = 4000
COPIED_WORDS = 8
_WORD = re.compile(r"\w+")


def fingerprint(text: str) -> str:
    """Equal for texts that differ in case and white space alone."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode()).hexdigest()


def add(state: State, proposal: Proposal, parents: tuple[str, ...], kind: str) -> Candidate:
    """Takes the proposal into `state`, as rejected where something is wrong with it."""
    problem = proposal.fault or fault(state, proposal.text, parents[0])
    candidate = Candidate(
        id=f"c{len(state.candidates)}",
        text=proposal.text,
        parents=parents,
        step=state.step,
        kind=kind,
        rationale=proposal.rationale,
        rejected=f"{FAULT}: {problem}" if problem else None,
    )
    state.candidates[candidate.id] = candidate
    return candidate


def reject(state: State, candidate: str, reason: str) -> None:
    state.candidates[candidate] = replace(state.candidates[candidate], rejected=reason)


def fault(state: State, text: str, parent: str) -> str | None:
    """Why the text cannot be a candidate; None when it can."""
    origin = state.candidates[parent].text
    if not text.strip():
        return "it is empty"
    if fingerprint(text) in {fingerprint(one.text) for one in state.candidates.values()}:
        return "it was tried before"
    if set(VARIABLE.findall(text)) != set(VARIABLE.findall(origin)):
        return "its template variables are not those of the prompt it was made from"
    longest = state.setup.max_chars or max(SHORTEST_LIMIT, 3 * len(origin))
    if len(text) > longest:
        return f"it has more than {longest} characters"
    if any(block not in text for block in state.setup.locked):
        return "it changes a locked part"
    return None


def copies(text: str, parent: str, examples: Iterable[str]) -> bool:
    """Whether `text` holds eight words in a row of one of `examples` that `parent` does not hold.

    A prompt that recites examples scores well on them and nowhere else.
    """
    allowed = _runs(parent)
    mine = _runs(text) - allowed
    return any(mine & _runs(example) for example in examples)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = [word.casefold() for word in _WORD.findall(text)]
    return {tuple(words[at : at + COPIED_WORDS]) for at in range(len(words) - COPIED_WORDS + 1)}
