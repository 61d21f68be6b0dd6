"""Pictures as PNG: indices, greys and colours, by Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import missing

__all__ = ["colours", "decode", "encode", "greys", "palette_of", "size_of"]

_LEVEL = 3
"""An index map of 1,000 x 1,000 pixels takes 3 ms and 8 kB; at level 6, 7 ms and 3 kB."""

_MOST_PIXELS = 2**26
"""Of a picture that is read; Pillow warns of larger ones."""

_KEPT = {"P", "L", "RGB", "RGBA", "I;16"}


def encode(pixels: NDArray[np.uint8], level: int = _LEVEL) -> bytes:
    """Return a PNG of greys, (y, x) uint8, or of colours, (y, x, 3) uint8.

    Raises
    ------
    MissingDependency
        When Pillow is not installed.
    """
    file = io.BytesIO()
    _pillow().fromarray(pixels).save(file, "PNG", compress_level=level)
    return file.getvalue()


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
        if image.mode == "1":
            bits: NDArray[Any] = np.asarray(image).astype(np.uint8)
            return bits
        if image.mode in ("LA", "PA"):
            image = image.convert("RGBA")  # noqa: PLW2901 - the same picture
        if image.mode not in _KEPT:
            raise ValueError(f"is a picture of mode {image.mode}, which is no map")
        try:
            return np.array(image)
        except (OSError, ValueError, SyntaxError, MemoryError) as error:
            raise ValueError(f"is damaged: {error}") from None


def palette_of(data: bytes) -> NDArray[np.uint8] | None:
    """Return the colours of a PNG's palette, (index, 3) uint8; None when it has none.

    Raises
    ------
    ValueError
        When it is no PNG, or too large; the message is half a sentence.
    """
    with _opened(data) as image:
        found = image.getpalette("RGB") if image.mode == "P" else None
    return None if found is None else np.array(found, np.uint8).reshape(-1, 3)


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
    try:
        image = pillow.open(io.BytesIO(data), formats=("PNG",))
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError):
        raise ValueError("is no PNG") from None
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"has {image.height:,} x {image.width:,} pixels, which are too many")
    return image


def _pillow() -> Any:  # noqa: ANN401 - Pillow is an optional library
    try:
        from PIL import Image
    except ImportError:
        raise missing("Pillow", "formats", "a mask as a picture") from None
    return Image
