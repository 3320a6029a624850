"""What a meta-model is asked, and what it answered. Pure.

A template of one's own holds {{prompt}} and {{feedback}} (or, as older ones do, {prompt} and {feedback}), and what else
of PLACEHOLDERS it likes. What is put in is never looked at for placeholders again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from engine.errors import InvalidField
from llm_optimizer.strategies.candidates import copies
from llm_optimizer.strategies.interface import Proposal, ProposalKind, Propose, Proposed, Shown, State
from utilities.json_repair import repaired_json, strict_json

LONGEST_FIELD = 1500
PLACEHOLDERS = frozenset(
    {"prompt", "feedback", "task", "history", "rejected", "examples", "score", "constraints", "prompt_b", "n"}
)
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}|\{(prompt|feedback)\}")
_FENCED = re.compile(r"```[^\n`]*\n(.*?)\n?```", re.DOTALL)

_ANSWER = """{{constraints}}
Answer with one JSON object and nothing else: {"rationale": "what you changed and why", "prompt": "the whole new text"}
"""
_ANSWERS = """{{constraints}}
Answer with one JSON object and nothing else: {"rationale": "what you changed and why", "prompts": ["a whole text"]}
with {{n}} texts that differ from one another.
"""
TEMPLATES: Mapping[ProposalKind, str] = MappingProxyType(
    {
        ProposalKind.EDIT: """You improve the instructions that another language model works by.
{{task}}
These are its instructions now:
```
{{prompt}}
```

These are answers that it gave with them, with what is to be said about each:
{{feedback}}
{{examples}}{{history}}{{rejected}}
Find out what the instructions lack, get wrong or leave open, in general and not for these inputs alone. Then write the
whole instructions anew: keep what works, add the rules that are missing, take out what does harm.
"""
        + _ANSWER,
        ProposalKind.TRAJECTORY: """You look for better instructions for another language model.
{{task}}
The best instructions so far, with a score of {{score}} of 100:
```
{{prompt}}
```
{{history}}{{examples}}
Write instructions that differ from all of these and will score higher than any.
"""
        + _ANSWERS,
        ProposalKind.MERGE: """Two instructions for the same task do well on different inputs.
{{task}}
The first:
```
{{prompt}}
```
The second:
```
{{prompt_b}}
```
{{feedback}}
Combine them: write one that keeps what each of them does well.
"""
        + _ANSWER,
        ProposalKind.PARAPHRASE: """You word instructions for another language model differently.
{{task}}
These are the instructions:
```
{{prompt}}
```
Write them anew in other words, with the same meaning: every rule stays, and none is added.
"""
        + _ANSWER,
        ProposalKind.MUTATE: """You vary the instructions that another language model works by.
{{task}}
These are the instructions that its answers were liked best with:
```
{{prompt}}
```
{{feedback}}{{examples}}
Write variants that could be liked better: clearer, more complete, or without what does harm.
"""
        + _ANSWERS,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example's texts. `expected` is None where there is no expected answer."""

    input: str
    expected: str | None = None


def check_template(field: str, template: str) -> None:
    """Raises InvalidField for a template without the two placeholders that it must have, or with an unknown one."""
    found = {match[1] or match[2] for match in _PLACEHOLDER.finditer(template)}
    if lacking := sorted({"prompt", "feedback"} - found):
        raise InvalidField(field, f"must hold {' and '.join('{{' + name + '}}' for name in lacking)}")
    if unknown := sorted(found - PLACEHOLDERS):
        raise InvalidField(field, f"unknown placeholders: {', '.join(unknown)}")


def request(
    state: State, item: Propose, examples: Mapping[str, Example], *, task: str = "", template: str | None = None
) -> str:
    """The text of the meta call for `item`, one of `plan(state)`; `examples` holds those that it names.

    A `template` of one's own is not for paraphrases, which have no feedback.
    """
    values = placeholders(state, item, examples, task=task)
    own = None if item.kind is ProposalKind.PARAPHRASE else template
    return _PLACEHOLDER.sub(
        lambda match: values.get(match[1] or match[2], match[0]), TEMPLATES[item.kind] if own is None else own
    )


def placeholders(state: State, item: Propose, examples: Mapping[str, Example], *, task: str = "") -> dict[str, str]:
    """The text of each of PLACEHOLDERS; empty where there is nothing to say."""
    texts = {name: candidate.text for name, candidate in state.candidates.items()}
    return {
        "prompt": texts[item.parent],
        "prompt_b": texts[item.second] if item.second is not None else "",
        "task": f"The task: {task}\n" if task else "",
        "feedback": _merge_feedback(item, examples) if item.second is not None else _feedback(item.shown, examples),
        "history": _history(item, texts),
        "rejected": _rejected(state, item),
        "examples": _golds(item, examples),
        "score": "" if item.score is None else f"{100 * item.score:.0f}",
        "constraints": _constraints(state),
        "n": str(item.count),
    }


def shown_ids(item: Propose) -> tuple[str, ...]:
    """The examples whose texts `request` needs."""
    return tuple(dict.fromkeys([*(one.example for one in item.shown), *item.golds, *item.wins[0], *item.wins[1]]))


def read(state: State, item: Propose, examples: Mapping[str, Example], answer: str, cost: float = 0.0) -> Proposed:
    """What the meta-model proposed: a JSON answer, else the last fenced block; with what is wrong with each text."""
    rationale, texts = _texts(answer)
    seen = [text for one in shown_ids(item) for text in (examples[one].input, examples[one].expected or "")]
    parent = state.candidates[item.parent].text
    found = [
        Proposal(
            text=text.strip(),
            rationale=rationale[:LONGEST_FIELD],
            fault="it recites an example" if copies(text, parent, seen) else None,
        )
        for text in texts[: item.count]
    ]
    return Proposed(
        key=item.key, proposals=tuple(found), problem=None if found else "the answer holds no text", cost=cost
    )


def tells(feedback: str, expected: str | None) -> bool:
    """Whether the feedback already shows the expected answer, or a value of it where that is a JSON object."""
    if not expected or not feedback:
        return False
    try:
        value = strict_json(expected)
    except ValueError:
        value = expected
    leaves = [str(leaf) for leaf in value.values()] if isinstance(value, dict) else [str(value)]
    return any(leaf and leaf.casefold() in feedback.casefold() for leaf in leaves)


def _texts(answer: str) -> tuple[str, list[str]]:
    found = _json(answer)
    if found is not None:
        texts = found.get("prompts") or [found.get("prompt")]
        good = [text for text in texts if isinstance(text, str) and text.strip()] if isinstance(texts, list) else []
        if good:
            return str(found.get("rationale") or ""), good
    blocks = [block for block in _FENCED.findall(answer) if block.strip()]
    return "", blocks[-1:]


def _json(answer: str) -> dict[str, Any] | None:
    for parse in (strict_json, repaired_json):
        try:
            value = parse(answer)
        except ValueError:
            continue
        if isinstance(value, dict) and ("prompt" in value or "prompts" in value):
            return value
    return None


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_FIELD else f"{text[:LONGEST_FIELD]}…"


def _feedback(shown: tuple[Shown, ...], examples: Mapping[str, Example]) -> str:
    blocks = [
        f"Example {number} (score {one.score:.2f})\nInput: {_cut(examples[one.example].input)}\n"
        f"Answer: {_cut(one.output)}\nFeedback: {_cut(one.feedback) or 'none'}\n"
        for number, one in enumerate(shown, 1)
    ]
    return "\n".join(blocks)


def _merge_feedback(item: Propose, examples: Mapping[str, Example]) -> str:
    lines = [
        f"The {which} does better on: {_cut(examples[one].input)}"
        for which, ids in zip(("first", "second"), item.wins, strict=True)
        for one in ids
    ]
    return "\n".join(lines)


def _golds(item: Propose, examples: Mapping[str, Example]) -> str:
    pairs = [
        f"Input: {_cut(examples[one].input)}\nExpected: {_cut(examples[one].expected or '')}\n" for one in item.golds
    ]
    return "\nInputs with the answers that are wanted:\n" + "\n".join(pairs) if pairs else ""


def _history(item: Propose, texts: Mapping[str, str]) -> str:
    others = [(one, score) for one, score in item.history if one != item.parent]
    rows = [f"Score {100 * score:.0f}:\n```\n{texts[one]}\n```" for one, score in others]
    return "\nEarlier instructions with their scores from 0 to 100:\n" + "\n".join(rows) + "\n" if rows else ""


def _rejected(state: State, item: Propose) -> str:
    rows = [
        f"Not better ({state.candidates[one].rejected}):\n```\n{state.candidates[one].text}\n```"
        for one in item.rejected
    ]
    return "\nThese were tried and were not better; do not repeat them:\n" + "\n".join(rows) + "\n" if rows else ""


def _constraints(state: State) -> str:
    parts = [f"Keep this part to the letter:\n{block}" for block in state.setup.locked]
    if state.setup.max_chars is not None:
        parts.append(f"At most {state.setup.max_chars} characters.")
    return "\n".join(["Do not copy inputs or answers from above into the text.", *parts])
