"""Numpy's types and shapes as a pickle describes them: each is checked before it is made."""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["PickleFault", "Source", "described", "dtype_of", "short", "sizes_of"]

_MOST_DIMS = 32
_MOST_FIELDS = 256
_MOST_ITEM_BYTES = 2**16
_MOST_BYTES = 2**62
_MOST_SMALL_BYTES = 2**25
_FIELD_BYTES = 256
_DTYPE_STATE = 8
_PLAIN = re.compile(r"([biufcSUV])([1-9][0-9]{0,4})|O8?")
_WIDTHS = {"b": "1", "i": "1248", "u": "1248", "f": "248", "c": ("8", "16")}
"""Bytes of the types whose size means something on every machine."""


class PickleFault(Exception):
    """What is wrong with a pickle, before it is known which file it is."""


class Source:
    """The file that a pickle is in, and how much may still be made of it in memory.

    Parameters
    ----------
    file : mmap.mmap
        The file.
    """

    def __init__(self, file: mmap.mmap) -> None:
        self.file = file
        self._left = _MOST_SMALL_BYTES

    def spend(self, n_bytes: int) -> None:
        """Note that memory is taken: what is remembered may be used a thousand times.

        Raises
        ------
        PickleFault
            When it is too much.
        """
        self._left -= n_bytes
        if self._left < 0:
            raise PickleFault(f"more than {_MOST_SMALL_BYTES:,} bytes of small things")


def dtype_of(text: object, order: str = "=") -> np.dtype[Any]:
    """Return a numpy type by its name, of those that are fixed numbers of plain bytes; or object.

    Raises
    ------
    PickleFault
        When it is another one.
    """
    found = _PLAIN.fullmatch(text) if isinstance(text, str) else None
    if found is None or not isinstance(text, str):
        raise PickleFault(f"the numpy type {short(text)}")
    kind, width = found.groups()
    if kind is None:
        return np.dtype(object)
    known = _WIDTHS.get(kind)
    item_bytes = int(width) * (4 if kind == "U" else 1)
    if (known is not None and width not in known) or item_bytes > _MOST_ITEM_BYTES:
        raise PickleFault(f"the numpy type {short(text)}")
    native: Any = "=" if order == "|" else order
    return np.dtype(text).newbyteorder(native)


def sizes_of(shape: object) -> tuple[int, ...]:
    """Return a shape; raises `PickleFault` where it is none, or too large to count."""
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMS:
        raise PickleFault(f"an array of shape {short(shape)}")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise PickleFault(f"an array of shape {short(shape)}")
    if math.prod(max(size, 1) for size in shape) * _MOST_ITEM_BYTES > _MOST_BYTES:
        raise PickleFault(f"an array of shape {short(shape)}")
    return shape


def described(name: str, state: object, source: Source) -> np.dtype[Any]:
    """Return a numpy type by its name and what its ``__reduce__`` says of it."""
    if not isinstance(state, tuple) or len(state) != _DTYPE_STATE or state[0] != 3:  # noqa: PLR2004
        raise PickleFault(f"the numpy type {name!r} with the state {short(state)}")
    _, order, sub, names, fields, item_bytes, _, _ = state
    if not isinstance(order, str) or order not in ("<", ">", "|", "="):
        raise PickleFault(f"the numpy type {name!r} in the byte order {short(order)}")
    dtype = dtype_of(name, order)
    if names is not None:
        source.spend(_FIELD_BYTES * len(names) if isinstance(names, tuple) else 0)
        dtype = _structured(names, fields, dtype.itemsize)
    elif sub is not None:
        dtype = _sub_array(sub, dtype.itemsize)
    if item_bytes not in (-1, dtype.itemsize):
        raise PickleFault(f"the numpy type {name!r} of {short(item_bytes)} bytes")
    return dtype


def _structured(names: object, fields: object, item_bytes: int) -> np.dtype[Any]:
    if not isinstance(names, tuple) or not isinstance(fields, Mapping):
        raise PickleFault("a structured numpy type without fields")
    if not 0 < len(names) <= _MOST_FIELDS or set(map(type, names)) != {str}:
        raise PickleFault(f"a structured numpy type of {len(names)} fields")
    formats, offsets = [], []
    for name in names:
        found = fields.get(name)
        if not isinstance(found, tuple) or len(found) != 2:  # noqa: PLR2004
            raise PickleFault(f"a structured numpy type whose field {short(name)} is no field")
        dtype, offset = found
        if not isinstance(dtype, np.dtype) or dtype.hasobject or type(offset) is not int:
            raise PickleFault(f"a structured numpy type whose field {short(name)} is no field")
        if not 0 <= offset <= item_bytes - dtype.itemsize:
            raise PickleFault(f"a structured numpy type whose field {short(name)} is outside")
        formats.append(dtype)
        offsets.append(offset)
    parts = {"names": names, "formats": formats, "offsets": offsets, "itemsize": item_bytes}
    return np.dtype(parts)  # type: ignore[call-overload,no-any-return]


def _sub_array(sub: object, item_bytes: int) -> np.dtype[Any]:
    if not isinstance(sub, tuple) or len(sub) != 2 or not isinstance(sub[0], np.dtype):  # noqa: PLR2004
        raise PickleFault(f"a numpy type of {short(sub)}")
    base, shape = sub
    sizes = sizes_of(shape if isinstance(shape, tuple) else (shape,))
    if base.hasobject or math.prod(sizes) * base.itemsize != item_bytes:
        raise PickleFault(f"a numpy type of shape {short(sizes)} in {item_bytes} bytes")
    return np.dtype((base, sizes))


def short(value: object) -> str:
    """Return a value for a message, of which nobody knows how deep or how long it is."""
    if isinstance(value, str | bytes):
        return repr(value[:60])
    if isinstance(value, tuple) and all(type(item) is int for item in value):
        is_huge = any(abs(item) >= _MOST_BYTES for item in value[:8])
        return "huge numbers" if is_huge else repr(value[:8])
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < _MOST_BYTES else "a huge number"
    return f"a {type(value).__name__}"
