"""A run's report as one HTML page that loads nothing and runs nothing: pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from api.services.run_differences import ancestry, difference, suggestions
from api.services.run_plots import family_tree, score_over_spend

_VERDICTS = {
    "promoted": "The new prompt is proven better, and published.",
    "proven": "The new prompt is proven better. It is a draft until somebody promotes it.",
    "not_proven": "The new prompt looked better, but the examples that were kept back do not prove it.",
    "no_improvement": "Nothing that was tried did better than the prompt it began with.",
    "no_headroom": "The prompt is nearly perfect already: there is nothing to gain that could be told from noise.",
}
_REASONS = {
    "budget": "its budget was used up",
    "iterations": "it had all of its iterations",
    "target": "the target was reached",
    "no_improvement": "nothing better was found for as long as its patience lasted",
    "no_headroom": "there was nothing to gain",
    "perfect": "there was nothing left that went wrong",
    "cancelled": "it was cancelled",
    "error": "too many answers had no score",
}
_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?( [A-Z]{3})?")
_NUMERIC = ' class="n"'
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2430;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #dde2e8}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;text-align:left;vertical-align:top}
th{color:#5b6674;font-weight:600}tr{border-bottom:1px solid #eef1f4}td.n{text-align:right;white-space:nowrap}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f8fa;padding:.8rem;border-radius:.4rem}
ins{background:#d3f2d9;text-decoration:none}del{background:#fbd5d5}
.verdict{font-size:1.1rem;padding:.6rem .9rem;background:#eef4fb;border-left:4px solid #1f5fa8}
.facts{width:auto}.facts td:first-child{color:#5b6674}
span{white-space:nowrap}.win{color:#2b8a3e}.loss{color:#c92a2a}.muted{color:#5b6674}svg{max-width:100%;height:auto}
td{overflow-wrap:anywhere}details{margin:.6rem 0}summary{cursor:pointer}
@media (max-width:40rem){td,th{padding:.25rem .3rem}body{font-size:14px}}
"""


def report_page(report: Mapping[str, Any]) -> str:
    """The page for a report of llm_optimizer.report."""
    parts = _search(report) if report["kind"] == "search" else _refinement(report)
    body = "\n".join((f"<h1>Run {_text(report['runId'])}</h1>", *_status(report), *parts, *_spent(report)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Run {_text(report['runId'])}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _status(report: Mapping[str, Any]) -> Iterable[str]:
    yield f'<p class="muted">{_text(report["status"])}, begun {_text(report["createdAt"])[:16]} UTC</p>'
    if report["failureReason"]:
        yield f'<p class="verdict">It failed: {_text(report["failureReason"])}</p>'


def _search(report: Mapping[str, Any]) -> Iterable[str]:
    verdict, reason = report["verdict"], report["finishReason"]
    if verdict is not None:
        why = _REASONS.get(str(reason), str(reason))
        yield f'<p class="verdict">{_text(_VERDICTS[str(verdict)])} The search ended because {_text(why)}.</p>'
    rows = "".join(f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>" for name, value in _facts(report))
    yield f'<table class="facts">{rows}</table>'
    yield from _test(report["numbers"].get("test"), undecided=verdict == "not_proven")
    yield from _combinations(report["combinations"])
    yield from _plot("Score over spend", score_over_spend(report["points"], report["baseline"]))
    yield from _plot("Family tree", family_tree(report["candidates"], report["winner"]))
    yield "<h2>What changed in the prompt</h2>"
    yield f"<pre>{difference(report['first'], report['winner'])}</pre>"
    yield from ancestry(report["candidates"], report["ancestry"])
    yield from _items(report["items"])
    yield from _candidates(report["candidates"])


def _facts(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    kept_back = report["holdout"]
    rows = [
        ("Strategy", report["strategy"]),
        ("Models", _models(report["winnerModels"])),
        ("Prompts tried", len(report["candidates"])),
        ("Steps", report["steps"]),
        ("Score while searching (validation)", _change(report["baseline"], report["best"])),
        ("Score on unseen examples (holdout)", _change(kept_back["first"], kept_back["winner"])),
    ]
    return [row for row in rows if row[1] != ""]


def _change(before: float | None, after: float | None) -> str:
    return " → ".join(_score(each) for each in (before, after) if each is not None)


def _models(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    judge = "" if found["judgeModel"] is None else f", judged for that by {found['judgeModel']}"
    return f"{found['workingModel']}, edited by {found['metaModel']}{judge}"


def _combinations(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Scores are by the judge that all share."""
    if rows:
        yield "<h2>Combinations of models</h2>"
        head = ("Models", "Score", "Rollouts", "Cost of 1,000", "Left")
        yield _table(head, [_combination(row) for row in rows])


def _combination(row: Mapping[str, Any]) -> Sequence[Any]:
    cost = "" if row["costPer1000"] is None else f"{row['costPer1000']:.4f}"
    return _models(row), _score(row["score"]), row["rollouts"], cost, "yes" if row["left"] else "no"


def _test(test: Mapping[str, Any] | None, *, undecided: bool) -> Iterable[str]:
    if test is None:
        return
    yield "<h2>The proof on examples that the search never saw</h2>"
    looks, times = int(test.get("looks", 1)), int(test.get("judgements", 1))
    wins, losses = int(test["wins"]), int(test["losses"])
    told = [
        f"{wins} better, {losses} worse, {int(test['count']) - wins - losses} equal.",
        f"A gain this high would come by luck with a probability of p&nbsp;=&nbsp;{test['p']:.4f}.",
    ]
    if looks > 1:
        told.append(f"It had to be below {test['level']:.4f}, since {looks} runs have looked at these examples.")
    if times > 1:
        told.append(f"The judge was asked {times} times about each answer, as it wavers.")
    if undecided and test["enough"] is not None:
        told.append(f"If the gain is real, about {test['enough']} examples would prove it four times in five.")
    yield (
        f"<p>Mean gain <strong>{test['mean']:+.3f}</strong> over {_text(test['count'])} examples, "
        f"95&nbsp;% interval {test['low']:+.3f} to {test['high']:+.3f}: {' '.join(told)}</p>"
    )


def _plot(title: str, svg: str | None) -> Iterable[str]:
    if svg is not None:
        yield f"<h2>{_text(title)}</h2>{svg}"


def _items(items: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if items:
        names = ("input", "expected", "before", "after")
        rows = [(*(_cell(one[name]) for name in names), _won(one)) for one in items]
        yield "<h2>Item by item</h2>"
        yield _table(("Input", "Expected", "Before", "After", ""), rows, raw_last=True)


def _won(item: Mapping[str, Any]) -> str:
    if item["before"] is None or item["after"] is None:
        return '<span class="muted">no score</span>'
    gain = item["after"] - item["before"]
    if gain == 0:
        return ""
    return f'<span class="win">+{gain:.2f}</span>' if gain > 0 else f'<span class="loss">{gain:.2f}</span>'


def _candidates(candidates: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    rows = [
        (one["id"], ", ".join(one["parents"]), one["kind"], _score(one["score"]), one.get("rejected") or "")
        for one in candidates
    ]
    yield "<h2>Prompts that were tried</h2>"
    yield _table(("Name", "Made of", "How", "Score", "Why it is out"), rows)


def _refinement(report: Mapping[str, Any]) -> Iterable[str]:
    for each in report["models"]:
        rows = [
            (one["iteration"], one["status"], _score(one["score"]), one["workingPromptId"], one["suggestedPromptId"])
            for one in each["iterations"]
        ]
        yield f"<h2>{_text(each['model'])}</h2>"
        yield _table(("Iteration", "Status", "Score", "Prompt", "Suggested"), rows)
        yield from suggestions(each["iterations"], report["prompts"])


def _spent(report: Mapping[str, Any]) -> Iterable[str]:
    named = [*report["spent"].items(), ("all", report["total"])]
    rows = [
        (role, one["calls"], one["inputTokens"], one["outputTokens"], f"{one['seconds']:.1f}", _amount(one))
        for role, one in named
    ]
    yield "<h2>What it took</h2>"
    yield _table(("Role", "Calls", "Tokens in", "Tokens out", "Seconds", "Cost"), rows)


def _amount(one: Mapping[str, Any]) -> str:
    return "" if one["amount"] is None else f"{one['amount']:.6f} {one['currency']}"


def _cell(value: str | float | None) -> str:
    return _score(value) if isinstance(value, float) else value or ""


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]], *, raw_last: bool = False) -> str:
    """With `raw_last` the last cell of each row is HTML already."""
    head = f"<tr>{''.join(f'<th>{_text(name)}</th>' for name in names)}</tr>" if names else ""
    return f"<table>{head}{''.join(_row(row, raw_last) for row in rows)}</table>"


def _row(row: Sequence[Any], raw_last: bool) -> str:
    cells = [_text("" if cell is None else cell) for cell in row]
    if raw_last:
        cells[-1] = str(row[-1])
    marked = (f"<td{_NUMERIC if _NUMBER.fullmatch(cell) else ''}>{cell}</td>" for cell in cells)
    return f"<tr>{''.join(marked)}</tr>"


def _text(value: Any) -> str:
    return escape(str(value))
