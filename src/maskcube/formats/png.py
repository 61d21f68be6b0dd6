"""Pictures as PNG: greys and colours are written by hand, and whatever there is read by Pillow.

The format is that of the specification "Portable Network Graphics", ISO/IEC 15948.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cramjam
import numpy as np
from numpy.typing import NDArray

from maskcube.errors import missing

__all__ = ["colours", "decode", "encode", "greys", "palette_of", "size_of"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_SIZE = slice(16, 24)
"""Where a PNG has width and height."""

_LEVEL = 1
"""A mask of 1,000 x 1,000 pixels takes 0.3 ms and 7 kB; Pillow takes ten times as long."""

_MOST_PIXELS = 2**26
"""Of a picture that is read; Pillow warns of larger ones."""

_KEPT = {"1", "P", "L", "LA", "PA", "RGB", "RGBA", "I;16"}

_DAMAGES = (OSError, ValueError, SyntaxError, LookupError, TypeError, struct.error, MemoryError)
"""What Pillow raises of pictures that are damaged, here or there."""


def encode(pixels: NDArray[np.uint8], level: int = _LEVEL) -> bytes:
    """Return a PNG of greys, (y, x) uint8, or of colours, (y, x, 3) uint8."""
    height, width = pixels.shape[:2]
    # A line begins with the number of its filter. None is best for maps, and takes no time.
    lines = np.zeros((height, 1 + pixels[0].size), np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)
    colour_type = 0 if pixels.ndim == 2 else 2  # noqa: PLR2004 - y and x
    header = struct.pack(">2I5B", width, height, 8, colour_type, 0, 0, 0)
    packed = bytes(cramjam.zlib.compress(lines.data.cast("B"), level))
    pieces = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in pieces)


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def size_of(data: bytes) -> tuple[int, int]:
    """Return height and width of a PNG, without decoding it.

    Raises
    ------
    ValueError
        When it is none, or too large; the message is half a sentence.
    """
    with _opened(data) as image:
        return image.height, image.width


def decode(data: bytes) -> NDArray[Any]:
    """Return the pixels of a PNG as they are.

    Returns
    -------
    numpy.ndarray
        (y, x) uint8 of greys, of indices of a palette, which stays away, or of 0 and 1; (y, x)
        uint16; or (y, x, 3) and (y, x, 4) uint8 of colours.

    Raises
    ------
    ValueError
        When it is none, is damaged or too large; the message is half a sentence.
    MissingDependency
        When Pillow is not installed.
    """
    with _opened(data) as image:
        if image.mode not in _KEPT:
            raise ValueError(f"is a picture of mode {image.mode}, which is no map")
        try:
            image.load()
        except _DAMAGES as error:
            raise ValueError(f"is damaged: {error}") from None
        if image.mode == "1":
            bits: NDArray[Any] = np.asarray(image).astype(np.uint8)
            return bits
        return np.array(image.convert("RGBA") if image.mode in ("LA", "PA") else image)


def palette_of(data: bytes) -> NDArray[np.uint8] | None:
    """Return the colours of a PNG's palette, (256, 3) uint8; None when it has none.

    Raises
    ------
    ValueError
        When it is no PNG, or too large; the message is half a sentence.
    """
    with _opened(data) as image:
        if image.mode != "P":
            return None
        found = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        # A damaged picture may have indices beyond its palette.
        return np.concatenate([found, np.zeros((256 - len(found), 3), np.uint8)])


def greys(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return one channel, (y, x), of a picture whose colours are all greys.

    Raises
    ------
    ValueError
        When they are not; the message is half a sentence.
    """
    if pixels.ndim == 2:  # noqa: PLR2004 - y and x
        return pixels
    first = pixels[..., 0]
    if not (np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2])):
        raise ValueError("has colours where indices were expected")
    return first


def colours(pixels: NDArray[Any]) -> NDArray[np.uint32]:
    """Return R + 256 G + 65536 B of each pixel, (y, x) uint32; a grey is three times itself."""
    if pixels.ndim == 2:  # noqa: PLR2004 - y and x
        return pixels.astype(np.uint32) * np.uint32(0x010101)
    found: NDArray[np.uint32] = pixels[..., 0].astype(np.uint32)
    for channel in (1, 2):
        found |= pixels[..., channel].astype(np.uint32) << np.uint32(8 * channel)
    return found


def _opened(data: bytes) -> Any:  # noqa: ANN401 - Pillow is an optional library
    pillow = _pillow()
    # Here and not by Pillow, which only warns of what is large.
    if data.startswith(_SIGNATURE) and data[12:16] == b"IHDR" and len(data) >= _SIZE.stop:
        _check_size(*struct.unpack(">2I", data[_SIZE]))
    try:
        image = pillow.open(io.BytesIO(data), formats=("PNG",))
    except (*_DAMAGES, pillow.DecompressionBombError):
        raise ValueError("is no PNG") from None
    # There may be a second header.
    _check_size(image.width, image.height)
    return image


def _check_size(width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise ValueError(f"has {height:,} x {width:,} pixels, which are too many")


def _pillow() -> Any:  # noqa: ANN401 - Pillow is an optional library
    try:
        from PIL import Image
    except ImportError:
        raise missing("Pillow", "formats", "a mask as a picture") from None
    return Image
