"""Reading the results of evaluations."""

from engine.errors import StorageCorrupt
from engine.records.evaluations import BLOCK, Evaluation, EvaluationPart, ItemResult, part_id
from engine.records.store import RecordStore

_PARTS_AT_ONCE = 50


class EvaluationResults:
    """Synchronous; raises StorageUnavailable, and StorageCorrupt where a part is gone."""

    def __init__(self, parts: RecordStore[EvaluationPart]) -> None:
        self._parts = parts

    def slice(self, evaluation: Evaluation, first: int, count: int) -> list[ItemResult]:
        """Up to `count` of the results that are stored so far, from place `first` on."""
        last = min(first + count, evaluation.done)
        if first >= last:
            return []
        begin, end = first // BLOCK, (last - 1) // BLOCK + 1
        results: list[ItemResult] = []
        for start in range(begin, end, _PARTS_AT_ONCE):
            ids = [part_id(evaluation.id, number) for number in range(start, min(start + _PARTS_AT_ONCE, end))]
            found = self._parts.get_many(ids)
            for each in ids:
                if each not in found:
                    raise StorageCorrupt(f"evaluation {evaluation.id} lacks a part of its results")
                results += found[each].results
        return results[first - begin * BLOCK : last - begin * BLOCK]

    def all(self, evaluation: Evaluation) -> list[ItemResult]:
        return self.slice(evaluation, 0, evaluation.done)
