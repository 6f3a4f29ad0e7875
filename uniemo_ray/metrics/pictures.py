"""Pictures that are looked at a batch at a time: a whole set of them fits into no memory."""

# B batch

import io
from collections.abc import Callable
from tempfile import TemporaryFile
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemo_ray.data.images import RGB, decode_rgb, to_square

Pictures = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""Rows (B,) of a set to its pictures (B, H, W, 3); only those that a metric asks for have to be there."""


def as_saved(rgb: RGB) -> RGB:
    """A generated picture (H, W, 3) as it comes back from the JPEG file that the released code writes."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, format="JPEG")
    return np.asarray(Image.open(file).convert("RGB"))


class PictureFile:
    """Encoded pictures in a temporary file, decoded when they are asked for."""

    def __init__(self, *, size_px: int, max_pixels: int) -> None:
        """Open an empty file.

        Args:
            size_px: side to which every picture is brought.
            max_pixels: larger ones are refused.
        """
        self.size_px, self.max_pixels = size_px, max_pixels
        self._file = TemporaryFile()  # noqa: SIM115 (lives as long as this object)
        self._places: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> "PictureFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, row: int, data: bytes) -> None:
        """Keep the encoded picture of a row of the set."""
        self._places[row] = (self._file.seek(0, 2), len(data))
        self._file.write(data)

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pictures (B, size_px, size_px, 3) of B rows.

        Raises:
            KeyError: a row that was not added.
            ImageError: a picture that cannot be used.
        """
        return np.stack([self._read(int(row)) for row in rows])

    def _read(self, row: int) -> NDArray[np.uint8]:
        start, length = self._places[row]
        self._file.seek(start)
        return to_square(decode_rgb(self._file.read(length), self.max_pixels), self.size_px)
