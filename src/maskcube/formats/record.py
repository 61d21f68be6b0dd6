"""What a store says of one mask beside its pixels, in Python's own types."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from maskcube.metadata import is_utf8

__all__ = ["BOX", "Record", "columns_of", "records_of"]

BOX = ("box_x0", "box_y0", "box_x1", "box_y1")
"""Edges of a box, as the coordinates of a store are named."""

_MOST_INTEGER = 2**63
_NUMERAL = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)

Box = tuple[float | None, float | None, float | None, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One mask's labels and properties; what is not known, or NaN in a store, is None."""

    image: str
    noun: str
    instance: int | None = None
    """Which one of that noun in that image."""
    score: float | None = None
    box: Box = (None, None, None, None)
    """Left, upper, right and lower edge in pixels."""
    localized: int = 1
    mask_file: str = ""
    mask_row: int | None = None
    """Row of the HDF5, by which masks are put in order again."""

    def properties(self) -> dict[str, int | float | str]:
        """Return all but image and noun as plain JSON scalars, without what is not known."""
        found: dict[str, int | float | str | None] = {
            "instance": self.instance,
            "score": self.score,
            **dict(zip(BOX, self.box, strict=True)),
            "localized": self.localized,
            "mask_file": self.mask_file or None,
            "mask_row": self.mask_row,
        }
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def of(cls, image: object, noun: object, properties: Mapping[str, Any]) -> Self:
        """Return the record that `properties` tells, among whatever else it tells.

        Raises
        ------
        ValueError
            When something is not what it must be; the message is half a sentence.
        """
        return cls(
            image=text_of("image", image),
            noun=text_of("noun", noun),
            instance=integer_of("instance", properties.get("instance")),
            score=number_of("score", properties.get("score")),
            box=_box(properties),
            localized=_flag(properties.get("localized")),
            mask_file=text_of("mask_file", properties.get("mask_file") or "", empty=True),
            mask_row=integer_of("mask_row", properties.get("mask_row")),
        )


def text_of(name: str, value: object, *, empty: bool = False) -> str:
    """Return a text as it is; raises `ValueError` when it is none that a store can hold."""
    is_text = isinstance(value, str) and (value or empty) and "\0" not in value
    if not is_text or not is_utf8(str(value)):
        raise ValueError(f"{name} must be a text, found {_shown(value)}")
    return str(value)


def integer_of(name: str, value: object) -> int | None:
    """Return an integer, also from text or a whole float; None when there is none."""
    if value is None or value == "":
        return None
    number = _integer(value)
    if number is None or not -_MOST_INTEGER <= number < _MOST_INTEGER:
        raise ValueError(f"{name} must be an integer of 64 bits, found {_shown(value)}")
    return number


def _integer(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if _NUMERAL.fullmatch(value) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if type(value) is int else None


def number_of(name: str, value: object) -> float | None:
    """Return a finite number; None when there is none, or NaN."""
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.inf  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise ValueError(f"{name} must be a finite number, found {_shown(value)}")
    return None if math.isnan(number) else number


def _box(properties: Mapping[str, Any]) -> Box:
    x0, y0, x1, y1 = (number_of(name, properties.get(name)) for name in BOX)
    return x0, y0, x1, y1


def _flag(value: object) -> int:
    if value is None:
        return 1
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError(f"localized must be 0 or 1, found {_shown(value)}")
    return int(value)


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."  # noqa: PLR2004 - a line


def records_of(columns: Mapping[str, NDArray[Any]]) -> Iterator[Record]:
    """Yield the record of each mask, from the coordinates of a store, (mask,) each."""
    lists = {name: values.tolist() for name, values in columns.items()}
    boxes = zip(*(map(_known, lists[name]) for name in BOX), strict=True)
    rest = ("image", "noun", "instance", "score", "localized", "mask_file", "mask_row")
    for box, *values in zip(boxes, *(lists[name] for name in rest), strict=True):
        image, noun, instance, score, localized, mask_file, mask_row = values
        yield Record(
            image=str(image),
            noun=str(noun),
            instance=instance,
            score=_known(score),
            box=box,
            localized=localized,
            mask_file=str(mask_file),
            mask_row=mask_row,
        )


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def columns_of(records: Sequence[Record]) -> dict[str, NDArray[Any]]:
    """Return records as the coordinates of a store, (mask,) each; ``mask_row`` counts from 0."""
    columns: dict[str, NDArray[Any]] = {
        name: np.array([getattr(record, name) for record in records], object)
        for name in ("image", "noun", "mask_file")
    }
    columns["instance"] = np.array([record.instance for record in records], np.int64)
    columns["localized"] = np.array([record.localized for record in records], np.int8)
    columns["score"] = np.array([record.score for record in records], np.float64)
    boxes = np.array([record.box for record in records], np.float64).reshape(-1, len(BOX))
    columns |= dict(zip(BOX, boxes.T, strict=True))
    columns["mask_row"] = np.arange(len(records), dtype=np.int64)
    return columns
