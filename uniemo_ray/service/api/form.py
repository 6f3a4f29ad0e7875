"""Files of a multipart form; a part counts as it is sent, with or without a file name."""

from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from uniemo_ray.service.api.problems import ProblemError


class Part(NamedTuple):
    """One part of a form."""

    name: str
    """Of the field; empty when there is none."""
    media_type: str
    """As the sender calls it; empty for nothing."""
    data: bytes


class _Reader:
    """Collects what the parser reports."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.parts: list[Part] = []
        self.is_complete = False
        self.headers: dict[bytes, bytes] = {}
        self.field, self.value, self.data = b"", b"", bytearray()

    def on_part_begin(self) -> None:
        if len(self.parts) >= self.most:
            raise ProblemError(422, f"the form has more than {self.most} files", field="image")
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


def read_form(body: bytes, content_type: str, most: int) -> list[Part]:
    """The parts of a form, in params.

    Raises:
        ProblemError: 400 for a body that is no form, 422 for more than `most` parts.
    """
    _, options = parse_options_header(content_type)
    reader = _Reader(most)
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
        raise ProblemError(400, "the body is no form") from None
    if not reader.is_complete:
        raise ProblemError(400, "the form ends before its last boundary")
    return reader.parts
