"""A multipart form read as it comes, so that the file in it is never in memory as a whole (RFC 7578)."""

from collections.abc import Sequence

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from engine.errors import InvalidField

_LONGEST_FIELD = 10_000
_LONGEST_NAME = 255
_MOST_FIELDS = 50
_MOST_BESIDE = 1024 * 1024
"""Bytes of a form that are not the file's: fields, however often one is repeated, and what separates them."""


class FormStream:
    """Fed with the body's pieces. `fields` are the plain ones, by name; the content of the one field named `file` comes
    out of `feed`, whose `filename` is known by then."""

    def __init__(self, content_type: str) -> None:
        """Raises InvalidField where the body is no multipart form."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidField("Content-Type", "multipart/form-data with a boundary is needed")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.complete = False
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self._taken: list[bytes] = []
        self._beside = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finished,
            },
        )

    def feed(self, piece: bytes) -> Sequence[bytes]:
        """The parts of the file's content in `piece`. Raises InvalidField for what is no form."""
        self._taken = []
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise InvalidField("body", f"the form cannot be read: {error}") from error
        self._beside += len(piece) - sum(map(len, self._taken))
        if self._beside > _MOST_BESIDE:
            raise InvalidField("body", f"the form has more than {_MOST_BESIDE} bytes beside the file")
        return self._taken

    def _begin(self) -> None:
        self._header, self._headers, self._value = (bytearray(), bytearray()), {}, bytearray()

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if len(self._name) > _LONGEST_NAME:
            raise InvalidField("body", f"a field's name is longer than {_LONGEST_NAME} characters")
        self._is_file = self._name == "file"
        if not self._is_file:
            return
        if self.filename is not None:
            raise InvalidField("file", "only one file can be sent at a time")
        self.filename = options.get(b"filename", b"").decode("utf-8", "replace") or "file"

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._taken.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _LONGEST_FIELD:
            raise InvalidField(self._name, f"is longer than {_LONGEST_FIELD} bytes")

    def _end(self) -> None:
        if self._is_file:
            return
        if len(self.fields) >= _MOST_FIELDS:
            raise InvalidField("body", f"the form has more than {_MOST_FIELDS} fields")
        self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _finished(self) -> None:
        self.complete = True
