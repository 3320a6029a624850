"""Documents that older versions stored."""

from engine.records.values import Limits, Strategy, Target
from engine.storage.record_codec import MODELS
from tests.support.factories import make_model


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
