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
_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?( [A-Z]{3})?( of \d+)?")
_NUMERIC, _BEST = ' class="n"', ' class="best"'
_ROLES = {"work": "working", "eval": "judge", "meta": "editing"}
_TREE = "Green: the best one. Blue: in the search to its end. Grey: dropped. Lines lead to what a prompt was made of."
_OUT = (
    "Fault: the text could not be tried. Gate: it did no better than its parent on a few examples. Race: it fell "
    "behind while it was scored on more of them. Scores on fewer examples say less."
)
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2430;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #dde2e8}
.wide{overflow-x:auto}.wide table,.wide svg{min-width:34rem}svg{width:100%;height:auto}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;text-align:left;vertical-align:top}
th{color:#5b6674;font-weight:600}tr{border-bottom:1px solid #eef1f4}.n{text-align:right;white-space:nowrap}
td{overflow-wrap:anywhere}.facts{width:auto}.facts td:first-child{color:#5b6674}.best td{font-weight:600}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f8fa;padding:.8rem;border-radius:.4rem}
ins{background:#d3f2d9;text-decoration:none}del{background:#fbd5d5}
.verdict{font-size:1.1rem;padding:.6rem .9rem;background:#eef4fb;border-left:4px solid #1f5fa8}
span{white-space:nowrap}.win{color:#2b8a3e}.loss{color:#c92a2a}.muted{color:#5b6674}
details{margin:.6rem 0}summary{cursor:pointer}
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
    if report["verdict"] is not None:
        yield f'<p class="verdict">{_text(verdict_of(report))} {_text(_ended(report))}</p>'
    rows = "".join(f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>" for name, value in _facts(report))
    yield f'<table class="facts">{rows}</table>'
    yield from _test(report)
    yield from _combinations(report["combinations"])
    yield from _plot("Score over spend", score_over_spend(report["points"], report["baseline"]))
    yield from _plot("Family tree", family_tree(report["candidates"], report["winner"]), _TREE)
    yield "<h2>What changed in the prompt</h2>"
    yield "" if report["changed"] else '<p class="muted">Nothing: the prompt is as it was.</p>'
    yield f"<pre>{difference(report['first'], report['winner'])}</pre>"
    yield from ancestry(report["candidates"], report["ancestry"])
    yield from _items(report["items"], weighted=bool(report["numbers"].get("weighted")))
    yield from _candidates(report)


def _ended(report: Mapping[str, Any]) -> str:
    reason = str(report["finishReason"])
    return f"The search ended because {_REASONS.get(reason, reason)}."


def verdict_of(report: Mapping[str, Any]) -> str:
    """The verdict in a sentence that is true of the numbers behind it."""
    verdict, numbers = str(report["verdict"]), report["numbers"]
    test = numbers.get("test")
    if verdict == "no_improvement" and all(one["kind"] == "seed" for one in report["candidates"]):
        return "No other prompt was tried."
    if verdict != "not_proven" or test is None:
        return _VERDICTS[verdict]
    if not numbers.get("validated", True):
        return "The new prompt looked better, but the dataset is too small to keep examples back: nothing is proven."
    if not test["count"]:
        return "The new prompt looked better, but the budget ended before it could be tested on unseen examples."
    if test["mean"] <= 0:
        return "The new prompt looked better in the search, but on unseen examples it does not do better."
    return _VERDICTS[verdict]


def _facts(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    unseen = report["holdout"]
    rows = [
        ("Strategy", report["strategy"]),
        ("Models", _models(report["winnerModels"])),
        ("Budget", _budget(report["budget"])),
        ("Prompts tried", len(report["candidates"])),
        ("Score while searching (validation)", _change(report["baseline"], report["best"])),
        ("Score on unseen examples (holdout)", _change(unseen["first"], unseen["winner"])),
    ]
    return [row for row in rows if row[1] != ""]


def _budget(budget: Mapping[str, Any]) -> str:
    told = [f"{budget[name]:,} {name}" for name in ("calls", "tokens", "seconds") if name in budget]
    amount = budget.get("amount")
    return ", ".join([*told, f"{amount['amount']:g} {amount['currency']}"] if amount else told)


def _change(before: float | None, after: float | None) -> str:
    return " → ".join(_score(each) for each in (before, after) if each is not None)


def _models(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    judge = "" if found["judgeModel"] is None else f", judged for that by {found['judgeModel']}"
    return f"{found['workingModel']}, edited by {found['metaModel']}{judge}"


def _combinations(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if rows:
        yield "<h2>Combinations of models</h2>"
        yield (
            '<p class="muted">Scores are of each one\'s last playoff, by the judge that all share; the more often one '
            "went on, the better the prompts that it was scored with.</p>"
        )
        yield _table(("Models", "Score", "Rollouts", "Cost of 1,000 rollouts", "Went on"), map(_combination, rows))


def _combination(row: Mapping[str, Any]) -> Sequence[Any]:
    cost = "" if row["costPer1000"] is None else f"{row['costPer1000']:.4f}"
    return _models(row), _score(row["score"]), f"{row['rollouts']:,}", cost, "to the end" if row["left"] else ""


def _test(report: Mapping[str, Any]) -> Iterable[str]:
    test = report["numbers"].get("test")
    if test is None or not test["count"]:
        return
    count = int(test["count"])
    kept_back = int(report["numbers"]["examples"]["holdout"])
    of_all = f"{count} of the {kept_back} examples that were kept back" if count < kept_back else f"{count} examples"
    yield "<h2>The proof on examples that the search never saw</h2>"
    interval = f"95&nbsp;% interval {test['low']:+.3f} to {test['high']:+.3f}"
    said = " ".join(_said_of(test, report["verdict"]))
    yield f"<p>Mean gain <strong>{test['mean']:+.3f}</strong> over {of_all}, {interval}: {said}</p>"
    if count < kept_back:
        yield '<p class="muted">The budget did not reach for the others, or their answers have no score.</p>'


def _said_of(test: Mapping[str, Any], verdict: str) -> Iterable[str]:
    count, wins, losses = int(test["count"]), int(test["wins"]), int(test["losses"])
    looks, times = int(test.get("looks", 1)), int(test.get("judgements", 1))
    yield f"{wins} better, {losses} worse, {count - wins - losses} equal."
    yield f"Were both prompts equally good, luck would give such a gain with probability p&nbsp;=&nbsp;{test['p']:.4f};"
    if looks > 1:
        yield f"p had to be below {test['level']:.4f}, since {looks} runs have looked at these examples."
    else:
        yield f"p had to be below {test.get('level', 0.05):g}."
    if times > 1:
        yield f"The judge was asked {times} times about each answer, as it wavers."
    if verdict == "not_proven" and test["enough"] is not None:
        yield f"If the gain is real, about {test['enough']} examples would prove it four times in five."


def _plot(title: str, svg: str | None, legend: str = "") -> Iterable[str]:
    if svg is not None:
        yield f'<h2>{_text(title)}</h2><div class="wide">{svg}</div>'
        yield f'<p class="muted">{_text(legend)}</p>' if legend else ""


def _items(items: Sequence[Mapping[str, Any]], *, weighted: bool) -> Iterable[str]:
    if not items:
        return
    names = ["input", *(["expected"] if any(one["expected"] is not None for one in items) else [])]
    names += [*(["weight"] if weighted else []), "before", "after"]
    rows = [(*(_cell(one[name]) for name in names), _won(one)) for one in items]
    yield "<h2>Item by item</h2>"
    yield _table((*map(str.capitalize, names), ""), rows, raw_last=True)


def _won(item: Mapping[str, Any]) -> str:
    if item["before"] is None or item["after"] is None:
        return '<span class="muted">no score</span>'
    gain = item["after"] - item["before"]
    if gain == 0:
        return ""
    return f'<span class="win">+{gain:.2f}</span>' if gain > 0 else f'<span class="loss">{gain:.2f}</span>'


def _candidates(report: Mapping[str, Any]) -> Iterable[str]:
    best = report["ancestry"][-1] if report["ancestry"] else None
    whole = report["numbers"].get("examples", {}).get("validation")
    rows = [_tried(one, whole, best) for one in report["candidates"]]
    marked = [place for place, one in enumerate(report["candidates"]) if one["id"] == best]
    yield "<h2>Prompts that were tried</h2>"
    yield f'<p class="muted">{_text(_OUT)}</p>'
    yield _table(("Name", "Made of", "How", "Score", "Examples", "Why it is out"), rows, marked=marked)


def _tried(one: Mapping[str, Any], whole: int | None, best: str | None) -> Sequence[Any]:
    scored = one.get("scored") or 0
    examples = f"{scored} of {whole}" if scored and whole is not None else ""
    why = "the best one" if one["id"] == best else one.get("rejected") or ""
    return one["id"], ", ".join(one["parents"]), one["kind"], _score(one["score"]), examples, why


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
        (
            _ROLES.get(role, role),
            *(f"{one[name]:,}" for name in ("calls", "inputTokens", "outputTokens")),
            f"{one['seconds']:,.1f}",
            _amount(one),
        )
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


def _table(
    names: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    raw_last: bool = False,
    marked: Sequence[int] = (),
) -> str:
    """With `raw_last` the last cell of each row is HTML already. `marked` are the places of rows that stand out."""
    cells = [_cells(row, raw_last) for row in rows]
    numeric = [
        any(each) and all(_NUMBER.fullmatch(cell) for cell in each if cell) for each in zip(*cells, strict=True)
    ] or [False] * len(names)
    sides = [_NUMERIC if each else "" for each in numeric]
    head = "".join(f"<th{side}>{_text(name)}</th>" for name, side in zip(names, sides, strict=True))
    body = [
        f"<tr{_BEST if place in marked else ''}>"
        + "".join(f"<td{side}>{cell}</td>" for cell, side in zip(row, sides, strict=True))
        + "</tr>"
        for place, row in enumerate(cells)
    ]
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def _cells(row: Sequence[Any], raw_last: bool) -> list[str]:
    cells = [_text("" if cell is None else cell) for cell in row]
    return [*cells[:-1], str(row[-1])] if raw_last else cells


def _text(value: Any) -> str:
    return escape(str(value))
