"""The policy of canaries: who gets one, what it stands for, and when it is found to be worse."""

from dataclasses import replace
from typing import Any

from engine.records.canaries import (
    LOOKS,
    MOST_LOOKED_AT,
    Canary,
    CanaryStatus,
    Pair,
    assigned,
    is_sampled,
    looked,
    replaced_by,
    substituted,
)
from engine.records.values import Lineage, PromptFlow
from tests.support.factories import IDS, NOW, make_flow, make_prompt
from utilities.draws import draws

JOBS = IDS.block(4_000)


def canary(prompt: str, share: float = 0.2, **fields: Any) -> Canary:
    return Canary(id=f"try of {prompt}", prompt_id=prompt, replaces="a" * 24, share=share, since=NOW, **fields)


def flow_with(*canaries: Canary, **fields: Any) -> PromptFlow:
    return make_flow(id="f" * 24, canaries=canaries, **fields)


def with_pairs(differences: list[float | None]) -> Canary:
    pairs = tuple(Pair(str(place), difference) for place, difference in enumerate(differences))
    return looked(canary("c", pairs=pairs), NOW)


def test_each_canary_gets_its_share_and_no_job_two() -> None:
    """The shares of all jobs, the same ones whenever it is asked; what was rolled back gets none."""
    flow = flow_with(canary("c", 0.3), canary("d", 0.2))
    got = [assigned(flow, job_id) for job_id in JOBS]
    assert got == [assigned(flow, job_id) for job_id in JOBS]
    named = [each.prompt_id if each else None for each in got]
    assert abs(named.count("c") / len(JOBS) - 0.3) < 0.03
    assert abs(named.count("d") / len(JOBS) - 0.2) < 0.03
    back = flow_with(canary("c", 0.3, status=CanaryStatus.ROLLED_BACK), canary("d", 0.2))
    assert {each.prompt_id for job_id in JOBS if (each := assigned(back, job_id))} == {"d"}
    gone = replace(flow, prompt_ids=("b" * 24,))
    assert {assigned(gone, job_id) for job_id in JOBS} == {None}


def test_a_sample_is_scored_as_long_as_it_runs() -> None:
    """The share of the canary's jobs, drawn apart from who gets it; none once it has ended."""
    tried = canary("c", 0.5)
    flow = flow_with(tried, canary_sample=0.25)
    own = [job_id for job_id in JOBS if assigned(flow, job_id)]
    assert abs(sum(is_sampled(flow, tried, job_id) for job_id in own) / len(own) - 0.25) < 0.03
    over = replace(tried, status=CanaryStatus.NOT_WORSE)
    assert not any(is_sampled(flow, over, job_id) for job_id in own)


def test_a_canary_stands_where_its_parent_does() -> None:
    """Its parent goes before another version of the same name; what is related to nothing fits nowhere."""
    first, second, other = make_prompt(name="n"), make_prompt(name="n"), make_prompt(name="o")
    child = make_prompt(name="n", lineage=Lineage(parent_id=second.id, run_id="r", step=1))
    assert replaced_by(child, [other, first, second]) == second.id
    assert replaced_by(replace(child, lineage=None), [other, first, second]) == first.id
    assert replaced_by(make_prompt(name="alone"), [other, first]) is None
    assert substituted(("b", "a" * 24, "d"), canary("c")) == ("b", "c", "d")


def test_a_worse_one_is_rolled_back_at_the_first_look() -> None:
    """With the numbers of the first pairs, whatever came beyond them; before there are enough nothing is decided."""
    assert with_pairs([-0.5] * (LOOKS[0] - 1)).status is CanaryStatus.RUNNING
    done = with_pairs([None, *([-0.5, -0.25] * LOOKS[0])])
    assert (done.status, done.looks, done.ended_at) == (CanaryStatus.ROLLED_BACK, 1, NOW)
    assert done.finding is not None
    assert (done.finding.pairs, done.finding.mean) == (LOOKS[0], -0.375)
    assert done.finding.interval is not None
    assert -0.5 < done.finding.interval.low < done.finding.interval.high < -0.25


def test_what_is_not_worse_goes_on_to_the_last_look() -> None:
    """Then it is better, or not worse; where hardly anything could be scored it is undecided, with the reason."""
    running = with_pairs([0.5, -0.5] * (LOOKS[1] // 2))
    assert (running.status, running.looks) == (CanaryStatus.RUNNING, 2)
    assert with_pairs([0.5, -0.5] * (LOOKS[-1] // 2)).status is CanaryStatus.NOT_WORSE
    assert with_pairs([0.5, 0.5, -0.25, 0.0] * (LOOKS[-1] // 4)).status is CanaryStatus.BETTER
    few: list[float | None] = [None] * (MOST_LOOKED_AT - 30)
    assert with_pairs([*few, *([0.5, -0.5] * 15)]).status is CanaryStatus.NOT_WORSE
    blind = with_pairs([*few, *([None] * 30)])
    assert (blind.status, blind.finding) == (CanaryStatus.UNDECIDED, None)
    assert blind.reason is not None


def test_equal_canaries_are_hardly_ever_rolled_back() -> None:
    """Looks at a quarter of the level each: of 40 that are as good, at most a few are taken for worse."""
    taken = 0
    for world in range(40):
        random = draws(world, "equal", 0)
        pairs = tuple(Pair(str(n), random.choice((-1.0, 0.0, 1.0))) for n in range(LOOKS[1]))
        taken += looked(replace(canary("c", pairs=pairs), id=str(world)), NOW).status is CanaryStatus.ROLLED_BACK
    assert taken <= 4
