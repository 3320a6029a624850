"""How searches end, and what they leave: budgets, pauses, judges that fail, prompts that change, verdicts."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.errors import InvalidField, Refused
from engine.jobs.job import Job
from engine.jobs.queue import ClaimFilter, ClaimRequest, JobQuery, Page
from engine.jobs.signals import JobSignals
from engine.jobs.states import JobState
from engine.records.runs import OPTIMIZER, Run, RunStatus, Withdrawal, cancelled, discarded, paused, resumed
from engine.records.searches import Phase, Promotion, RunBudget, Verdict
from engine.records.store import Storage, Where
from engine.records.values import Money, PromptStatus
from llm_optimizer.assembly import build_optimizer
from tests.faults.test_searches import begun, told
from tests.support.backends import SQLITE
from tests.support.factories import CLIENT, IDS
from tests.support.optimizing import Bench, settled
from tests.support.toy_world import WORDS, Toy
from utilities.clock import SystemClock
from utilities.ids import ObjectIds

pytestmark = pytest.mark.parametrize("backend", [SQLITE], indirect=True)
CLOCK = SystemClock()


def ended(storage: Storage, toy: Toy, **terms: Any) -> Run:
    """A run from its begin to its end."""
    bench = Bench(storage, storage, toy)
    return bench.stepped(begun(bench, **terms).id, play=toy.play, most=6000)


def progress_of(run: Run) -> Any:
    assert run.progress is not None
    return run.progress


def changed(storage: Storage, run: Run, change: Any) -> Run:
    """The run as it is stored now, after a change from outside."""
    stored = storage.runs.get(run.id)
    assert stored is not None
    assert storage.runs.compare_and_set(change(stored))
    return stored


def test_a_better_prompt_is_found_proven_and_kept(storage: Storage) -> None:
    """The winner beats the first prompt on examples that the search never used, and is a version with its lineage."""
    run = ended(storage, Toy(), budget=RunBudget(calls=600))
    progress = progress_of(run)
    assert (run.status, progress.verdict) == (RunStatus.COMPLETED, Verdict.PROMOTED)
    winner = storage.prompts.get(progress.winner_id)
    parent = storage.prompts.get(run.initial_prompt_ids[0])
    assert winner is not None
    assert parent is not None
    assert (winner.name, winner.type, winner.version) == (parent.name, parent.type, 2)
    assert winner.status is PromptStatus.PUBLISHED
    assert winner.lineage is not None
    assert (winner.lineage.parent_id, winner.lineage.run_id) == (parent.id, run.id)
    assert sum(word in winner.text for word in WORDS) >= 3
    test = progress.numbers["test"]
    assert test["p"] < 0.05 < test["low"]
    used = told(storage, run)["state"]["state"]["scores"].values()
    assert not {one for scores in used for one in scores} & set(told(storage, run)["state"]["split"]["holdout"])


def test_without_promotion_the_winner_is_a_draft(storage: Storage) -> None:
    """A run that is to ask leaves the proven winner as a draft."""
    run = ended(storage, Toy(), budget=RunBudget(calls=600), promote=Promotion.ASK)
    assert progress_of(run).verdict is Verdict.PROVEN
    winner = storage.prompts.get(progress_of(run).winner_id)
    assert winner is not None
    assert winner.status is PromptStatus.DRAFT


def test_a_prompt_that_cannot_be_better_is_left_alone(storage: Storage) -> None:
    """Where the first prompt is right everywhere, the run ends before its search, for the price of the checks."""
    run = ended(storage, Toy(prompt=f"Answer. {' '.join(WORDS)}"))
    assert (progress_of(run).verdict, progress_of(run).finish) == (Verdict.NO_HEADROOM, "no_headroom")
    assert set(run.spent) == {"work"}
    assert run.totals.calls < 20


def test_a_search_that_finds_nothing_says_so(storage: Storage) -> None:
    """An editor that never helps leaves the prompt as it is."""
    run = ended(storage, Toy(always_useless=True), budget=RunBudget(calls=200))
    assert (run.status, progress_of(run).verdict) == (RunStatus.COMPLETED, Verdict.NO_IMPROVEMENT)
    assert progress_of(run).winner_id is None


def test_looks_at_one_holdout_are_counted(storage: Storage) -> None:
    """A second run on the same dataset has to be surer of its winner; one on another dataset does not."""
    toy, budget = Toy(), RunBudget(calls=600)
    runs = [ended(storage, toy, budget=budget, dataset_id=name) for name in ("d1", "d1", "d2")]
    tests = [progress_of(run).numbers["test"] for run in runs]
    assert [(test["looks"], test["level"]) for test in tests] == [(1, 0.05), (2, 0.025), (1, 0.05)]


def test_a_look_outlives_its_run_and_a_proof_that_asked_nothing_is_none(storage: Storage) -> None:
    """A deleted run has looked all the same. One whose money was gone before its proof has not."""
    toy, dataset = Toy(), IDS.new()
    bench = Bench(storage, storage, toy)
    poor = begun(bench, dataset_id=dataset, budget=RunBudget(calls=600))
    errand = bench.errand()
    while (run := errand.get(poor.id)) is not None:
        if progress_of(run).phase is Phase.HOLDOUT:
            assert run.search is not None
            changed(storage, run, lambda run: replace(run, search=replace(run.search, budget=RunBudget(calls=1))))
            run, errand = storage.runs.get(run.id), bench.errand()
            assert run is not None
        errand.step(run)
        for job_id in bench.play(toy.play):
            bench.watch.tell(job_id)
    stored = storage.runs.get(poor.id)
    assert stored is not None
    assert (progress_of(stored).verdict, progress_of(stored).numbers["test"]["count"]) == (Verdict.NOT_PROVEN, 0)
    looks = []
    for _ in range(2):
        run = ended(storage, toy, budget=RunBudget(calls=600), dataset_id=dataset)
        looks.append(progress_of(run).numbers["test"]["looks"])
        changed(storage, run, lambda run: discarded(run, CLOCK.now(), by="x"))
        dropped = bench.errand().get(run.id)
        assert dropped is not None
        bench.errand().step(dropped)
        assert storage.runs.get(run.id) is None
    assert looks == [1, 2]


def test_an_edited_winner_is_not_promoted_unasked(storage: Storage) -> None:
    """What was proven is a text: a draft that somebody has changed since is refused, unless it is forced."""
    run = ended(storage, Toy(), budget=RunBudget(calls=600), promote=Promotion.ASK)
    searching = Bench(storage, storage, Toy()).searching()
    winner = storage.prompts.get(progress_of(run).winner_id)
    assert winner is not None
    assert storage.prompts.compare_and_set(replace(winner, text="Answer nothing."))
    with pytest.raises(Refused, match="edited"):
        searching.promoted(run, by="x", force=False)
    assert searching.promoted(run, by="x", force=True).progress.verdict is Verdict.PROMOTED  # type: ignore[union-attr]
    again = storage.prompts.get(winner.id)
    assert again is not None
    assert (again.status, again.text) == (PromptStatus.PUBLISHED, "Answer nothing.")


def test_a_judge_that_wavers_is_asked_several_times(storage: Storage) -> None:
    """The more two judgements of one answer differ, the more are made of each answer that proves the winner."""
    run = ended(storage, Toy(judged=True, wavering=0.2), budget=RunBudget(calls=900), force=True)
    test = progress_of(run).numbers["test"]
    assert progress_of(run).numbers["judgeNoise"] > 0.1
    assert test["judgements"] == 2
    jobs = storage.jobs.find(JobQuery(client_id=CLIENT), Page(limit=10_000))
    proof = set(told(storage, run)["state"]["split"]["holdout"])
    asked = [job for job in jobs if (job.client_reference or {}).get("role") == "eval"]
    times = Counter(
        ((job.client_reference or {})["example"], job.request_data["output"])
        for job in asked
        if (job.client_reference or {})["example"] in proof
    )
    assert set(times.values()) == {test["judgements"]}
    assert run.totals.calls <= 900


def test_weights_count_to_the_end(storage: Storage) -> None:
    """Where one kind of example weighs most, the winner is good at that, and baseline and gain are weighted means."""
    run = ended(storage, Toy(weights={"alpha": 8.0}), budget=RunBudget(calls=600))
    state, numbers = told(storage, run)["state"], progress_of(run).numbers
    assert numbers["weighted"]
    assert "alpha" in (progress_of(run).best_text or "")
    kinds = {one: 8.0 if int(one[1:]) % 5 == 0 else 1.0 for one in state["split"]["holdout"]}
    gaps = {one: state["holdout"]["winner"][one] - state["holdout"]["c0"][one] for one in kinds}
    wanted = sum(gaps[one] * kinds[one] for one in kinds) / sum(kinds.values())
    assert numbers["test"]["mean"] == pytest.approx(wanted)


def test_a_task_that_no_text_changes_is_left_alone(storage: Storage) -> None:
    """Two rewrites, one of them made with the wanted answers at hand, score as a first prompt that is good already: the
    run ends there, unless it is told to go on. A poor prompt leaves room, whatever two rewrites say."""
    prompt = "Answer. alpha beta gamma"
    toy = Toy(always_useless=True, prompt=prompt)
    run = ended(storage, toy, budget=RunBudget(calls=1_000))
    assert 0.6 < progress_of(run).baseline < 0.97
    assert progress_of(run).verdict is Verdict.NO_HEADROOM
    told_of = progress_of(run).numbers["headroom"]
    assert (told_of["rewrite"], told_of["oracle"], told_of["examples"]) == (0.0, 0.0, 10)
    assert toy.calls["meta"] == 2
    asked = sorted(toy.told["meta"], key=lambda text: "Expected:" in text)
    assert ["Expected:" in text for text in asked] == [False, True]
    for others, terms in (({"prompt": prompt}, {"force": True, "patience": 3}), ({}, {"patience": 3})):
        more = ended(storage, Toy(always_useless=True, **others), budget=RunBudget(calls=1_000), **terms)
        assert progress_of(more).verdict is Verdict.NO_IMPROVEMENT
        assert "headroom" not in progress_of(more).numbers


@pytest.mark.parametrize(
    "budget",
    [
        RunBudget(calls=50),
        RunBudget(calls=233),
        RunBudget(tokens=2_000),
        RunBudget(amount=Money(Decimal("1.50"), "USD")),
        RunBudget(calls=400, tokens=1_500, amount=Money(Decimal(9), "USD")),
    ],
)
@pytest.mark.parametrize("judged", [False, True])
def test_no_budget_is_overshot(storage: Storage, budget: RunBudget, judged: bool) -> None:
    """Calls, tokens and amounts of all roles together stay within what was given, and most of it is used."""
    run = ended(storage, Toy(judged=judged), budget=budget, target=None)
    totals = run.totals
    used = {
        "calls": (totals.calls, budget.calls),
        "tokens": (totals.input_tokens + totals.output_tokens, budget.tokens),
        "amount": (totals.input_cost + totals.output_cost, None if budget.amount is None else budget.amount.amount),
    }
    capped = {name: (spent, cap) for name, (spent, cap) in used.items() if cap is not None}
    assert all(spent <= cap for spent, cap in capped.values()), capped
    assert run.status is RunStatus.COMPLETED


def test_time_is_a_budget_too(storage: Storage) -> None:
    """A run without time makes no call, and says that its budget is used up."""
    run = ended(storage, Toy(), budget=RunBudget(seconds=0.0))
    assert (progress_of(run).finish, run.totals.calls) == ("budget", 0)
    assert storage.jobs.count(JobQuery(client_id=CLIENT)) == 0


def test_a_failed_judgement_is_no_zero(storage: Storage) -> None:
    """A judge that fails half the time ends the run with the reason, rather than with scores of 0."""
    run = ended(storage, Toy(judged=True, broken=frozenset({"eval"})), budget=RunBudget(calls=400))
    assert run.status is RunStatus.FAILED
    assert "no score" in (run.failure_reason or "")
    first = told(storage, run)["state"]["first"]
    assert set(first.values()) == {None, 0.0, 1.0}


def in_the_middle(storage: Storage, toy: Toy, **terms: Any) -> tuple[Bench, Run]:
    """A run whose first jobs wait in the queue."""
    bench = Bench(storage, storage, toy)
    run = begun(bench, **terms)
    bench.errand().step(run)
    assert storage.jobs.count(JobQuery(client_id=CLIENT, status=JobState.PENDING)) > 0
    return bench, run


@pytest.mark.parametrize("withdrawal", list(Withdrawal))
def test_a_pause_empties_the_queue_and_loses_nothing(storage: Storage, withdrawal: Withdrawal) -> None:
    """A paused search has no job in the queue; resumed it comes to the end of one that was never paused."""
    toy = Toy()
    wanted = told(storage, ended(storage, toy))
    bench, run = in_the_middle(storage, toy)
    changed(storage, run, lambda run: paused(run, withdrawal, CLOCK.now(), by="x"))
    bench.stepped(run.id, play=toy.play)
    assert storage.jobs.count(JobQuery(client_id=CLIENT, status=JobState.PENDING)) == 0
    changed(storage, run, lambda run: resumed(run, CLOCK.now(), by="x"))
    again = bench.stepped(run.id, play=toy.play, most=4000)
    assert told(storage, again) == wanted


def held_and_done(storage: Storage, bench: Bench, toy: Toy) -> tuple[list[str], list[str]]:
    """The ids of three jobs of the run that a worker is at, and of two more whose results nobody has consumed yet."""
    now = CLOCK.now()
    request = ClaimRequest(
        filter=ClaimFilter(client_id=CLIENT), owner="player", expires_at=now + timedelta(hours=1), limit=5
    )
    jobs = storage.jobs.claim(request, now)
    assert len(jobs) == 5
    assert all(storage.jobs.settle([settled(job, toy.play(job)) for job in jobs[:2]], now))
    return [job.id for job in jobs[2:]], [job.id for job in jobs[:2]]


@pytest.mark.parametrize(
    ("withdrawal", "left"), [(Withdrawal.QUEUED, JobState.PROCESSING), (Withdrawal.ALL, JobState.CANCELED)]
)
def test_a_pause_lets_or_drops_what_is_in_flight(storage: Storage, withdrawal: Withdrawal, left: JobState) -> None:
    """As it is asked for; what waits in the queue is withdrawn in either case, and what was done is kept."""
    bench, run = in_the_middle(storage, Toy())
    held, done = held_and_done(storage, bench, Toy())
    changed(storage, run, lambda run: paused(run, withdrawal, CLOCK.now(), by="x"))
    stored = storage.runs.get(run.id)
    assert stored is not None
    bench.errand().step(stored)
    assert {job.status for job in storage.jobs.get_many(held).values()} == {left}
    assert {job.status for job in storage.jobs.get_many(done).values()} == {JobState.PROCESSED}
    assert storage.jobs.count(JobQuery(client_id=CLIENT, status=JobState.PENDING)) == 0


def test_a_cancelled_search_withdraws_at_once(storage: Storage) -> None:
    """Before whoever cancels it is answered, nothing waits and nothing is worked on, without any driver; whoever drives
    runs then consumes the results that nobody has used."""
    bench, run = in_the_middle(storage, Toy())
    held, done = held_and_done(storage, bench, Toy())
    changed(storage, run, lambda run: cancelled(run, CLOCK.now(), by="x"))
    stored = storage.runs.get(run.id)
    assert stored is not None
    optimizer = build_optimizer(storage, signals=JobSignals(), clock=CLOCK, ids=ObjectIds(), replica="idle")
    optimizer.withdraw(stored)
    assert {job.status for job in storage.jobs.get_many(held).values()} == {JobState.CANCELED}
    assert storage.jobs.count(JobQuery(client_id=CLIENT, status=JobState.PENDING)) == 0
    bench.errand().step(stored)
    consumed = storage.jobs.get_many(done).values()
    assert {(job.status, job.metadata.updated_by) for job in consumed} == {(JobState.CONSUMED, OPTIMIZER)}


def test_a_deleted_search_leaves_nothing(storage: Storage) -> None:
    """Neither jobs in the queue nor its stored state."""
    bench, run = in_the_middle(storage, Toy())
    changed(storage, run, lambda run: discarded(run, CLOCK.now(), by="x"))
    stored = storage.runs.get(run.id)
    assert stored is not None
    bench.errand().step(stored)
    assert storage.runs.get(run.id) is None
    assert storage.run_parts.count(Where(equals={"runId": [run.id]})) == 0
    assert storage.jobs.count(JobQuery(client_id=CLIENT, status=JobState.PENDING)) == 0


def test_a_run_keeps_the_prompt_that_it_started_with(storage: Storage) -> None:
    """An edit of the prompt while the run goes on changes nothing for it."""
    toy = Toy()
    wanted = told(storage, ended(storage, toy))
    bench, run = in_the_middle(storage, toy)
    toy.prompt = "Something else."
    prompt = storage.prompts.get(run.initial_prompt_ids[0])
    assert prompt is not None
    assert storage.prompts.compare_and_set(replace(prompt, text="Something else."))
    assert told(storage, bench.stepped(run.id, play=toy.play, most=4000)) == wanted


def test_jobs_that_are_taken_away_have_no_score(storage: Storage) -> None:
    """A rollout whose job was canceled or deleted by its client is unscored; the run goes on."""
    from engine.jobs.changes import after_event, deleted
    from engine.jobs.states import Event

    bench, run = in_the_middle(storage, Toy())
    jobs = storage.jobs.get_many([job.id for job in _pending(storage)])
    one, other = [jobs[job_id] for job_id in sorted(jobs)[:2]]
    gone = [after_event(one, Event.CANCEL, CLOCK.now(), by="x"), deleted(other, CLOCK.now(), by="x")]
    assert storage.jobs.compare_and_set(gone, CLOCK.now()) == [True, True]
    done = bench.stepped(run.id, play=Toy().play, most=4000)
    assert done.status is RunStatus.COMPLETED
    assert list(told(storage, done)["state"]["first"].values()).count(None) == 2


def _pending(storage: Storage) -> list[Job]:
    return storage.jobs.find(JobQuery(client_id=CLIENT, status=JobState.PENDING), Page())


@pytest.mark.parametrize(
    ("terms", "field"),
    [({"strategy": "reflect", "parameters": {"nope": 1}}, "strategy.parameters.nope"), ({}, "dataset")],
)
def test_what_a_run_cannot_do_is_refused(storage: Storage, terms: dict[str, Any], field: str) -> None:
    """Parameters that the strategy does not know, and a dataset without items: nothing is stored."""
    toy = Toy(examples=100 if terms else 0)
    with pytest.raises(InvalidField, match=field):
        begun(Bench(storage, storage, toy), **terms)
    assert storage.runs.count(Where()) == 0
