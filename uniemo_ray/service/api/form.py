"""Parts of a multipart form. A part needs no file name."""

from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from uniemo_ray.service.api.problems import ProblemError


class Part(NamedTuple):
    """One part of a form."""

    name: str
    """Name of the field; empty if there is none."""
    media_type: str
    """Media type that the sender declared; empty for none."""
    data: bytes


class _Reader:
    """Collects the events of the parser."""

    def __init__(self, max_parts: int) -> None:
        self.max_parts = max_parts
        self.parts: list[Part] = []
        self.is_complete = False
        self.headers: dict[bytes, bytes] = {}
        self.field, self.value, self.data = b"", b"", bytearray()

    def on_part_begin(self) -> None:
        if len(self.parts) >= self.max_parts:
            raise ProblemError(422, f"the form has more than {self.max_parts} files", field="image")
        self.headers, self.data = {}, bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        self.headers[self.field.lower()] = self.value
        self.field, self.value = b"", b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.data += data[start:end]

    def on_part_end(self) -> None:
        _, options = parse_options_header(self.headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        media_type = self.headers.get(b"content-type", b"").decode("latin-1")
        self.parts.append(Part(name, media_type, bytes(self.data)))

    def on_end(self) -> None:
        self.is_complete = True


def read_form(body: bytes, content_type: str, max_parts: int) -> list[Part]:
    """Read the parts of a form, in order.

    Raises:
        ProblemError: 400 if the body is not a form, 422 if it has more than `max_parts` parts.
    """
    _, options = parse_options_header(content_type)
    reader = _Reader(max_parts)
    try:
        parser = MultipartParser(
            options.get(b"boundary", b""),
            {
                "on_part_begin": reader.on_part_begin,
                "on_header_field": reader.on_header_field,
                "on_header_value": reader.on_header_value,
                "on_header_end": reader.on_header_end,
                "on_part_data": reader.on_part_data,
                "on_part_end": reader.on_part_end,
                "on_end": reader.on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise ProblemError(400, "the body is not a multipart form") from None
    if not reader.is_complete:
        raise ProblemError(400, "the form ends before its last boundary")
    return reader.parts
