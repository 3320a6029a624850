"""Which way imports point is checked by machine, and the check is known to bite."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "demo", "engine", "llm_optimizer", "llm_workers", "utilities")
OURS = {*PACKAGES, "config", "main_app", "tests"}
ALLOWED_IN_CONFIG = {"engine.errors", "utilities.secrets"}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter over the packages in `folder`, by the contracts in its pyproject.toml."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def broken(result: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.partition(" BROKEN")[0] for line in result.stdout.splitlines() if " BROKEN" in line}


@pytest.fixture
def a_copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_keep_to_the_architecture() -> None:
    """Every import of the project keeps the contracts in pyproject.toml."""
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("engine/jobs/stray.py", "import api.services", "Imports point down"),
        ("engine/stray.py", "import llm_workers", "Imports point down"),
        ("utilities/stray.py", "from engine import errors", "Imports point down"),
        ("api/stray.py", "import llm_workers.pool", "Imports point down"),
        ("llm_workers/stray.py", "import llm_optimizer", "Imports point down"),
        ("llm_optimizer/stray.py", "import api", "Imports point down"),
        ("llm_workers/stray.py", "import config", "Only main_app imports config"),
        ("api/stray.py", "import main_app", "Only main_app imports config"),
        ("api/services/stray.py", "from engine.storage import codec", "Only main_app imports engine.storage"),
        ("engine/jobs/stray.py", "import engine.storage.codec", "Only main_app imports engine.storage"),
        ("engine/jobs/stray.py", "import pymongo", "The engine knows no HTTP"),
        ("engine/records/stray.py", "import sqlite3", "The engine knows no HTTP"),
        ("engine/storage/stray.py", "import openai", "The engine knows no HTTP"),
        ("engine/stray.py", "from fastapi import FastAPI", "The engine knows no HTTP"),
        ("llm_workers/stray.py", "import fastapi", "Workers, optimizer and utilities"),
        ("llm_workers/stray.py", "import openai", "Vendors' SDKs"),
        ("api/stray.py", "import sqlite3", "The API reaches storage"),
        ("demo/stray.py", "import engine.errors", "The demo speaks REST"),
    ],
)
def test_a_wrong_import_is_caught(a_copy: Path, module: str, line: str, contract: str) -> None:
    """One stray import in a copy of the project breaks the contract that forbids it."""
    (a_copy / module).write_text(f"{line}\n", encoding="utf-8")
    result = lint(a_copy)
    assert result.returncode != 0
    assert any(name.startswith(contract) for name in broken(result)), result.stdout


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.split(".")[0] in OURS}


def test_config_stands_on_its_own() -> None:
    """config.py, which import-linter does not see, uses the error tree and the keyring and nothing else of ours."""
    assert imported(ROOT / "config.py") <= ALLOWED_IN_CONFIG


def test_nothing_shipped_imports_tests() -> None:
    """The service and the demo run without the tests folder, as they do in the image."""
    shipped = [ROOT / "config.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
    assert [str(path) for path in shipped if any(name.startswith("tests") for name in imported(path))] == []
