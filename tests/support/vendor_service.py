"""A service with a model of each of some vendors, named after them, for tests by these vendors' own clients."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from tests.support.api import ADMIN
from tests.support.backends import SQLITE, Servers, fresh_database
from tests.support.fake_provider import FakeProvider
from tests.support.service import PROVIDER_KEY, Replica, fleet

VENDORS = ("OpenAI", "Anthropic", "Gemini", "vLLM")


@dataclass
class Served:
    """A replica, the provider behind its models, which are named after their vendors, and a client's key."""

    replica: Replica
    fake: FakeProvider
    key: str

    @property
    def url(self) -> str:
        """OpenAI's clients have the version in their base URL, Anthropic's have not."""
        return f"http://127.0.0.1:{self.replica.port}/v1"

    def sdk(self, **options: Any) -> openai.OpenAI:
        http = openai.DefaultHttpxClient(trust_env=False)
        return openai.OpenAI(base_url=self.url, http_client=http, **{"api_key": self.key, "max_retries": 0, **options})

    def renew(self) -> None:
        """The provider as it was, whatever a test had it do."""
        self.fake.release()
        self.fake.script.clear()
        self.fake.seen.reset()


@contextmanager
def vendor_service(servers: Servers, folder: Path) -> Iterator[Served]:
    with (
        fresh_database(SQLITE, servers, folder) as database,
        FakeProvider() as fake,
        fleet(database.url, database.name, folder) as launched,
    ):
        [replica] = launched.launch(1)
        made = replica.http.post("/clients", json={"name": "developer"}, headers=ADMIN).json()
        for vendor in VENDORS:
            answer = replica.http.post("/models", json=vendor_model(vendor, fake), headers=ADMIN)
            assert answer.status_code == 201, answer.text
        yield Served(replica, fake, made["api_key"])


def vendor_model(vendor: str, fake: FakeProvider) -> dict[str, Any]:
    return {
        "name": vendor,
        "sdk": vendor,
        "endpoint": fake.openai_url if vendor in ("OpenAI", "vLLM") else fake.url,
        "apiType": "chat",
        "apiVersion": "v1beta",
        "deployment": "fake",
        "key": PROVIDER_KEY,
        "minTemperature": 0.0,
        "maxTemperature": 1.0,
        "cost": {"tokens": 1000, "currency": "USD", "input": 1.0, "output": 2.0},
    }
