"""A refinement keeps the prompts that it began with, whatever becomes of them."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import InvalidField
from engine.jobs.outcome import Settlement
from engine.jobs.signals import JobSignals
from engine.records.pinning import LARGEST_TEXTS, pinned
from engine.records.runs import Run, RunStatus
from engine.records.values import Prompt
from llm_optimizer.assembly import build_optimizer
from tests.support.completing import Completing, completing
from tests.support.factories import CLIENT, make_prompt, make_run
from tests.support.optimizing import Bench
from utilities.ids import ObjectIds


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Completing]:
    with completing(tmp_path) as made:
        yield made


def begun(lab: Completing, prompts: tuple[Prompt, Prompt, Prompt]) -> Run:
    """Two iterations with model `m` in all roles."""
    work, judge, editor = (prompt.id for prompt in prompts)
    run = make_run(
        initial_prompt_ids=(work,),
        eval_prompt_id=judge,
        eval_model="m",
        meta_prompt_id=editor,
        meta_model="m",
        working_models=("m",),
    )
    optimizer = build_optimizer(lab.storage, signals=JobSignals(), clock=lab.clock, ids=ObjectIds(), replica="here")
    return optimizer.begin(run)


def iterated(lab: Completing, run: Run) -> Run:
    """The run after its current job was done for real."""
    job = lab.claimed_again()
    done = asyncio.run(lab.handled(job))
    assert done.completed is not None, repr(done.error)
    work = lab.held(job)
    for call in done.calls:
        work.record(call)
    attempt = work.attempt(done.completed, lab.clock.now())
    settlement = Settlement(job_id=job.id, token=job.token, outcome=done.completed, attempt=attempt)
    assert lab.storage.jobs.settle([settlement], lab.clock.now()) == [True]
    stored = lab.storage.runs.get(run.id)
    assert stored is not None
    Bench(lab.storage, lab.storage).errand().step(stored)
    after = lab.storage.runs.get(run.id)
    assert after is not None
    return after


def test_prompts_are_edited_and_deleted_meanwhile(lab: Completing) -> None:
    """All three are read when the run begins: neither edits before its first iteration nor deletions before its second
    one change what models are told, and its last suggestion is kept as a version of what it was."""
    lab.model()
    texts = ("Work as JSON.", "Judge as JSON.", "Improve it.")
    first, second, third = (lab.prompt(text) for text in texts)
    run = begun(lab, (first, second, third))
    for prompt in (first, second, third):
        assert lab.storage.prompts.compare_and_set(replace(prompt, text=f"Not {prompt.text}"))
    run = iterated(lab, run)
    for prompt in (first, second, third):
        found = lab.storage.prompts.get(prompt.id)
        assert found is not None
        gone = found.metadata.deleted(lab.clock.now(), CLIENT)
        assert lab.storage.prompts.compare_and_set(replace(found, metadata=gone))
    run = iterated(lab, run)
    assert run.status is RunStatus.COMPLETED
    told = [call.system for call in lab.fake.seen.calls]
    assert told[:3] == list(texts)
    assert told[4:] == list(texts[1:])
    [done] = run.model_runs
    assert all(each.suggested_prompt_id is not None for each in done.iterations)


def test_prompts_that_are_too_long() -> None:
    """Who keeps prompts keeps no more than so many characters, and says which field they came from."""
    with pytest.raises(InvalidField, match="initialWorkingPromptIds"):
        pinned([make_prompt(text="x" * (LARGEST_TEXTS + 1))], "initialWorkingPromptIds")
