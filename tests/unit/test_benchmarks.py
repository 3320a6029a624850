"""What the benchmarks make of their measurements; the measuring itself is no test."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from llm_workers.capacity import Window
from tests.benchmarks.callers import WARM_UP, measured
from tests.benchmarks.direct import added
from tests.benchmarks.limits import MEAN_IN, MEAN_OUT, Outcome, Scene, rows_of, sizes, steady
from tests.benchmarks.providers import row_of
from tests.benchmarks.table import (
    Row,
    Setting,
    at_least,
    at_most,
    number,
    percentile,
    ratios,
    spread,
    table,
    write,
)
from tests.support.fake_provider.meter import Meter, Metered, meter_of

SETTING = Setting(
    started_at="2026-01-02 03:04 UTC",
    cores=2,
    python="3.11",
    system="Linux",
    rounds=5,
    quick=False,
    load_before=(0.1, 0.2, 0.3),
    load_after=(1.0, 2.0, 3.0),
)


def test_a_goal_is_met_on_its_own_side_and_exactly_at_it() -> None:
    """Goals name a direction, and reaching one exactly counts."""
    assert [at_most(10).met_by(value) for value in (9.9, 10, 10.1)] == [True, True, False]
    assert [at_least(10).met_by(value) for value in (9.9, 10, 10.1)] == [False, True, True]


def test_a_row_without_goal_or_baseline_has_no_verdict_and_no_ratio() -> None:
    """What is only shown is neither met nor missed."""
    row = Row(name="a", measured=1.0, unit="ms")
    assert (row.met, row.ratio) == (None, None)
    assert Row(name="a", measured=1.0, unit="ms", baseline=4.0).ratio == 0.25


def test_ratios_are_taken_round_by_round() -> None:
    """A round in which the whole machine was slow does not move the ratio."""
    assert ratios([1, 10, 2], [2, 20, 4]) == 0.5
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """Nothing is interpolated; the highest share is the highest value."""
    values = list(range(100, 0, -1))
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.00123456, "0.00123"), (0.8, "0.800"), (12.345, "12.3"), (25000.4, "25,000")]
)
def test_numbers_have_three_figures(value: float, text: str) -> None:
    """More figures would claim more than a shared machine can tell."""
    assert number(value) == text
    assert spread([value, value]) == f"{text} to {text}"


def test_the_table_shows_each_row_beside_its_goal() -> None:
    """One line per row, with as many columns as the heading, and a missed goal stands out."""
    rows = [
        Row(name="good", measured=0.5, unit="ms", goal=at_most(1), baseline=2.0, note="a note"),
        Row(name="bad", measured=2.0, unit="ms", goal=at_most(1)),
        Row(name="shown", measured=3.0, unit="ms"),
    ]
    heading, rule, good, bad, shown = table(rows).splitlines()
    assert {line.count("|") for line in (heading, rule, good, bad, shown)} == {9}
    assert [cell.strip() for cell in good.split("|")[1:-1]] == [
        *("good", "0.500", "ms", "<= 1.00", "yes", "2.00", "0.250", "a note"),
    ]
    assert "NO" in bad
    assert "yes" not in shown
    assert "NO" not in shown


def test_the_file_holds_setting_and_rows(tmp_path: Path) -> None:
    """Figures are kept with the load they were taken under."""
    target = tmp_path / "new" / "bench.json"
    write(target, SETTING, [Row(name="a", measured=2.0, unit="ms", goal=at_least(3))])
    document = json.loads(target.read_text())
    assert document["setting"]["load_after"] == [1.0, 2.0, 3.0]
    assert document["rows"][0] == {
        "name": "a",
        "measured": 2.0,
        "unit": "ms",
        "goal": ">= 3.00",
        "met": False,
        "baseline": None,
        "ratio": None,
        "note": "",
    }
    assert "1.00 2.00 3.00" in str(SETTING)
    assert "2 cores" in str(SETTING)


def test_calls_use_both_limits_alike() -> None:
    """Sizes differ from call to call, and an even number of them has exactly the mean at which both limits bind."""
    found = sizes(300, seed=1)
    assert len(found) == 300
    assert sum(map(sum, found)) == 300 * (MEAN_IN + MEAN_OUT)
    assert len(set(found)) > 100
    assert min(map(min, found)) > 0


def test_a_run_in_which_the_vendor_refused_a_call_shows_it() -> None:
    """The share is that of the limit that was used more, refusals are counted over all calls, and storage calls over
    jobs; the middle of a run is shown beside the whole."""
    scene = Scene(20, Window(60.0, slack=0.6))
    calls = [Metered(at * 3.0, 10_000, at != 15) for at in range(21)]
    used, refused, stored = rows_of(
        Outcome(Meter(**scene.meter, calls=calls), {"shared.change": 3, "shared.get_many": 1, "jobs.claim": 9}),
        scene,
        "x",
    )
    assert used.measured == pytest.approx(20 * 10_000 / 600_000)
    assert refused.measured == pytest.approx(1 / 21)
    assert refused.met is False
    assert "200,000 of 600,000 tokens" in refused.note
    assert stored.measured == pytest.approx(4 / 20)
    assert len(steady(calls)) == 17


def test_limits_are_scaled_with_their_window() -> None:
    """What a vendor allows in a minute it allows a twentieth of in three seconds, and its waits are as much shorter."""
    scene = Scene(300, Window(3.0, slack=0.1))
    assert scene.meter == {"requests": 150, "tokens": 30_000, "seconds": 3.0, "penalty": 0.5}


def test_a_provider_is_compared_with_its_vendors_client() -> None:
    """A job's CPU is taken over a bare call's, round by round."""
    row = row_of("Mistral", [1.0, 2.0, 3.0], [0.4, 0.8, 0.6], [4.0, 8.0, 6.0])
    assert (row.measured, row.met) == (0.25, True)
    assert "0.100 times" in row.note


def test_what_is_added_is_taken_round_by_round() -> None:
    """Of each round's medians the provider's own is taken off, so that a slow round of both adds nothing."""
    ours, bare = ([{"p50": p50, "p99": 9.0, "rate": 100.0} for p50 in each] for each in ((3.0, 13.0), (2.0, 12.0)))
    row = added("a call", ours, bare, alone=True)
    assert (row.measured, row.baseline, row.met) == (1.0, 7.0, True)
    assert added("a call", ours, bare, alone=False).goal is None


def test_callers_ask_as_often_as_they_are_to() -> None:
    """So many calls in all are measured, however many ask, after some that are not."""
    asked = 0

    async def call() -> float:
        nonlocal asked
        asked += 1
        return time.perf_counter()

    found = asyncio.run(measured(call, calls=10, callers=3))
    assert asked == 10 + 3 * WARM_UP
    assert 0 <= found["p50"] <= found["p99"]


def test_a_meter_counts_calls_and_tokens_in_every_window() -> None:
    """Neither limit may be exceeded, wherever a window begins; what was refused counts in what came, and in nothing
    that is left for others; and a meter tells it all to another process."""
    meter = Meter(requests=3, tokens=100, seconds=10.0, penalty=2.0)
    asked = [(0.0, 40), (1.0, 50), (2.0, 20), (3.0, 10), (4.0, 1), (10.0, 40), (10.5, 1)]
    answers = [meter.check(at, tokens) is None for at, tokens in asked]
    assert answers == [True, True, False, True, False, True, False]
    assert (meter.most(), meter.most_tokens()) == (6, 122)
    assert meter.used() == pytest.approx(140 / 100)
    assert meter_of(meter.as_document()).calls == meter.calls
