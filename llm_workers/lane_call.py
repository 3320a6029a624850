"""One call of a model, from its place in the lane to what became of it."""

from types import TracebackType
from typing import TYPE_CHECKING

from engine.llm import Completion, CompletionRequest, ProviderError
from llm_workers.corrections import Booked
from llm_workers.lane import Lane
from llm_workers.lane_terms import Shut

if TYPE_CHECKING:
    from llm_workers.lanes import Lanes


class LaneCall:
    """One call in a lane, as an async context. Set `completion` in it; a ProviderError that leaves it is the answer."""

    def __init__(self, lanes: "Lanes", lane: Lane, request: CompletionRequest) -> None:
        self.completion: Completion | None = None
        self._lanes = lanes
        self._lane = lane
        self._request = request
        self._estimate = lane.estimator.estimate(request, lane.model.limits.tokens_per_minute)
        self._booked = Booked(self._estimate)
        self._started_at = 0.0

    async def __aenter__(self) -> "LaneCall":
        self._booked = await self._lanes.enter(self._lane, self._estimate)
        self._started_at = self._lanes.now()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._lanes.left(self._lane, self._ended(error))

    def _ended(self, error: BaseException | None) -> Shut | None:
        lane, now = self._lane, self._lanes.now()
        if isinstance(error, ProviderError):
            lane.heard(error.levels, now)
            return lane.failed(error, booked=self._booked, started_at=self._started_at, now=now)
        if error is None and self.completion is not None:
            lane.heard(self.completion.levels, now)
            lane.answered(self._request, self.completion, booked=self._booked, started_at=self._started_at, now=now)
        else:
            lane.dropped()
        return None
