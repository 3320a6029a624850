"""A process of its own that uses a SQLite file, to be killed, cut off from the disk, or kept from writing.

`python -m tests.support.sqlite_child insert FILE` inserts batches without end, `full FILE` meets a limit of the
operating system on the size of files, `open FILE` opens the file as somebody without rights to it.
"""

import os
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.errors import StorageError
from engine.jobs.queue import JobQuery
from engine.records.store import Storage
from engine.storage.factory import open_storage
from engine.storage.sqlite import open_sqlite
from tests.support.factories import make_jobs
from utilities.ids import new_uuid

BATCH = 7
THREADS = 4
NOBODY = 65534
_LITTLE = 20_000


def _say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def insert(file: Path) -> None:
    """Until killed: batches of BATCH jobs from THREADS threads, each batch's ids printed once it is acknowledged."""
    storage = _opened(file)

    def endlessly(_: int) -> None:
        while True:
            jobs = make_jobs(BATCH, client_job_id=new_uuid(), client_reference={"team": "red"})
            storage.jobs.insert(jobs)
            _say(*(job.id for job in jobs))

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(endlessly, range(THREADS)))


def full(file: Path) -> None:
    """Inserts with room, without and with again; prints how many jobs there are each time, and the refusal."""
    storage = _opened(file)
    storage.jobs.insert(make_jobs(BATCH))
    _say("before", storage.jobs.count(JobQuery()))
    size = file.with_name(file.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + _LITTLE, resource.RLIM_INFINITY))
    refused = make_jobs(500)
    try:
        storage.jobs.insert(refused)
    except StorageError as error:
        _say("refused", type(error).__name__, error)
    _say("meanwhile", storage.jobs.count(JobQuery()), len(storage.jobs.get_many([job.id for job in refused])))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    storage.jobs.insert(refused)
    _say("after", storage.jobs.count(JobQuery()))
    storage.close()


def open_only(file: Path) -> None:
    """Opens the file as a user that is not the owner; prints why it cannot."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        open_sqlite(file).close()
    except StorageError as error:
        _say(type(error).__name__, error)


def _opened(file: Path) -> Storage:
    return open_storage(f"sqlite:///{file}", database="", synchronous="FULL")


if __name__ == "__main__":
    {"insert": insert, "full": full, "open": open_only}[sys.argv[1]](Path(sys.argv[2]))
