"""Which models are tried for a job, in which order, and what sends it on."""

import random
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidField, LeaseLost, MetasyncError, UnknownReference
from engine.llm import (
    AnswerRefused,
    PermanentProviderError,
    ProviderRefusedKey,
    ProviderTimeout,
    QuotaExhausted,
    RateLimited,
    TransientProviderError,
    UnusableAnswer,
)
from engine.pricing import Prices
from engine.records.values import Model, Strategy, Target
from llm_workers.routing import Standing, candidates, fails_over, is_passed_by, patience
from tests.support.factories import make_model

BROKEN = Standing(open=False, why="breaker")
USED_UP = Standing(open=False, why="quota")
LIMITED = Standing(open=False, why="rate_limit", limited_for=20.0)
FULL = Standing(open=False, why="concurrency")


def plain(name: str, *fallbacks: str, **fields: Any) -> Model:
    return make_model(name=name, fallbacks=fallbacks, **fields)


def router(name: str, *targets: str, **fields: Any) -> Model:
    return make_model(name=name, sdk="router", targets=tuple(Target(target) for target in targets), **fields)


def priced(name: str, price: str, currency: str = "USD", tokens: int = 1000) -> Model:
    return plain(name, prices=Prices(tokens=tokens, currency=currency, input=Decimal(price), output=Decimal(price)))


def order(named: Model, *others: Model, seed: int = 1, **standings: Standing) -> str:
    """The names of one letter of the candidates; whose standing is not given is open."""
    models = {model.name: model for model in (named, *others)}
    found = candidates(named, models, lambda name: standings.get(name, Standing()), random.Random(seed))
    return "".join(model.name for model in found)


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([plain("a")], "a"),
        ([plain("a", "b", "c"), plain("b"), plain("c")], "abc"),
        ([plain("a", "b", "c"), plain("b", "d"), plain("c"), plain("d")], "abdc"),
        ([plain("a", "x", "b"), plain("b")], "ab"),
        ([plain("a", "b"), plain("b", "a", "c"), plain("c")], "abc"),
        ([plain("a", "r"), router("r", "b", "c", strategy=Strategy.CHEAPEST), plain("b"), plain("c")], "abc"),
        ([router("r")], ""),
        ([router("r", "x", "a"), plain("a")], "a"),
        ([router("r", "a", fallbacks=("c",)), plain("a", "b"), plain("b"), plain("c")], "abc"),
        (
            [
                router("r", "s", "c", strategy=Strategy.CHEAPEST),
                router("s", "a"),
                plain("a", "b"),
                plain("b"),
                plain("c"),
            ],
            "acb",
        ),
        ([router("r", "s"), router("s", "r")], ""),
    ],
)
def test_the_order_while_all_are_well(models: list[Model], expected: str) -> None:
    """First what is meant, then what answers in its place, each followed in the same way; every model once, missing
    ones and loops left out."""
    assert order(*models) == expected


@pytest.mark.parametrize(
    ("standings", "expected"),
    [
        ({"a": BROKEN}, "bca"),
        ({"a": USED_UP, "b": LIMITED}, "cab"),
        ({"a": LIMITED}, "abc"),
        ({"a": FULL, "b": BROKEN}, "acb"),
        ({"a": BROKEN, "b": BROKEN, "c": BROKEN}, "abc"),
    ],
)
def test_what_is_shut_goes_last(standings: dict[str, Standing], expected: str) -> None:
    """Models that take no calls now go behind those that do; but the one that was asked for is waited for as long as
    its rate limit or its own limits shut it."""
    assert order(plain("a", "b", "c"), plain("b"), plain("c"), **standings) == expected


@pytest.mark.parametrize(("after", "expected"), [(None, "ab"), (30.0, "ab"), (20.0, "ba"), (0.0, "ba")])
def test_patience_with_a_rate_limit(after: float | None, expected: str) -> None:
    """A rate limit that has lasted `fallback_after` seconds makes the fallbacks go first, a shorter one does not."""
    assert order(plain("a", "b", fallback_after=after), plain("b"), a=LIMITED) == expected


def test_a_routers_own_patience() -> None:
    """The shorter of the router's patience and the target's holds."""
    for mine, its in ((10.0, None), (None, 10.0), (10.0, 90.0)):
        assert patience(router("r", "a", fallback_after=mine), plain("a", fallback_after=its)) == 10.0
    assert patience(router("r", "a"), plain("a")) is None


def test_a_router_goes_round_what_is_shut() -> None:
    """A router takes an open target before one that is shut for any reason, and waits only where all of them are."""
    models = (router("r", "a", "b", strategy=Strategy.CHEAPEST, fallbacks=("c",)), plain("a"), plain("b"), plain("c"))
    assert order(*models, a=LIMITED) == "bca"
    assert order(*models, a=BROKEN, b=LIMITED) == "bca"
    assert order(*models, a=BROKEN, b=BROKEN) == "cab"


def test_cheapest() -> None:
    """By the price of a token in and one out, equal ones as given, those in another currency than the first's last."""
    models = (priced("a", "3"), priced("b", "0.01", "EUR"), priced("c", "2"), priced("d", "2000", tokens=1_000_000))
    assert order(router("r", *"abcd", strategy=Strategy.CHEAPEST), *models) == "cdab"


def test_fastest() -> None:
    """By measured latency; what was never measured gets one call first, and no second before that has come back."""
    measured = {"a": Standing(latency=2.0), "b": Standing(latency=0.5), "c": Standing()}
    fastest = router("r", *"abc", strategy=Strategy.FASTEST)
    assert order(fastest, *map(plain, "abc"), **measured) == "cba"
    assert order(fastest, *map(plain, "abc"), **{**measured, "c": Standing(in_flight=1)}) == "bac"


def test_least_busy() -> None:
    """By the share of its window that a model has in flight."""
    busy = {"a": Standing(in_flight=9, window=10), "b": Standing(in_flight=1, window=2), "c": Standing(window=0)}
    assert order(router("r", *"abc", strategy=Strategy.LEAST_BUSY), *map(plain, "abc"), **busy) == "cba"


def test_a_router_among_the_targets_counts_as_its_best() -> None:
    """A router that is a target is as cheap as its own cheapest one."""
    inner = router("s", "b", "c", strategy=Strategy.CHEAPEST)
    outer = router("r", "a", "s", strategy=Strategy.CHEAPEST)
    assert order(outer, inner, priced("a", "2"), priced("b", "3"), priced("c", "1")) == "cba"


def test_weights_are_shares() -> None:
    """Each target is first as often as its share of the weights, within four standard deviations of 4,000 draws, also
    among those that are left where one is shut."""
    weighted = make_model(name="r", sdk="router", targets=(Target("a", 6), Target("b", 3), Target("c", 1)))
    for standings, shares in (({}, {"a": 0.6, "b": 0.3, "c": 0.1}), ({"a": BROKEN}, {"b": 0.75, "c": 0.25})):
        firsts = Counter(order(weighted, *map(plain, "abc"), seed=seed, **standings)[0] for seed in range(4000))
        for name, share in shares.items():
            assert firsts[name] / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


NAMES = "abcdef"
STANDINGS = st.sampled_from([Standing(), BROKEN, USED_UP, LIMITED, FULL, Standing(latency=1.0, in_flight=3)])


@st.composite
def webs(draw: st.DrawFn) -> dict[str, Model]:
    """Models and routers that name one another and nobody, in loops too."""
    names = st.lists(st.sampled_from(NAMES + "x"), max_size=4, unique=True)
    models = {}
    for name in NAMES:
        targets = draw(names) if draw(st.booleans()) else []
        fields: dict[str, Any] = {"fallback_after": draw(st.sampled_from([None, 0.0, 60.0]))}
        make = (
            router(name, *targets, strategy=draw(st.sampled_from(Strategy)), **fields)
            if targets
            else plain(name, **fields)
        )
        models[name] = make
    return models


@given(webs(), st.fixed_dictionaries(dict.fromkeys(NAMES, STANDINGS)), st.integers(0, 99))
def test_any_web_of_names(models: dict[str, Model], standings: dict[str, Standing], seed: int) -> None:
    """Whoever names whom: the candidates are real models, each once, those of a well web all there, and no shut one
    that is to be passed by stands before an open one."""
    named = models["a"]
    found = candidates(named, models, standings.__getitem__, random.Random(seed))
    well = candidates(named, models, lambda _: Standing(), random.Random(seed))
    assert {model.name for model in found} == {model.name for model in well}
    assert len({model.name for model in found}) == len(found)
    assert all(model.sdk != "router" for model in found)
    last_open = max((place for place, model in enumerate(found) if standings[model.name].open), default=-1)
    assert not any(is_passed_by(standings[model.name], patience(named, model)) for model in found[: last_open + 1])


def test_a_long_chain() -> None:
    """A chain of a thousand fallbacks is followed for a hundred names and no further."""
    chain = [plain(str(number), str(number + 1)) for number in range(1000)]
    assert (
        len(candidates(chain[0], {model.name: model for model in chain}, lambda _: Standing(), random.Random(1))) == 100
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ProviderRefusedKey("no key", sent=False), True),
        (PermanentProviderError("no TLS", sent=False), True),
        *((PermanentProviderError("it is so", status=status), True) for status in (401, 403, 404, 405, 410)),
        *((PermanentProviderError("bad request", status=status), False) for status in (400, 413, 422)),
        (QuotaExhausted("no money", status=429), True),
        (UnknownReference("sdk", "gone"), True),
        (UnknownReference("prompt", "gone"), False),
        (TransientProviderError("down", status=503), False),
        (ProviderTimeout("nothing came"), False),
        (UnusableAnswer("no JSON", status=200), False),
        (AnswerRefused("will not", status=200), False),
        (InvalidField("responseFormat", "no schema"), False),
        (LeaseLost("gone"), False),
    ],
    ids=repr,
)
def test_which_failures_send_a_job_on(error: MetasyncError, expected: bool) -> None:
    """What is wrong with the provider for good does, whatever its rate limit; what is wrong with the request or the
    answer, and what a retry may mend, does not."""
    assert fails_over(error, 0.0, None) is fails_over(error, 99.0, 1.0) is expected


@pytest.mark.parametrize(
    ("limited_for", "after", "expected"),
    [(99.0, None, False), (29.9, 30.0, False), (30.0, 30.0, True), (0.0, 0.0, True)],
)
def test_a_rate_limit_sends_a_job_on_in_time(limited_for: float, after: float | None, expected: bool) -> None:
    """A rate limit does once it has lasted as long as the model's patience, if it has one."""
    assert fails_over(RateLimited("slow down", status=429), limited_for, after) is expected
