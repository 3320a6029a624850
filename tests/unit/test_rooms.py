"""How many jobs of each model are worth claiming, where models lead on to others."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.records.values import Limits, Target
from engine.storage.factory import open_storage
from llm_workers.lane import Reason, Shut
from llm_workers.lanes import Lanes
from llm_workers.rooms import ModelRooms
from llm_workers.wallets import Wallets
from tests.support.factories import make_job, make_model
from utilities.clock import SystemClock

LIMITS = Limits(requests_per_minute=600)


async def _here(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@pytest.fixture
def lanes(tmp_path: Path) -> Iterator[Lanes]:
    """Of models m, which falls back on f, r, a router to m and f, and gone, a router without a target."""
    storage = open_storage(f"sqlite:///{tmp_path / 'rooms.db'}", database="test", synchronous="NORMAL")
    lanes = Lanes(storage, clock=SystemClock(), hop=_here, replica="a", rng=random.Random(1))
    models = [
        make_model(name="m", limits=LIMITS, fallbacks=("f",)),
        make_model(name="f", limits=LIMITS),
        make_model(name="r", sdk="router", targets=(Target("m"), Target("f"))),
        make_model(name="gone", sdk="router", targets=(Target("deleted"),)),
    ]
    lanes.know({model.name: model for model in models})
    lanes.wallets = Wallets(storage, clock=SystemClock(), hop=_here, replica="a")  # type: ignore[attr-defined]
    yield lanes
    storage.close()


def _rooms(lanes: Lanes) -> ModelRooms:
    return ModelRooms(lanes, lanes.wallets)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("claimed", "shut", "taken"), [("m", False, 0), ("m", True, 8), ("r", False, 4), ("f", False, 8)]
)
def test_jobs_are_expected_where_they_will_be_called(lanes: Lanes, claimed: str, shut: bool, taken: int) -> None:
    """Of f's room eight claimed jobs take as much as will be called there: those of the model that falls back on it
    nothing, unless that is passed by; else a busy model would keep its fallback's own jobs from being claimed."""
    rooms = _rooms(lanes)
    if shut:
        lanes.lane(lanes.models()["m"]).shut(Shut(lanes.now() + 60, Reason.QUOTA, "no money"))
    before = rooms.caps()
    rooms.claimed([make_job(model=claimed) for _ in range(8)], before)
    assert rooms.caps()["f"] == before["f"] - taken


def test_a_router_that_leads_nowhere_is_claimed(lanes: Lanes) -> None:
    """Nothing holds its jobs back: once claimed they fail with the reason, rather than wait for ever."""
    assert "gone" not in _rooms(lanes).caps()
    assert _rooms(lanes).caps().keys() == {"m", "f", "r"}


def test_claimed_jobs_are_waited_for(lanes: Lanes) -> None:
    """While the jobs that fill a lane are on their way to it claims do not look for more two hundred times a second,
    nor because a model that they do not come to has room."""
    rooms = _rooms(lanes)
    lanes.know({name: model for name, model in lanes.models().items() if name in "mf"})
    before = rooms.caps()
    rooms.claimed([make_job(model="m") for _ in range(before["m"])], before)
    assert rooms.caps()["m"] == 0
    assert rooms.look_again() >= 0.05
