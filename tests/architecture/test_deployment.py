"""Image, compose file, make targets and CI: checked without a container runtime, parsed and run where cheap."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import SECRET_NAMES, Settings

ROOT = Path(__file__).resolve().parents[2]
CONTRACT_SETTINGS = {
    *SECRET_NAMES,
    *("DB_NAME", "DOCS_USER", "POLL_INTERVAL", "MAX_ITEMS_PER_BATCH", "NUM_LLM_WORKERS", "HOST", "PORT"),
}
NOBODYS_PROXY = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
TARGETS = {"help", "demo", "optimize-demo", "run", "test", "check", "bench", "fake-provider"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continuation lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def final_stage() -> list[tuple[str, str]]:
    steps = instructions()
    last = max(index for index, (word, _) in enumerate(steps) if word == "FROM")
    return steps[last:]


def arguments_of(word: str) -> list[str]:
    return [rest for step, rest in final_stage() if step == word]


def copied() -> list[str]:
    """What the final stage copies from the project."""
    sources = [rest.split()[:-1] for rest in arguments_of("COPY") if not rest.startswith("--from")]
    return [source for line in sources for source in line]


def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
    return parsed


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """A web server on the loopback address that answers every GET with `status`; its port and the paths it saw."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on the test's standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1], seen
        server.shutdown()
        thread.join()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The project files of the image, laid out as the Dockerfile lays them out."""
    for source in copied():
        where = ROOT / source
        if where.is_dir():
            shutil.copytree(where, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(where, tmp_path / source)
    return tmp_path


def run_in(image: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The image's python on a command, with nothing of this process's environment but its virtual environment."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=image,
        env={"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestImage:
    """The Dockerfile."""

    def test_stages(self) -> None:
        """Two stages on a slim base: what builds stays behind, the final one gets the finished environment."""
        bases = [rest for word, rest in instructions() if word == "FROM"]
        assert len(bases) == 2
        assert all("-slim" in base for base in bases)
        assert any(rest.startswith("--from=build /opt/venv") for rest in arguments_of("COPY"))
        assert not any(tool in " ".join(arguments_of("RUN")) for tool in ("apt", "gcc", "pip", "make"))

    def test_it_does_not_run_as_root(self) -> None:
        """The last USER is an ordinary one, made in the image without a login shell, and named by number, by which
        Kubernetes knows that it is not root; it can read the code whatever the umask of the checkout was."""
        assert arguments_of("USER")[-1] == "10001:10001"
        assert "groupadd --gid 10001" in " ".join(arguments_of("RUN"))
        assert "useradd --uid 10001" in " ".join(arguments_of("RUN"))
        assert "chmod -R a+rX ." in arguments_of("RUN")[-1]

    def test_signals_reach_python(self) -> None:
        """The command is in exec form, so SIGTERM goes to python and not to a shell that keeps it."""
        assert json.loads(arguments_of("CMD")[-1]) == ["python", "main_app.py"]
        assert arguments_of("STOPSIGNAL") == ["SIGTERM"]

    def test_its_files_exist_and_reach_the_builder(self) -> None:
        """Every copied path exists and .dockerignore, which excludes all else, lets it through."""
        ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        assert "*" in ignore
        for source in [*copied(), "requirements.txt"]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignore

    def test_its_files_are_all_that_the_service_needs(self, image: Path) -> None:
        """From the copied files alone the whole service can be imported, the storage back-ends included."""
        every = "import pkgutil, importlib as i, api, engine, llm_workers, llm_optimizer, utilities, main_app\n"
        walk = "for p in (api, engine, llm_workers, llm_optimizer, utilities):\n"
        load = "    [i.import_module(m.name) for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.')]\n"
        result = run_in(image, "-W", "error", "-c", every + walk + load)
        assert result.returncode == 0, result.stderr

    def test_its_command_says_what_is_missing(self, image: Path) -> None:
        """Started without any setting it ends at once, with every required setting named and no traceback."""
        result = run_in(image, "main_app.py")
        assert result.returncode != 0
        assert all(f"{name} is missing" in result.stderr for name in SECRET_NAMES)
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
    def test_its_health_check_asks_the_service(self, status: int, *, healthy: bool) -> None:
        """The HEALTHCHECK command really runs: it asks /health/live on PORT, whatever proxy the environment names, and
        fails when the answer is an error."""
        python, *rest = json.loads(arguments_of("HEALTHCHECK")[0].partition("CMD ")[2])
        assert python == "python"
        with answering(status) as (port, seen):
            result = run_in(ROOT, *rest, PORT=str(port), **NOBODYS_PROXY)
        assert seen == ["/health/live"]
        assert (result.returncode == 0) is healthy


class TestCompose:
    """docker-compose.yaml."""

    def test_it_passes_exactly_the_contracts_settings(self) -> None:
        """Each setting that the contract names, and nothing else."""
        assert set(compose()["services"]["metasync"]["environment"]) == CONTRACT_SETTINGS

    def test_secrets_are_required_with_a_message(self) -> None:
        """A missing secret stops `docker compose up` with a text that says what to set; none has a default."""
        environment = compose()["services"]["metasync"]["environment"]
        for name in ("DOCS_SECRET", "API_KEY_PEPPER", "ADMIN_API_KEY"):
            assert re.fullmatch(rf"\$\{{{name}:\?set it to .+\}}", environment[name])

    def test_defaults_are_the_services_own(self) -> None:
        """Where compose has a default, it is the one the service has."""
        environment = compose()["services"]["metasync"]["environment"]
        for name in CONTRACT_SETTINGS - {*SECRET_NAMES, "HOST"}:
            assert environment[name] == f"${{{name}:-{Settings.model_fields[name.lower()].default}}}"
        assert environment["HOST"] == Settings.model_fields["host"].default

    def test_it_waits_for_a_healthy_database_on_a_volume(self) -> None:
        """Both have health checks, Metasync starts after MongoDB is healthy, and the data outlive containers."""
        services = compose()["services"]
        assert services["mongo"]["image"] == "mongo:7"
        assert all(service["healthcheck"]["test"][0] == "CMD" for service in services.values())
        assert services["metasync"]["depends_on"]["mongo"]["condition"] == "service_healthy"
        volume = services["mongo"]["volumes"][0].split(":")
        assert volume[0] in compose()["volumes"]
        assert volume[1] == "/data/db"
        assert "ports" not in services["mongo"]

    def test_the_service_can_gain_no_rights(self) -> None:
        """It runs without any capability and without a way to get one, under an init that passes signals on."""
        service = compose()["services"]["metasync"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["init"] is True

    def test_a_stop_outlasts_the_drain(self) -> None:
        """The container is not killed while calls in flight may still finish."""
        grace = int(compose()["services"]["metasync"]["stop_grace_period"].removesuffix("s"))
        assert grace > Settings.model_fields["drain_seconds"].default + 5

    def test_its_health_check_asks_readiness(self) -> None:
        """Compose calls the service healthy when the database answers too."""
        _, python, *rest = compose()["services"]["metasync"]["healthcheck"]["test"]
        assert python == "python"
        with answering(200) as (port, seen):
            assert run_in(ROOT, *rest, PORT=str(port), **NOBODYS_PROXY).returncode == 0
        assert seen == ["/health/ready"]


class TestMake:
    """The Makefile, .ci/run and the workflow."""

    def make(self, folder: Path, *arguments: str, path: str = os.defpath) -> subprocess.CompletedProcess[str]:
        program = shutil.which("make") or "make"
        environ = {"PATH": path, "LC_ALL": "C"}
        return subprocess.run(
            [program, *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    def test_help_is_the_default_and_knows_every_target(self) -> None:
        """`make` alone lists what can be typed."""
        result = self.make(ROOT)
        assert result.returncode == 0
        assert {line.split()[1] for line in result.stdout.splitlines() if line.startswith("  make ")} >= TARGETS

    def test_an_old_python_is_named_with_the_remedy(self, tmp_path: Path) -> None:
        """Where no Python is new enough, make says which it found, which it needs and how to name another."""
        programs = tmp_path / "bin"
        programs.mkdir()
        for name in ("sh", "find", "rm"):
            (programs / name).symlink_to(shutil.which(name) or name)
        old = programs / "python3"
        old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" || exit 1\n', encoding="utf-8")
        old.chmod(0o755)
        shutil.copy(ROOT / "Makefile", tmp_path)
        result = self.make(tmp_path, ".venv/bin/python", path=str(programs))
        assert result.returncode != 0
        assert "needs Python 3.11 or newer; found: Python 3.9.2" in result.stderr
        assert "make PYTHON=" in result.stderr

    def test_requirements_are_installed_again_when_they_change(self, tmp_path: Path) -> None:
        """A pull that changes requirements.txt makes the next `make demo` install them, and only then."""
        shutil.copy(ROOT / "Makefile", tmp_path)
        (tmp_path / ".venv" / "bin").mkdir(parents=True)
        for name in ("requirements.txt", ".venv/bin/python", ".venv/.run"):
            (tmp_path / name).touch()
        os.utime(tmp_path / "requirements.txt", (1, 1))
        assert "pip install" not in self.make(tmp_path, "-n", "demo").stdout
        os.utime(tmp_path / ".venv" / ".run", (0, 0))
        assert "pip install" in self.make(tmp_path, "-n", "demo").stdout

    def test_ci_runs_tests_and_gates_and_stops_at_the_first_failure(self) -> None:
        """.ci/run is executable bash in strict mode and calls both; the workflow calls .ci/run."""
        script = ROOT / ".ci" / "run"
        assert script.stat().st_mode & stat.S_IXUSR
        lines = script.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "#!/usr/bin/env bash"
        assert lines.index("set -euo pipefail") < lines.index("make test") < lines.index("make check")
        workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
        assert ".ci/run" in [step.get("run") for step in workflow["jobs"]["test"]["steps"]]

    def test_check_runs_every_gate(self) -> None:
        """Lint, format, types, directions of imports, and the engine's branch coverage of at least 95 percent."""
        text = (ROOT / "Makefile").read_text(encoding="utf-8")
        recipe = text.partition("\ncheck:")[2].partition("\n\n")[0]
        for gate in ("ruff check", "ruff format --check", "mypy", "lint-imports", "coverage report --fail-under 95"):
            assert gate in recipe
