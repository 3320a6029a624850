"""What changed from one prompt to the next, as HTML for a run's report: pure."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

MOST_PIECES = 1_000
"""Lines of a text, or words and gaps of a passage, that are compared one by one: that takes the square of them. What is
longer is shown as gone and come as a whole."""

_KINDS = {"edit": "edited", "trajectory": "written anew", "mutate": "mutated", "paraphrase": "said in other words"}


def difference(before: str, after: str) -> str:
    """`after` as HTML, with what is new and what is gone marked: by lines, and by words in lines that changed."""
    old, new = (text.splitlines(keepends=True) for text in (before, after))
    if before == after or max(len(old), len(new)) > MOST_PIECES:
        return escape(after) if before == after else _marked(before, after)
    return "".join(
        escape("".join(gone)) if kind == "equal" else _changed("".join(gone), "".join(come))
        for kind, gone, come in _steps(old, new)
    )


def _changed(before: str, after: str) -> str:
    old, new = (re.findall(r"\s+|[^\s]+", text) for text in (before, after))
    if max(len(old), len(new)) > MOST_PIECES:
        return _marked(before, after)
    return "".join(
        escape("".join(gone)) if kind == "equal" else _marked("".join(gone), "".join(come))
        for kind, gone, come in _steps(old, new)
    )


def _steps(old: Sequence[str], new: Sequence[str]) -> Iterable[tuple[str, Sequence[str], Sequence[str]]]:
    for kind, start, end, from_, to in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        yield kind, old[start:end], new[from_:to]


def _marked(gone: str, come: str) -> str:
    return (f"<del>{escape(gone)}</del>" if gone else "") + (f"<ins>{escape(come)}</ins>" if come else "")


def ancestry(candidates: Sequence[Mapping[str, Any]], line: Sequence[str]) -> Iterable[str]:
    """Each version from the first prompt to the best one, beside the one that it was made of; `line` names them."""
    known = {one["id"]: one for one in candidates}
    versions = [known[name] for name in line if name in known]
    if len(versions) < 3:
        return
    yield "<h2>How it came about, version by version</h2>"
    for before, after in pairwise(versions):
        why = f"<p>{escape(after['rationale'])}</p>" if after.get("rationale") else ""
        yield _unfolded(_made(before, after), f"{why}<pre>{difference(before['text'], after['text'])}</pre>")


def _made(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    parents = " and ".join(after["parents"]) or before["id"]
    how = "merged" if len(after["parents"]) > 1 else _KINDS.get(after["kind"], after["kind"])
    scores = [f"{one['score']:.3f}" for one in (before, after) if one["score"] is not None]
    return f"{after['id']}, {how} from {parents}: {' → '.join(scores) or 'not scored'}"


def suggestions(iterations: Sequence[Mapping[str, Any]], prompts: Mapping[str, str]) -> Iterable[str]:
    """What each iteration's suggestion changed in its prompt, where the texts of both are known."""
    for one in iterations:
        texts = [prompts.get(one[name] or "") for name in ("workingPromptId", "suggestedPromptId")]
        if texts[0] is not None and texts[1] is not None:
            title = f"What iteration {one['iteration']} suggested"
            yield _unfolded(title, f"<pre>{difference(texts[0], texts[1])}</pre>")


def _unfolded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
