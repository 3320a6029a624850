"""What the benchmarks share: rounds, databases, real service processes, the provider and its bare callers."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from engine.records.store import Storage
from engine.storage.factory import open_storage
from tests.benchmarks.account import Account
from tests.support.backends import MONGO, SQLITE, Database, Servers, fresh_database
from tests.support.service import Fleet, fleet

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
LABEL = {SQLITE: "SQLite", MONGO: "MongoDB"}
BACKENDS = (SQLITE, MONGO)
_BARE_SECONDS = 300


class Provider:
    """The fixed fake provider as a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fake_provider.fixed"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self.openai_url = f"{self.url}/v1"
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=30)

    def reset(self, latency: float) -> None:
        """Forgets what it counted; from now on an answer takes `latency` seconds."""
        self._http.post("/_reset", json={"latency": latency})

    def count(self) -> dict[str, int]:
        """`total` since the last reset, and `in_flight`."""
        counts: dict[str, int] = self._http.get("/_count").json()
        return counts

    def arrivals(self) -> list[float]:
        """time.monotonic() of each call since the last reset."""
        arrived: list[float] = self._http.get("/_seen").json()["arrivals"]
        return arrived

    def wait_for(self, calls: int, within: float = 300.0) -> None:
        """Until `calls` have come since the last reset."""
        wait_until(lambda: self.count()["total"] >= calls, within=within, what=f"{calls} calls of the provider")

    def bare(
        self, client: str, calls: int, in_flight: int, *, path: str = "/v1", ours: bool = False
    ) -> dict[str, float]:
        """A loop that keeps nothing, see tests.benchmarks.bare."""
        command = [sys.executable, "-m", "tests.benchmarks.bare", client, "--url", f"{self.url}{path}"]
        command += ["--calls", str(calls), "--in-flight", str(in_flight), *(["--ours"] if ours else [])]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=_BARE_SECONDS)
        measured: dict[str, float] = json.loads(done.stdout)
        return measured

    def close(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.communicate(timeout=10)


class Stage:
    """Lends everything to one benchmark after another. `quick` wants sizes that are done in seconds."""

    def __init__(self, *, rounds: int, quick: bool) -> None:
        self.quick = quick
        self._rounds = rounds
        self._stack = ExitStack()
        cache = ROOT / ".cache"
        cache.mkdir(exist_ok=True)
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=cache))
        self.folder = Path(folder)
        self._servers = Servers()
        self._stack.callback(self._servers.close)
        self._provider: Provider | None = None

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @property
    def provider(self) -> Provider:
        if self._provider is None:
            self._provider = Provider()
            self._stack.callback(self._provider.close)
        return self._provider

    def rounds(self, variants: Mapping[str, Callable[[], T]], times: int | None = None) -> dict[str, list[T]]:
        """Runs all variants once, then all again, …: what slows the machine down for a while slows all of them."""
        found: dict[str, list[T]] = {name: [] for name in variants}
        times = times or self._rounds
        for number in range(1, times + 1):
            for name, run in variants.items():
                started = time.monotonic()
                found[name].append(run())
                say(f"  round {number}/{times} {name}: {time.monotonic() - started:.1f} s")
        return found

    @contextmanager
    def database(self, backend: str) -> Iterator[tuple[Database, Path]]:
        """An empty database that is gone afterwards, and a folder of its own."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self.folder)))
            yield stack.enter_context(fresh_database(backend, self._servers, folder)), folder

    @contextmanager
    def fleet(self, backend: str, **settings: object) -> Iterator[tuple[Fleet, Storage]]:
        """No replica yet, on an empty database that is gone afterwards; and a look behind its back."""
        with ExitStack() as stack:
            database, folder = stack.enter_context(self.database(backend))
            replicas = stack.enter_context(fleet(database.url, database.name, folder, **settings))
            storage = open_storage(database.url, database=database.name)
            stack.callback(storage.close)
            yield replicas, storage

    @contextmanager
    def account(self, backend: str, replicas: int = 1, **settings: object) -> Iterator[Account]:
        """A client of running replicas, with a prompt, and a model at the provider."""
        with self.fleet(backend, **settings) as (launched, storage):
            yield Account(launched.launch(replicas), storage, self.provider.openai_url)

    def server_pid(self) -> int | None:
        """The mongod of this run, None where an outside server is used."""
        url = self._servers.url(MONGO)
        needle = f"--port\0{url.rsplit(':', 1)[-1].split('/')[0]}\0".encode()
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with _gone_is_none():
                if needle in entry.read_bytes():
                    return int(entry.parent.name)
        return None

    def close(self) -> None:
        self._stack.close()


@contextmanager
def _gone_is_none() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Memory in use, in units of a million bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def wait_until(done: Callable[[], object], *, within: float = 300.0, every: float = 0.02, what: str) -> None:
    """Raises TimeoutError where `done` is not true within so many seconds."""
    deadline = time.monotonic() + within
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} seconds: {what}")
        time.sleep(every)


def say(text: str) -> None:
    """Progress, for the person who waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
