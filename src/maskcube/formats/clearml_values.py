"""Values of pixels in ClearML's masks, and the labels that they have, as they are read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.formats.clearml_palette import EVERY_MASK
from maskcube.formats.png import colours, decode, palette_of
from maskcube.formats.record import integer_of, text_of

__all__ = ["Labelled", "Picture", "Value", "greys_of", "labels_of", "value_of", "version_labels"]

_CHANNELS = 3
_MOST = 255
_GREY = 0x010101
"""What a grey is multiplied with to be a colour."""

_BIT_DEPTH = 24
"""Where a PNG says it, and behind it whether it has colours."""


class Value(NamedTuple):
    """A value that pixels are compared with."""

    number: int
    """R + 256 G + 65536 B."""
    bits: int
    """Those of it that count: a negative part of a value stands for any."""

    def among(self, numbers: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Return which of these numbers have this value."""
        found: NDArray[np.bool_] = (numbers & np.uint32(self.bits)) == np.uint32(self.number)
        return found

    def __str__(self) -> str:
        parts = [
            self.number >> shift & _MOST if self.bits >> shift & _MOST else -1
            for shift in (0, 8, 16)
        ]
        return str(tuple(parts))


class Labelled(NamedTuple):
    """A value and what it stands for."""

    value: Value
    labels: tuple[str, ...]


def value_of(given: object) -> Value:
    """Return a value as a frame or a version has it: red, green and blue, or a grey.

    Raises
    ------
    ValueError
        When it is none; the message is half a sentence.

    Examples
    --------
    >>> print(value_of([-1, 1, 255]), value_of("7"))
    (-1, 1, 255) (7, 7, 7)
    """
    parts = list(given) if isinstance(given, list | tuple) else [given]
    if len(parts) == 1:
        parts *= _CHANNELS
    if len(parts) != _CHANNELS:
        raise ValueError(f"value must have red, green and blue, found {_short(given)}")
    numbers = [integer_of("value", part) for part in parts]
    number = bits = 0
    for shift, part in zip((0, 8, 16), numbers, strict=True):
        if part is None or part > _MOST:
            raise ValueError(f"value must have numbers up to {_MOST}, found {_short(given)}")
        if part >= 0:
            number |= part << shift
            bits |= _MOST << shift
    if not bits:
        raise ValueError(f"value must have a number that is not negative, found {_short(given)}")
    return Value(number, bits)


def labels_of(given: object) -> tuple[str, ...]:
    """Return the labels of a region or a value, given as a list or alone.

    Raises
    ------
    ValueError
        When these are no labels; the message is half a sentence.
    """
    if given is None:
        return ()
    every = given if isinstance(given, list | tuple) else [given]
    return tuple(dict.fromkeys(text_of("label", label) for label in every))


def version_labels(given: object) -> dict[str, tuple[Labelled, ...]]:
    """Return the labels of values in a dataset version, by the id of a mask or `EVERY_MASK`.

    Parameters
    ----------
    given : object
        The metadata of a version, ``{"mask_labels": ...}``, or what is in it: a list of
        ``{"value": [r, g, b], "labels": [...]}``, or such lists by key; the mapping
        ``{(r, g, b): [label, ...]}`` of ``set_masks_labels``; or a legend, ``{label: [r, g, b]}``.

    Raises
    ------
    ValueError
        When it is none of these; the message is half a sentence.
    """
    if isinstance(given, Mapping) and isinstance(given.get("mask_labels"), Mapping | list):
        inner = given["mask_labels"]
        if isinstance(inner, Mapping) or not inner or isinstance(inner[0], Mapping):
            given = inner
    if isinstance(given, list):
        return {EVERY_MASK: tuple(map(_labelled, given))}
    if not isinstance(given, Mapping):
        raise ValueError(f"mask_labels must be a list or a mapping, found {_short(given)}")  # noqa: TRY004 - one kind of fault
    if all(isinstance(key, tuple) for key in given):
        pairs = [Labelled(value_of(key), labels_of(labels)) for key, labels in given.items()]
        return {EVERY_MASK: tuple(pairs)}
    if all(_is_listing(entry) for entry in given.values()):
        return {str(key): tuple(map(_labelled, entries)) for key, entries in given.items()}
    return {
        EVERY_MASK: tuple(
            Labelled(value_of(value), labels_of(label)) for label, value in given.items()
        )
    }


def _is_listing(entry: object) -> bool:
    return isinstance(entry, list) and all(isinstance(each, Mapping) for each in entry)


def _labelled(entry: object) -> Labelled:
    if not isinstance(entry, Mapping) or "value" not in entry:
        raise ValueError(f"mask_labels must have value and labels, found {_short(entry)}")
    return Labelled(value_of(entry["value"]), labels_of(entry.get("labels", entry.get("label"))))


class Picture(NamedTuple):
    """The pixels of a mask."""

    pixels: NDArray[Any]
    """(y, x): uint8 of greys, or uint32 of R + 256 G + 65536 B."""

    @classmethod
    def of(cls, data: bytes, wanted: Collection[Value]) -> Picture:
        """Return the picture in a PNG.

        A palette gives colours, as to everybody who shows it. Where none of the values that are
        wanted is among them, its indices are meant; and where a picture of black and white has
        none of them, 0 and 1.

        Raises
        ------
        ValueError
            When it cannot be read; the message is half a sentence.
        """
        plain = decode(data)
        if plain.dtype == np.uint16:
            if plain.max(initial=0) > _MOST:
                raise ValueError(f"has 16 bits a pixel, and values above {_MOST}")
            plain = plain.astype(np.uint8)
        shown = _shown(data, plain)
        picture = cls(_numbers(shown))
        if shown is plain or picture.has_any(wanted):
            return picture
        indices = cls(plain)
        return indices if indices.has_any(wanted) else picture

    def has_any(self, wanted: Collection[Value]) -> bool:
        """Whether a pixel has one of these values, other than 0."""
        found = self.values()
        return any((each.among(found) & (found > 0)).any() for each in wanted if each.number)

    def values(self) -> NDArray[np.uint32]:
        """Return the distinct values, ascending, (value,) uint32 of R + 256 G + 65536 B."""
        if self.pixels.dtype == np.uint8:
            counts = np.bincount(self.pixels.ravel(), minlength=_MOST + 1)
            return np.flatnonzero(counts).astype(np.uint32) * np.uint32(_GREY)
        return np.unique(self.pixels)

    def where(self, values: Iterable[Value]) -> NDArray[np.uint8]:
        """Return the mask of the pixels that have one of these values, (y, x) uint8, 0 and 1."""
        is_grey = self.pixels.dtype == np.uint8
        numbers = np.arange(_MOST + 1, dtype=np.uint32) * np.uint32(_GREY)
        every = numbers if is_grey else self.pixels
        chosen = np.zeros(every.shape, np.bool_)
        for value in values:
            chosen |= value.among(every)
        if not is_grey:
            return chosen.view(np.uint8)
        if np.count_nonzero(chosen) == 1:
            # Nearly always, and forty times as fast.
            there: NDArray[np.bool_] = np.equal(self.pixels, np.uint8(np.argmax(chosen)))
        else:
            there = np.take(chosen, self.pixels)
        return there.view(np.uint8)


def greys_of(data: bytes) -> NDArray[np.uint8]:
    """Return the greys of a PNG as it is shown, (y, x) uint8.

    Raises
    ------
    ValueError
        When it has colours, or cannot be read; the message is half a sentence.
    """
    plain = decode(data)
    if plain.dtype == np.uint16:
        return (plain >> 8).astype(np.uint8)
    pixels = _numbers(_shown(data, plain))
    if pixels.dtype == np.uint8:
        return pixels
    grey = (pixels & np.uint32(_MOST)).astype(np.uint8)
    if not np.array_equal(grey.astype(np.uint32) * np.uint32(_GREY), pixels):
        raise ValueError("has colours where an opacity was expected")
    return grey


def _numbers(shown: NDArray[np.uint8]) -> NDArray[Any]:
    return shown if shown.ndim == 2 else colours(shown)  # noqa: PLR2004 - y and x


def _shown(data: bytes, plain: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture's pixels as they are shown, if they are not `plain` already."""
    palette = palette_of(data)
    if palette is not None:
        return palette[plain]
    if data[_BIT_DEPTH : _BIT_DEPTH + 2] == b"\1\0":
        return plain * np.uint8(_MOST)
    return plain


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."  # noqa: PLR2004 - a line
