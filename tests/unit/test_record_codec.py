"""Documents that older versions stored."""

from decimal import Decimal

from engine.records.values import Budget, BudgetPeriod, Limits, Money, Strategy, Target, WorkerConfig
from engine.storage.record_codec import CLIENTS, MODELS, WORKERS
from tests.support.factories import make_client, make_model, make_worker


def test_a_model_stored_before_there_were_routes() -> None:
    """A model without limits, fallbacks and targets in its document has none, and the rest is read as ever."""
    routed = make_model(
        limits=Limits(concurrency=1),
        fallbacks=("a",),
        fallback_after=1.0,
        targets=(Target("b"),),
        strategy=Strategy.FASTEST,
    )
    document = MODELS.to_document(routed)
    for name in ("limits", "fallbacks", "fallbackAfter", "targets", "strategy"):
        del document[name]
    assert MODELS.from_document(document) == make_model(id=routed.id)


def test_clients_and_workers_stored_before_there_was_money() -> None:
    """Those without a budget or a cost cap in their documents have none; others get theirs back to the last digit."""
    money = Money(Decimal("0.000000000001"), "USD")
    client = make_client(budget=Budget(money, BudgetPeriod.DAY))
    worker = make_worker(config=WorkerConfig(poll_interval=1, max_items_per_batch=1, max_cost=money))
    stored_client, stored_worker = CLIENTS.to_document(client), WORKERS.to_document(worker)
    assert CLIENTS.from_document(stored_client) == client
    assert WORKERS.from_document(stored_worker) == worker
    del stored_client["budget"], stored_worker["config"]["maxCost"]
    assert CLIENTS.from_document(stored_client).budget is None
    assert WORKERS.from_document(stored_worker).config.max_cost is None
