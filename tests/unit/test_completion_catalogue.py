"""How old the models and prompts that jobs run with can be, and how often the storage is asked."""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StorageUnavailable, UnknownReference
from engine.records.store import Storage
from engine.storage.factory import open_storage
from llm_workers.catalogue import Catalogue, Recent
from tests.support.factories import make_model, make_prompt
from utilities.clock import SystemClock
from utilities.hop import ThreadHop


class SetClock(SystemClock):
    """Its steady clock stands where a test puts it."""

    at = 100.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(f"sqlite:///{tmp_path / 'x.db'}", database="test", synchronous="NORMAL")
    yield opened
    opened.close()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def catalogue(storage: Storage, clock: SetClock) -> Iterator[Catalogue]:
    with ThreadPoolExecutor(1) as executor:
        yield Catalogue(
            models=storage.models,
            prompts=storage.prompts,
            evaluators=storage.evaluators,
            hop=ThreadHop(executor),
            clock=clock,
        )


def run(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
    async def one_by_one() -> list[Any]:
        return [await step for step in steps]

    return asyncio.run(one_by_one())


def test_an_edit_is_seen_after_a_second(storage: Storage, catalogue: Catalogue, clock: SetClock) -> None:
    """Within a second of the last read the old text may still be used, from then on the new one is."""
    prompt = make_prompt(text="old")
    storage.prompts.add(prompt)

    async def texts() -> list[str]:
        seen = [(await catalogue.prompts((prompt.id,)))[0].text]
        storage.prompts.compare_and_set(replace(prompt, text="new"))
        for clock.at in (100.9, 101.0):
            seen.append((await catalogue.prompts((prompt.id,)))[0].text)
        return seen

    assert asyncio.run(texts()) == ["old", "old", "new"]


def test_a_new_model_is_found_at_once(storage: Storage, catalogue: Catalogue) -> None:
    """That something does not exist is never remembered."""

    async def found() -> str:
        with pytest.raises(UnknownReference):
            await catalogue.model("m")
        storage.models.add(make_model(name="m"))
        return (await catalogue.model("m")).name

    assert asyncio.run(found()) == "m"


def test_the_oldest_live_model_of_a_name(storage: Storage, catalogue: Catalogue, clock: SetClock) -> None:
    """Of several models with one name the oldest serves; when it is deleted the next one does."""
    first, second = make_model(name="m"), make_model(name="m")
    storage.models.add(first)
    storage.models.add(second)

    async def ids() -> list[str]:
        seen = [(await catalogue.model("m")).id]
        storage.models.compare_and_set(replace(first, metadata=first.metadata.deleted(clock.now(), "admin")))
        clock.at += 1
        return [*seen, (await catalogue.model("m")).id]

    assert asyncio.run(ids()) == [first.id, second.id]


def test_all_models_by_name(storage: Storage, catalogue: Catalogue, clock: SetClock) -> None:
    """Of each name the oldest live model, all of them as of one instant within the last second, none at first."""
    first, second, other = make_model(name="m"), make_model(name="m"), make_model(name="n")

    async def seen() -> dict[str, str]:
        return {name: model.id for name, model in (await catalogue.models()).items()}

    async def check() -> None:
        assert await seen() == {}
        for model in (first, second, other):
            storage.models.add(model)
        assert await seen() == {}
        clock.at += 1
        assert await seen() == {"m": first.id, "n": other.id}
        storage.models.compare_and_set(replace(first, metadata=first.metadata.deleted(clock.now(), "admin")))
        assert (await seen())["m"] == first.id
        clock.at += 1
        assert (await seen())["m"] == second.id

    asyncio.run(check())


def test_prompts_keep_their_order(storage: Storage, catalogue: Catalogue) -> None:
    """They come in the order that was asked for, one that is named twice twice."""
    first, second = make_prompt(name="a"), make_prompt(name="b")
    storage.prompts.add(first)
    storage.prompts.add(second)

    (prompts, none) = run(catalogue.prompts((second.id, first.id, second.id)), catalogue.prompts(()))

    assert [prompt.id for prompt in prompts] == [second.id, first.id, second.id]
    assert none == ()


def test_one_load_for_many() -> None:
    """Whoever asks while a load runs waits for it; one that is cancelled does not take it from the others."""
    loads = 0

    async def check() -> None:
        released = asyncio.Event()

        async def load(key: str) -> str:
            nonlocal loads
            loads += 1
            await released.wait()
            return key.upper()

        recent: Recent[str, str] = Recent(load, lambda: 0.0)
        first, second, third = (asyncio.ensure_future(recent.get("a")) for _ in range(3))
        await asyncio.sleep(0)
        first.cancel()
        released.set()
        assert await asyncio.gather(second, third) == ["A", "A"]
        assert first.cancelled()

    asyncio.run(check())
    assert loads == 1


def test_a_failed_load_is_not_kept() -> None:
    """An outage is told to those who waited; the next one asks again."""
    answers: list[Any] = [StorageUnavailable("away"), "value"]

    async def load(key: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async def check() -> None:
        recent: Recent[str, str] = Recent(load, lambda: 0.0)
        with pytest.raises(StorageUnavailable):
            await recent.get("a")
        assert await recent.get("a") == "value"

    asyncio.run(check())
