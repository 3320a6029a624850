"""How often examples that prove a winner were looked at: of several runs with the same ones, one is better by luck."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress

import orjson

from engine.errors import Duplicate, StorageUnavailable
from engine.jobs.queue import Page
from engine.metadata import Metadata
from engine.records.runs import OPTIMIZER, Run
from engine.records.searches import RunPart, Verdict
from engine.records.store import RecordStore, Where
from utilities.clock import Clock

MOST_LOOKS = 1_000
"""What comes after so many is not told apart: hardly anything proves a winner by then."""

_TESTED = (Verdict.PROMOTED, Verdict.PROVEN, Verdict.NOT_PROVEN)
_TRIES = 50


class Looks:
    """A client's runs that have proven a winner on one dataset by one evaluator, each with a number of its own.

    Who has no evaluator is judged by the evaluation prompt. A number is a record that nobody changes or deletes: of two
    runs at the same instant one is refused it and takes the next, whoever asks again has the number that was his, and
    a run that is deleted keeps its own. Synchronous; raises StorageUnavailable.
    """

    def __init__(self, runs: RecordStore[Run], marks: RecordStore[RunPart], clock: Clock) -> None:
        self._runs = runs
        self._marks = marks
        self._clock = clock

    def number(self, run: Run) -> int:
        """How many runs have looked, with this one."""
        examples = _examples_of(run)
        for _ in range(_TRIES):
            known = self._marks.find(Where(equals={"runId": [examples]}), Page(limit=MOST_LOOKS))
            own = next((mark for mark in known if mark.text == run.id), None)
            if own is not None:
                return _number_of(own)
            number = 1 + (max(map(_number_of, known)) if known else self._unmarked(run))
            if len(known) >= MOST_LOOKS:
                return number
            metadata = Metadata(created_at=self._clock.now(), created_by=OPTIMIZER)
            mark = RunPart(id=f"{examples}-{number}", run_id=examples, text=run.id, metadata=metadata)
            with suppress(Duplicate):
                self._marks.add(mark)
                return number
        raise StorageUnavailable("the same examples are being looked at by many at once")

    def _unmarked(self, run: Run) -> int:
        """Runs of the time before there were marks."""
        terms = run.search
        assert terms is not None
        alike: dict[str, Sequence[object]] = {
            "clientId": [run.client_id],
            "search.datasetId": [terms.dataset_id],
            "search.evaluatorId": [terms.evaluator_id],
            "progress.verdict": [str(verdict) for verdict in _TESTED],
        }
        if terms.evaluator_id is None:
            alike["evalPromptId"] = [run.eval_prompt_id]
        found = self._runs.find(Where(equals=alike), Page(limit=MOST_LOOKS))
        return sum(_has_looked(each) for each in found if each.id != run.id)


def _examples_of(run: Run) -> str:
    terms = run.search
    assert terms is not None
    judged_by = run.eval_prompt_id if terms.evaluator_id is None else ""
    asked = orjson.dumps([run.client_id, terms.dataset_id, terms.evaluator_id, judged_by])
    return f"looks-{hashlib.sha256(asked).hexdigest()[:32]}"


def _number_of(mark: RunPart) -> int:
    return int(mark.id.rpartition("-")[2])


def _has_looked(run: Run) -> bool:
    test = {} if run.progress is None else run.progress.numbers.get("test") or {}
    return bool(test.get("count"))
