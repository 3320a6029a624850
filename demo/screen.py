"""What the person in front of the terminal sees."""

import json
import sys
from typing import Any, TextIO

BAR_WIDTH = 40
RESULTS_SHOWN = 3
Json = dict[str, Any]


class Progress:
    """A bar on a terminal; elsewhere one line at each tenth."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total = max(total, 1)
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._tenth = -1

    def show(self, done: int, failed: int) -> None:
        """Draws `done` of the total, `failed` among them."""
        share = min(done / self._total, 1.0)
        text = f"{done:>{len(str(self._total))}}/{self._total} jobs" + (f", {failed} failed" if failed else "")
        if self._tty:
            filled = int(share * BAR_WIDTH)
            self._write(f"\r  {'█' * filled}{'░' * (BAR_WIDTH - filled)} {share:4.0%}  {text} ")
        elif int(share * 10) > self._tenth:
            self._tenth = int(share * 10)
            self._write(f"  {share:4.0%}  {text}\n")

    def close(self) -> None:
        if self._tty:
            self._write("\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def table(summary: Json, seconds: float) -> str:
    """Jobs, failures, tokens, cost and speed, from the last GET /jobs/summary and the measured seconds."""
    metrics = summary.get("processingMetrics") or {}
    failed = summary["total"] - summary["PROCESSED"]
    rows = {
        "jobs": f"{summary['total']}",
        "failures": f"{failed}",
        "tokens": f"{metrics.get('inputTokens', 0):,} in, {metrics.get('outputTokens', 0):,} out",
        "cost": _cost(metrics),
        "time": f"{seconds:.1f} s",
        "jobs a second": f"{summary['total'] / seconds:,.0f}",
    }
    width = max(map(len, rows.values()))
    line = f"  +---------------+-{'-' * width}-+"
    return "\n".join([line, *(f"  | {name:<13} | {value:>{width}} |" for name, value in rows.items()), line])


def _cost(metrics: Json) -> str:
    total = metrics.get("totalCost")
    return f"{float(total):.4f} {metrics.get('currency', '')}" if total is not None else "unknown"


def result(job: Json, text: str) -> str:
    """One job's text and answer, a line each, cut to fit a terminal."""
    return f"  {job['id']}: {_cut(text)}\n      -> {_cut(json.dumps(job['responseData'], ensure_ascii=False))}"


def failure(job: Json) -> str:
    """One failed job's error in a line."""
    error = job.get("errorData") or {}
    return f"  {job['id']}: {error.get('errorType', job['status'])}: {_cut(str(error.get('errorMessage', '')), 300)}"


def _cut(text: str, width: int = 100) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
