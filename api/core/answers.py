"""The few shapes an answer has."""

from collections.abc import Iterable
from typing import Any

import orjson
from fastapi import Response

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


class Json(Response):
    """A JSON answer from plain dicts and lists, rendered directly: instants are ISO 8601 in UTC with `Z`."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=_OPTIONS)


class Page(Response):
    """An HTML page that needs nothing from anywhere: no script runs on it and nothing is loaded."""

    media_type = "text/html"

    def __init__(self, html: str) -> None:
        policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'"
        super().__init__(html, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})


class Csv(Response):
    """A page of a table as a file named after it; `total` is how many rows there are without paging."""

    media_type = "text/csv"

    def __init__(self, text: str, *, name: str, total: int) -> None:
        disposition = f'attachment; filename="{name}.csv"'
        super().__init__(text, headers={"Content-Disposition": disposition, "X-Total-Count": str(total)})


def listed(items: Iterable[dict[str, Any]], total: int) -> Json:
    """A page of a list; `total` is how many there are without paging."""
    return Json(list(items), headers={"X-Total-Count": str(total)})


def no_content() -> Response:
    return Response(status_code=204, media_type="text/plain")
