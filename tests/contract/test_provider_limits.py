"""What vendors say of their limits comes with every answer, whole and streamed."""

import pytest

from engine.llm import Completion
from tests.contract.test_provider_streams import streamed
from tests.support.fake_provider import FakeProvider, Rule, fault
from tests.support.vendors import LEVELS, Vendor, asked, complete

FAULTS = ["none", "rate_limit", "status", "truncated", "length"]


def _sent(vendor: Vendor, fake: FakeProvider, kind: str) -> tuple[object, ...]:
    """Scripts the answers to have the vendor's headers; the levels that are to come of them."""
    headers = vendor.limit_headers
    options = {f"header:{name}": value for name, value in (headers or {}).items()}
    fake.add(Rule(fault(kind, **options)))
    return () if headers is None else LEVELS


@pytest.mark.parametrize("kind", FAULTS)
def test_whole_answers(vendor: Vendor, fake: FakeProvider, kind: str) -> None:
    """The limits' levels are on the completion, and on the error that an answer came to."""
    expected = _sent(vendor, fake, kind)

    (result,) = complete(asked(vendor.endpoint(fake)))

    assert isinstance(result, Completion) == (kind == "none")
    assert result.levels == expected  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [*FAULTS, "cut"])
def test_streams(vendor: Vendor, fake: FakeProvider, kind: str) -> None:
    """A stream tells of them at its end, also where that is an error, or a connection lost in the middle."""
    expected = _sent(vendor, fake, kind)

    result = streamed(asked(vendor.endpoint(fake)))

    ending = result.completion or result.error
    assert isinstance(ending, Completion) == (kind == "none")
    assert ending is not None
    assert ending.levels == expected


def test_answers_that_tell_of_none(vendor: Vendor, fake: FakeProvider) -> None:
    """Without such headers there are no levels."""
    (result,) = complete(asked(vendor.endpoint(fake)))

    assert isinstance(result, Completion)
    assert result.levels == ()
