"""What the providers' suites share: a fake provider, and each vendor in turn."""

from collections.abc import Iterator

import pytest

from tests.support.fake_provider import FakeProvider
from tests.support.vendors import VENDORS, Vendor


@pytest.fixture(scope="module")
def provider_server() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture
def fake(provider_server: FakeProvider) -> FakeProvider:
    """The server with nothing seen and nothing scripted."""
    provider_server.seen.reset()
    provider_server.script.clear()
    return provider_server


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.sdk)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    """A test that uses it runs on each vendor."""
    return request.param
