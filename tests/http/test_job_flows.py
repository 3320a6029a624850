"""Jobs that name a prompt flow in place of prompts."""

from typing import Any

import pytest

from tests.support.api import Api
from tests.support.jobs_http import Shop, open_shop

KEY = {"Idempotency-Key": "flowing"}


@pytest.fixture
def shop(api: Api) -> Shop:
    return open_shop(api)


@pytest.fixture
def local(local_api: Api) -> Shop:
    return open_shop(local_api)


def flow_of(shop: Shop, *prompts: str, **fields: Any) -> str:
    """The id of a new flow of the shop's."""
    answer = shop.call("POST", "/prompt-flows", {"name": "flow", "promptIds": list(prompts), **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["flowId"])


def flowing(shop: Shop, flow: str | None, **fields: Any) -> dict[str, Any]:
    return shop.body(prompts=None, promptFlow=flow, **fields)


def test_a_job_of_a_flow_gets_the_prompts_that_the_flow_has_then(shop: Shop) -> None:
    """The prompts of now stay the job's when the flow changes; the job says which flow it was."""
    second = str(shop.api.new_prompt(shop.headers, name="second")["_id"])
    flow = flow_of(shop, shop.prompt, second)
    first = shop.call("POST", "/jobs", flowing(shop, flow)).json()
    assert shop.call("PATCH", f"/prompt-flows/{flow}", {"promptIds": [second]}).status_code == 200
    [later] = shop.call("POST", "/jobs/batch", {"jobs": [flowing(shop, flow)]}).json()
    assert (first["promptFlow"], first["workingPrompts"]) == (flow, [shop.prompt, second])
    assert (later["promptFlow"], later["prompts"]) == (flow, [second])
    assert shop.get(first["jobId"]) == first
    assert shop.post()["promptFlow"] is None


def test_a_repeated_request_shows_the_prompts_that_were_stored(local: Shop) -> None:
    """With an idempotency key the answer is the first one's, though the flow has changed or is gone since."""
    second = str(local.api.new_prompt(local.headers, name="second")["_id"])
    flow = flow_of(local, local.prompt)
    first = local.call("POST", "/jobs", flowing(local, flow), headers=KEY).json()
    assert local.call("PATCH", f"/prompt-flows/{flow}", {"promptIds": [second]}).status_code == 200
    again = local.call("POST", "/jobs", flowing(local, flow), headers=KEY)
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (first, "true")
    assert local.call("DELETE", f"/prompt-flows/{flow}").status_code == 204
    assert local.call("POST", "/jobs", flowing(local, flow), headers=KEY).json() == first


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch", "/complete"])
def test_a_flow_that_cannot_be_named_is_refused(local: Shop, path: str) -> None:
    """400 alike for an unknown flow and another client's, for an empty one, and for one with an unknown prompt."""
    other = open_shop(local.api)

    def refused(flow: str) -> str:
        body = flowing(local, flow)
        answer = local.call("POST", path, {"jobs": [body]} if path.endswith("batch") else body)
        assert answer.status_code == 400, answer.text
        return str(answer.json()["detail"])

    assert f"prompt flow not found: {'0' * 24}" in refused("0" * 24)
    theirs = flow_of(other, other.prompt)
    assert f"prompt flow not found: {theirs}" in refused(theirs)
    assert "has no prompts" in refused(flow_of(local))
    assert f"prompt not found: {'f' * 24}" in refused(flow_of(local, "f" * 24))


def test_prompts_and_a_flow_exclude_each_other(local: Shop) -> None:
    """Both are 422, and so is neither; each says what is wrong."""
    flow = flow_of(local, local.prompt)
    both = local.call("POST", "/jobs", local.body(promptFlow=flow))
    assert both.status_code == 422
    assert "promptFlow: stands in place of prompts" in both.text
    neither = local.call("POST", "/jobs", flowing(local, None))
    assert neither.status_code == 422
    assert "or promptFlow are needed" in neither.text
