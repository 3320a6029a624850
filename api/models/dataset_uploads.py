"""Datasets from the text of a file: JSON Lines and CSV, with problems told by line."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson
from pydantic import ValidationError

from api.models.datasets import DatasetItemIn
from engine.errors import InvalidField
from engine.records.datasets import LARGEST_ITEM, MOST_ITEMS, DatasetItem

MOST_TOLD = 5
"""Of the lines that are wrong."""

_OWN = ("id", "input", "expected", "tags", "weight")
_DELIMITERS = ",;\t"


class Form(StrEnum):
    """How a body is written."""

    JSON = "json"
    LINES = "lines"
    CSV = "csv"
    MULTIPART = "multipart"


_FORMS = {
    "text/csv": Form.CSV,
    "application/csv": Form.CSV,
    "application/x-ndjson": Form.LINES,
    "application/ndjson": Form.LINES,
    "application/jsonl": Form.LINES,
    "application/x-jsonlines": Form.LINES,
    "application/jsonlines": Form.LINES,
    "multipart/form-data": Form.MULTIPART,
}


def form_of(content_type: str | None) -> Form:
    """By the content type; what says nothing else is JSON."""
    return _FORMS.get((content_type or "").split(";")[0].strip().lower(), Form.JSON)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file's text. Implements api.services.datasets.DatasetDraft."""

    name: str
    form: Form
    body: bytes

    @property
    def drafted(self) -> Sequence[DatasetItem]:
        """Raises InvalidField that names the lines which are wrong, the first MOST_TOLD of them."""
        if self.form is Form.MULTIPART:
            reason = "send the file itself as the body, with content type text/csv or application/x-ndjson"
            raise InvalidField("body", reason)
        read = _csv_rows if self.form is Form.CSV else _json_lines
        return _items(read(_text(self.body)))


_Row = tuple[int, Callable[[], Mapping[str, Any]]]
"""A line's number, and what reads it: raises ValueError."""


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise InvalidField("body", f"line {line}: is not UTF-8") from error


def _items(rows: Iterator[_Row]) -> list[DatasetItem]:
    items: list[DatasetItem] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    for line, read in rows:
        try:
            items.append(_item(read, line, lines))
        except ValueError as error:
            reason = _said(error) if isinstance(error, ValidationError) else str(error)
            problems.append(f"line {line}: {reason}")
        if len(problems) == MOST_TOLD:
            break
        if len(lines) > MOST_ITEMS:
            raise InvalidField("body", f"line {line}: more than {MOST_ITEMS} items")
    if problems:
        raise InvalidField("body", "; ".join(problems))
    return items


def _item(read: Callable[[], Mapping[str, Any]], line: int, lines: dict[str, int]) -> DatasetItem:
    """`lines` has the line of every id so far. Raises ValueError, of which pydantic's error is one."""
    item = DatasetItemIn.model_validate(read()).to_item(len(lines) + 1)
    if lines.setdefault(item.id, line) != line:
        raise ValueError(f"id: line {lines[item.id]} has {item.id} too")
    return item


def _said(error: ValidationError) -> str:
    [first, *_] = error.errors(include_url=False, include_input=False)
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _json_lines(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, lambda line=line: _json_object(line)  # type: ignore[misc]


def _json_object(line: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(value, dict):
        raise ValueError("should be a JSON object")  # noqa: TRY004 - told with the line like every other problem
    return value


def _csv_rows(text: str) -> Iterator[_Row]:
    """Columns named id, input, expected, tags and weight are what they say; all others are fields of the input."""
    csv.field_size_limit(LARGEST_ITEM)
    first = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InvalidField("body", f"line {line}: is not CSV: {error}") from error
        if header is None:
            header = _header(cells)
        elif any(cells):
            yield line, lambda names=header, cells=cells: _row(names, cells)  # type: ignore[misc]


def _header(cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if "" in names or len(set(names)) < len(names):
        raise InvalidField("body", "line 1: every column needs a name of its own")
    answers = next((name for name in names if name != "expected" and name.lower() == "expected"), None)
    if answers is not None:
        reason = f"line 1: column {answers} would be a field of the input, and so tell the answer: write it expected"
        raise InvalidField("body", reason)
    if not set(names) - {"id", "expected", "tags", "weight"}:
        raise InvalidField("body", "line 1: no column is named input, and none holds a field of it")
    return names


def _row(names: Sequence[str], cells: Sequence[str]) -> Mapping[str, Any]:
    if len(cells) != len(names):
        raise ValueError(f"has {len(cells)} cells, the header has {len(names)}")
    row = dict(zip(names, cells, strict=True))
    fields = {name: _value(cell) for name, cell in row.items() if name not in _OWN}
    if "input" in row:
        given = _value(row["input"])
        fields = {"input": given, **fields} if fields else given
    item: dict[str, Any] = {"input": fields}
    if row.get("id"):
        item["id"] = row["id"]
    if row.get("expected"):
        item["expected"] = _value(row["expected"])
    if row.get("tags"):
        item["tags"] = [tag.strip() for tag in row["tags"].replace(";", ",").split(",") if tag.strip()]
    if row.get("weight"):
        item["weight"] = row["weight"]
    return item


def _value(cell: str) -> Any:
    """A cell is text, unless it is a JSON object or list."""
    if cell[:1] not in ("{", "["):
        return cell
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell
