"""A provider of our own: vendors' wire formats over real HTTP, with faults on demand, counting what it saw.

In a test: `with FakeProvider() as fake: ... fake.openai_url ... fake.seen.count(model="m")`. As a process:
`python -m tests.support.fake_provider --port 0`, then `GET /_seen`, `POST /_script`, `POST /_gate`, `POST /_reset`,
`PUT` and `GET /_meter/{model}`.

How a call is made to go wrong, first match wins:
1. a rule put into `fake.script` (or posted to /_script), by model and by text in the prompt, a given number of times;
2. a marker in the prompt: `[[rate_limit seconds=2]]`;
3. the model's name: `any-name!status,code=503`.
See `faults.KINDS` for what can go wrong and with which options.
"""

from tests.support.fake_provider.faults import KINDS, Fault, fault
from tests.support.fake_provider.script import Rule
from tests.support.fake_provider.seen import Seen, SeenCall
from tests.support.fake_provider.server import FakeProvider

__all__ = ["KINDS", "FakeProvider", "Fault", "Rule", "Seen", "SeenCall", "fault"]
