"""The plots of a run's report as SVG texts: pure."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

_SIZE = (8.0, 3.2)
_MOST_NAMED = 25
_ACCENT, _MUTED, _GOOD, _DARK = "#1f5fa8", "#9aa4b0", "#2b8a3e", "#5b6674"


def score_over_spend(points: Sequence[Mapping[str, Any]], baseline: float | None) -> str | None:
    """The best mean on the validation examples over the calls that were made; None where there is nothing to draw."""
    known = [(point["calls"], point["best"]) for point in points if point["best"] is not None]
    if len({calls for calls, _ in known}) < 3:
        return None
    figure, axes = _axes()
    calls, best = zip(*known, strict=True)
    axes.step(calls, best, where="post", color=_ACCENT, linewidth=2, label="best on validation")
    if baseline is not None:
        axes.axhline(baseline, color=_MUTED, linestyle="--", label="first prompt")
    axes.set_xlabel("calls, all roles")
    axes.set_ylabel("mean score")
    axes.set_ylim(-0.02, 1.05)
    axes.legend(loc="center right", frameon=False)
    return _svg(figure, "spend")


def family_tree(candidates: Sequence[Mapping[str, Any]], winner: str) -> str | None:
    """Each scored candidate by its step and score, with lines to its parents; the winner stands out."""
    at = {one["id"]: (one["step"], one["score"]) for one in candidates if one.get("score") is not None}
    if len(at) < 2:
        return None
    figure, axes = _axes()
    for one in candidates:
        for parent in one["parents"]:
            if one["id"] in at and parent in at:
                axes.plot(*zip(at[parent], at[one["id"]], strict=True), color=_MUTED, linewidth=1, zorder=1)
    for one in (one for one in candidates if one["id"] in at):
        axes.scatter(*at[one["id"]], color=_colour(one, winner), s=60 if one.get("text") == winner else 30, zorder=2)
    for one in (one for one in candidates if one["id"] in at and len(at) <= _MOST_NAMED):
        style = {"textcoords": "offset points", "xytext": (4, 5), "fontsize": 8, "color": _DARK, "parse_math": False}
        axes.annotate(one["id"], at[one["id"]], **style)
    axes.set_xlabel("iteration that made it")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("mean score")
    axes.set_ylim(-0.02, 1.05)
    return _svg(figure, "family")


def _colour(one: Mapping[str, Any], winner: str) -> str:
    if one.get("text") == winner:
        return _GOOD
    return _MUTED if one.get("rejected") else _ACCENT


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import, seldom needed

    figure = Figure(figsize=_SIZE, layout="tight")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _svg(figure: Any, name: str) -> str:
    """The picture alone: no prolog, no date, text as shapes so that no font is needed.

    The ids in it come from `name`, so that no two pictures of a page share one.
    """
    from matplotlib import rc_context  # noqa: PLC0415

    text = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
