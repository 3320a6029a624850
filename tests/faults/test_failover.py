"""Where jobs go when their model's provider fails: faults 13, 14 and 16, and invariants 3 and 8."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from engine.jobs.job import Job
from engine.jobs.states import JobState
from tests.support.api import ADMIN
from tests.support.backends import Database
from tests.support.customer import MODEL, Customer, serving
from tests.support.fake_provider import Rule, fault
from tests.support.invariants import check
from tests.support.service import PROVIDER_KEY, Replica, one_of_each
from tests.support.waiting import eventually

COST = {"tokens": 1000, "currency": "USD", "input": 10.0, "output": 20.0}
AT_SPARE = Decimal("0.11")
"""What the eleven tokens of a question cost at a model with these prices."""

GOES_ON = {
    "refused!key": "ProviderRefusedKey",
    "unknown!status,code=404": "PermanentProviderError",
    "used-up!quota": "QuotaExhausted",
    "limited!rate_limit,seconds=60": "RateLimited",
}
STAYS = {
    "bad!status,code=400": "PermanentProviderError",
    "unwilling!refusal": "AnswerRefused",
}

pytestmark = pytest.mark.parametrize("backend", one_of_each(), indirect=True)


def _add(customer: Customer, replica: Replica, name: str, **fields: Any) -> None:
    """A model at the fake provider, whose deployment has its name, made by an admin."""
    body = {
        "name": name,
        "sdk": "OpenAI",
        "endpoint": customer.fake.openai_url,
        "apiType": "chat",
        "apiVersion": "1",
        "deployment": name,
        "key": PROVIDER_KEY,
        "minTemperature": 0.0,
        "maxTemperature": 1.0,
        "cost": COST,
        **fields,
    }
    answer = replica.http.post("/models", json=body, headers=ADMIN)
    assert answer.status_code == 201, answer.text


def _run(customer: Customer, replica: Replica, *models: str) -> dict[str, Job]:
    """One job for each model, by the model's name, once all have ended."""
    ids = [customer.post(replica, "a job", model=model)[0] for model in models]
    return dict(zip(models, customer.wait(ids), strict=True))


def _calls(job: Job) -> list[tuple[str, str | None]]:
    return [(call.model, call.error_type) for attempt in job.ledger for call in attempt.calls]


def test_which_failures_go_on(database: Database, tmp_path: Path) -> None:
    """What is wrong with the provider for good, an exhausted quota and a rate limit beyond the model's patience send a
    job on within its attempt, and the answer costs what the answering model costs; a bad request and a refusal do not;
    a transient failure and a lost call are tried again, and a rate limit waited for, at the same model, the latter
    uncharged. Once a quota is known to be used up nobody calls there; without a fallback a job waits and says so."""
    with serving(database, tmp_path) as (customer, [replica]):
        _add(customer, replica, "spare")
        for name in (*GOES_ON, *STAYS, "shaky", "torn"):
            _add(customer, replica, name, fallbacks=["spare"], fallbackAfter=0)
        _add(customer, replica, "keyless", key="NO_SUCH_KEY", fallbacks=["spare"])
        _add(customer, replica, "poor!quota")
        _add(customer, replica, "patient", fallbacks=["spare"])
        targets = [{"model": "refused!key"}, {"model": MODEL}]
        router = {"name": "any", "sdk": "router", "targets": targets, "strategy": "leastBusy"}
        assert replica.http.post("/models", json=router, headers=ADMIN).status_code == 201
        customer.fake.add(Rule(fault("status", code=503), model="shaky", times=1))
        customer.fake.add(Rule(fault("reset"), model="torn", times=1))
        customer.fake.add(Rule(fault("rate_limit", seconds=1), model="patient", times=1))
        customer.employ(replica)

        ended = _run(customer, replica, *GOES_ON, *STAYS, "shaky", "torn", "keyless", "patient")

        for name, error_type in GOES_ON.items():
            assert _calls(ended[name]) == [(name, error_type), ("spare", None)]
            assert (len(ended[name].ledger), ended[name].attempts) == (1, 0)
            assert ended[name].answered_by == "spare"
            assert ended[name].totals.input_cost == AT_SPARE
        for name, error_type in STAYS.items():
            assert ended[name].status is JobState.ERROR_PROCESSING
            assert _calls(ended[name]) == [(name, error_type)]
        assert _calls(ended["shaky"]) == [("shaky", "TransientProviderError"), ("shaky", None)]
        assert _calls(ended["torn"]) == [("torn", "TransientProviderError"), ("torn", None)]
        assert [call.outcome for attempt in ended["torn"].ledger for call in attempt.calls] == ["unknown", "ok"]
        assert _calls(ended["keyless"]) == [("spare", None)]
        assert _calls(ended["patient"]) == [("patient", "RateLimited"), ("patient", None)]
        assert (ended["shaky"].attempts, ended["patient"].attempts, ended["patient"].waits) == (1, 0, 1)
        shown = customer.call(replica, "GET", f"/jobs/{ended['refused!key'].id}")
        assert (shown["model"], shown["answeredBy"]) == ("refused!key", "spare")

        again = _run(customer, replica, "any", "used-up!quota", "limited!rate_limit,seconds=60")
        assert _calls(again.pop("any")) == [("refused!key", "ProviderRefusedKey"), (MODEL, None)]
        assert [_calls(job) for job in again.values()] == [[("spare", None)], [("spare", None)]]
        check(customer)

        (poor,) = customer.post(replica, "a job", model="poor!quota")
        assert "answered 429" in eventually(lambda: _waits_for(customer, replica, poor), what="a wait")


def _waits_for(customer: Customer, replica: Replica, job_id: str) -> str | None:
    """What a job, which must be uncharged, says that it waits for."""
    told = customer.call(replica, "GET", f"/jobs/{job_id}/explain")
    assert told["chargedAttempts"] == 0
    return str(told["text"]) if told["reason"] == "backing_off" else None


def test_an_outage_goes_round_and_ends(database: Database, tmp_path: Path) -> None:
    """While a provider answers 503 alone, each model's breaker opens, which the log says once, and no job ends in
    error: those of the model with a fallback go there, the others wait. Soon after the recovery the models themselves
    answer again, everything that had waited."""
    with serving(database, tmp_path) as (customer, [replica]):
        _add(customer, replica, "spare")
        _add(customer, replica, "down", fallbacks=["spare"])
        _add(customer, replica, "alone")
        customer.fake.add(*(Rule(fault("status", code=503), model=model) for model in ("down", "alone")))
        customer.employ(replica, capacity=100)

        waiting = customer.post(replica, *map(str, range(50)), model="alone")
        ended = customer.wait(customer.post(replica, *map(str, range(50)), model="down"))

        assert {(job.status, job.answered_by) for job in ended} == {(JobState.PROCESSED, "spare")}
        assert max(job.attempts for job in ended) <= 2
        shut = [(event["model"], event["reason"]) for event in replica.events("model_shut")]
        assert sorted(shut) == [("alone", "breaker"), ("down", "breaker")]

        customer.fake.script.clear()
        assert {job.answered_by for job in customer.wait(waiting)} == {"alone"}
        eventually(lambda: _answerer(customer, replica, "down") == "down", within=20, what="a recovery")
        check(customer)


def _answerer(customer: Customer, replica: Replica, model: str) -> str | None:
    return _run(customer, replica, model)[model].answered_by
