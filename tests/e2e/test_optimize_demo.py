"""The optimizer's demo: from a CSV to a proven better prompt over REST, in real processes."""

import os
import subprocess
import sys
from pathlib import Path

from demo.service import ROOT
from tests.support.service import ENVIRONMENT


def test_a_csv_becomes_a_better_prompt(tmp_path: Path) -> None:
    """Exit code 0 means that the winner was proven on examples that the search never saw; the report says so too."""
    report = tmp_path / "report.html"
    kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("PROXY")}
    ended = subprocess.run(
        [sys.executable, "-m", "demo.optimize", "--calls", "400", "--report", str(report)],
        cwd=ROOT,
        env={name: value for name, value in kept.items() if name not in ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "dataset of 200 items" in ended.stdout
    assert "Verdict: promoted" in ended.stdout
    assert "<svg" in report.read_text(encoding="utf-8")
