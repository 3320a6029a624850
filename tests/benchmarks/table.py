"""What a run of the benchmarks found: rows, their verdicts, one table, one JSON file. Pure, but for the writing."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a measurement shall be: at most, or at least, `value`."""

    value: float
    at_least: bool = False

    def met_by(self, measured: float) -> bool:
        return measured >= self.value if self.at_least else measured <= self.value

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {number(self.value)}"


def at_most(value: float) -> Goal:
    return Goal(value=value)


def at_least(value: float) -> Goal:
    return Goal(value=value, at_least=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line. `baseline` is in the same unit and from the same run, see the note; None where there is none."""

    name: str
    measured: float
    unit: str
    goal: Goal | None = None
    baseline: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        return self.goal.met_by(self.measured) if self.goal is not None else None

    @property
    def ratio(self) -> float | None:
        """Measured over baseline."""
        return self.measured / self.baseline if self.baseline else None

    def as_document(self) -> dict[str, Any]:
        goal = str(self.goal) if self.goal is not None else None
        return {**asdict(self), "goal": goal, "met": self.met, "ratio": self.ratio}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and how the figures were taken; without it they mean nothing."""

    started_at: str
    cores: int
    python: str
    system: str
    rounds: int
    quick: bool
    load_before: tuple[float, float, float]
    load_after: tuple[float, float, float]

    def __str__(self) -> str:
        loads = [" ".join(f"{value:.2f}" for value in load) for load in (self.load_before, self.load_after)]
        sizes = ", quick: sizes too small to mean anything" if self.quick else ""
        return (
            f"{self.started_at}, {self.cores} cores, Python {self.python}, {self.system}\n"
            f"load (1, 5, 15 minutes) before {loads[0]}, after {loads[1]}; {self.rounds} rounds{sizes}"
        )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratios(values: Sequence[float], others: Sequence[float]) -> float:
    """The median of value over other, round by round: what both share, as the machine's mood, cancels out."""
    return median(value / other for value, other in zip(values, others, strict=True))


def spread(values: Sequence[float]) -> str:
    """The lowest and the highest of the rounds, for a note."""
    return f"{number(min(values))} to {number(max(values))}"


def number(value: float) -> str:
    """Three significant figures; thousands in full."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def table(rows: Sequence[Row]) -> str:
    """Aligned text, also valid Markdown."""
    lines = [("what", "measured", "unit", "goal", "met", "baseline", "ratio", "note")]
    lines += [_cells(row) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    widths[-1] = 0
    text = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    rule = "|".join("-" * (width + 2) for width in widths[:-1]) + "|----"
    return (
        "\n".join(f"| {line} |" for line in text[:1])
        + f"\n|{rule}--|\n"
        + "\n".join(f"| {line} |" for line in text[1:])
    )


def write(path: Path, setting: Setting, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"setting": asdict(setting), "rows": [row.as_document() for row in rows]}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {True: "yes", False: "NO", None: ""}[row.met]
    return (
        row.name,
        number(row.measured),
        row.unit,
        str(row.goal) if row.goal is not None else "",
        verdict,
        number(row.baseline) if row.baseline is not None else "",
        number(row.ratio) if row.ratio is not None else "",
        row.note,
    )
