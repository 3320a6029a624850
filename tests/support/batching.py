"""Batches in this process, stepped by hand, with a worker that a test plays."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from engine.batches.contents import Appending, pieces
from engine.batches.errand import BatchErrand, BatchTools
from engine.errors import LeaseLost, StorageUnavailable
from engine.jobs.job import Job
from engine.jobs.outcome import Completed, Outcome
from engine.jobs.queue import ClaimFilter, ClaimRequest
from engine.jobs.signals import JobSignals
from engine.metadata import Metadata
from engine.records.batches import WINDOW, Batch
from engine.records.files import BATCH, StoredFile
from engine.records.store import Storage
from tests.support.factories import CLIENT, IDS, make_model, settlement
from utilities.clock import SystemClock
from utilities.ids import ObjectIds

CHAT = "/v1/chat/completions"
MODEL = "gpt-test"
_CLOCK = SystemClock()

Play = Callable[[Job], Outcome | None]


def line(custom_id: str, **fields: Any) -> dict[str, Any]:
    """A request of an input."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": custom_id}]}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **fields}


def jsonl(lines: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def stored_file(storage: Storage, content: bytes) -> StoredFile:
    """An input of CLIENT's."""
    file = StoredFile(
        id=f"file-{IDS.new()}",
        client_id=CLIENT,
        filename="in.jsonl",
        purpose=BATCH,
        size=len(content),
        metadata=Metadata(created_at=_CLOCK.now()),
    )
    writing = Appending(storage.contents, file.id)
    writing.add(content)
    writing.save()
    storage.files.add(file)
    return file


def new_batch(storage: Storage, content: bytes, **fields: Any) -> Batch:
    """A batch over that input, as it is when it was posted."""
    now = _CLOCK.now()
    batch = Batch(
        **{
            "id": f"batch_{IDS.new()}",
            "client_id": CLIENT,
            "endpoint": CHAT,
            "input_file_id": stored_file(storage, content).id,
            "expires_at": now + WINDOW,
            "metadata": Metadata(created_at=now),
            **fields,
        }
    )
    storage.batches.add(batch)
    return batch


def with_model(storage: Storage) -> None:
    storage.models.add(make_model(name=MODEL))


def done(job: Job) -> Outcome:
    """An answer that says which request it is of."""
    return Completed(result={"object": "chat.completion", "said": job.client_job_id})


@dataclass
class Bench:
    """A storage whose batches are stepped by hand. `storage` may be a faulty one, `truth` is behind it."""

    storage: Storage
    truth: Storage
    slice: int = 2
    _process: BatchErrand | None = None

    def tools(self, **others: Any) -> BatchTools:
        """Those of a process that has just started."""
        tools = BatchTools(
            batches=self.storage.batches,
            files=self.storage.files,
            contents=self.storage.contents,
            models=self.storage.models,
            queue=self.storage.jobs,
            signals=JobSignals(),
            clock=_CLOCK,
            ids=ObjectIds(),
            slice=self.slice,
        )
        return replace(tools, **others)

    def errand(self, **others: Any) -> BatchErrand:
        return BatchErrand(self.tools(**others))

    def step(self, batch_id: str) -> bool:
        """One step by the process that made the last one, which an outage ends; False where there is none left."""
        self._process = self._process or self.errand()
        try:
            batch = self._process.get(batch_id)
            return batch is not None and self._process.step(batch) is not None
        except LeaseLost:
            return True
        except StorageUnavailable:
            self._process = None
            return True

    def stepped(self, batch_id: str, play: Play = done, most: int = 200) -> Batch:
        """Steps until no step is left, and works on the jobs in between."""
        for _ in range(most):
            if not self.step(batch_id):
                break
            work(self.truth, play)
        found = self.truth.batches.get(batch_id)
        assert found is not None
        assert not found.is_open, found.status
        return found

    def lines_of(self, file_id: str | None) -> list[dict[str, Any]]:
        """What a file of results says; nothing where there is none."""
        file = None if file_id is None else self.truth.files.get(file_id)
        if file is None:
            return []
        content = b"".join(pieces(self.truth.contents, file))
        return [json.loads(each) for each in content.splitlines()]


def work(storage: Storage, play: Play) -> None:
    """Claims all jobs that are ready and settles those whose outcome is played."""
    now = _CLOCK.now()
    wanted = ClaimFilter(client_id=CLIENT)
    asked = ClaimRequest(filter=wanted, owner="worker", expires_at=now + timedelta(minutes=1), limit=1000)
    for job in storage.jobs.claim(asked, now):
        outcome = play(job)
        if outcome is not None:
            assert storage.jobs.settle([settlement(job, outcome)], now) == [True]
