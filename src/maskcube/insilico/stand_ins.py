"""What stands for the names in a pickle: nothing of them is ever imported or called.

Numpy's arrays, types and scalars are built here, from bytes that are counted before; what else
BERG's files have, nibabel's headers and images, becomes a record of what was said of it.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["GLOBALS", "Blob", "Global", "PickleFault", "Record", "Unbuilt", "dtype_of", "filled"]

_MOST_DIMS = 32
_MOST_FIELDS = 256
_MOST_ITEM_BYTES = 2**16
_MOST_BYTES = 2**62
_PLAIN = re.compile(r"([biufcSUV])([1-9][0-9]{0,4})|O8?")
_WIDTHS = {"b": "1", "i": "1248", "u": "1248", "f": "248", "c": ("8", "16")}
"""Bytes of the types whose size means something on every machine."""
_LAST_CHARACTER = 0x10FFFF
_DTYPE_STATE = 8
_ARRAY_STATE = 5


class PickleFault(Exception):
    """What is wrong with a pickle, before it is known which file it is."""


class Blob(NamedTuple):
    """A long string of bytes, left where it is in the file."""

    offset: int
    size: int


@dataclass(eq=False)
class Record:
    """An object of a known class, which is not made: what the pickle says of it."""

    name: str
    """Its class, such as ``nibabel.nifti1.Nifti1Header``."""
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    """What it holds, if it is a list."""


@dataclass(eq=False)
class Unbuilt:
    """An array or a type that is named, and not yet described."""

    build: Callable[[Any, mmap.mmap], Any]
    """From its state to what it is."""
    places: list[int] = field(default_factory=list)
    """Where the pickle remembers it."""


class Global(NamedTuple):
    """A name that BERG's files may have, and what stands for it."""

    name: str
    made: Callable[[str, tuple[Any, ...], mmap.mmap], Any]
    """From its name, its arguments and the file to what a call of it would have made."""


def dtype_of(text: object, order: str = "=") -> np.dtype[Any]:
    """Return a numpy type by its name, of those that are fixed numbers of plain bytes; or object.

    Raises
    ------
    PickleFault
        When it is another one.
    """
    found = _PLAIN.fullmatch(text) if isinstance(text, str) else None
    if found is None or not isinstance(text, str):
        raise PickleFault(f"the numpy type {_short(text)}")
    kind, width = found.groups()
    if kind is None:
        return np.dtype(object)
    known = _WIDTHS.get(kind)
    item_bytes = int(width) * (4 if kind == "U" else 1)
    if (known is not None and width not in known) or item_bytes > _MOST_ITEM_BYTES:
        raise PickleFault(f"the numpy type {_short(text)}")
    native: Any = "=" if order == "|" else order
    return np.dtype(text).newbyteorder(native)


def filled(
    shape: object, dtype: np.dtype[Any], order: str, data: object, file: mmap.mmap
) -> NDArray[Any]:
    """Return an array over its bytes, which are all there; read-only.

    Raises
    ------
    PickleFault
        When the bytes are not as many as shape and type say, or are no values of the type.
    """
    sizes = _sizes(shape)
    if dtype.hasobject:
        return _of_objects(sizes, order, data)
    if not isinstance(data, bytes | Blob):
        raise PickleFault(f"an array of {_short(data)} in the place of bytes")
    size = data.size if isinstance(data, Blob) else len(data)
    if math.prod(sizes) * dtype.itemsize != size:
        raise PickleFault(f"an array of shape {_short(sizes)} and type {dtype} in {size:,} bytes")
    if not isinstance(data, Blob):
        array = np.ndarray(sizes, dtype, data, order=_order(order))
    else:
        array = np.ndarray(sizes, dtype, file, data.offset, order=_order(order))
    if dtype.kind == "U":
        codes = np.frombuffer(data if isinstance(data, bytes) else array.tobytes(), np.uint32)
        codes = codes if dtype.isnative else codes.byteswap()
        if codes.max(initial=0) > _LAST_CHARACTER:
            raise PickleFault("texts that are none")
    return array


def _sizes(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMS:
        raise PickleFault(f"an array of shape {_short(shape)}")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise PickleFault(f"an array of shape {_short(shape)}")
    if math.prod(max(size, 1) for size in shape) * _MOST_ITEM_BYTES > _MOST_BYTES:
        raise PickleFault(f"an array of shape {_short(shape)}")
    return shape


def _order(order: str) -> Any:  # noqa: ANN401 - a literal of two
    if order not in ("C", "F"):
        raise PickleFault(f"an array in the order {_short(order)}")
    return order


def _of_objects(sizes: tuple[int, ...], order: str, items: object) -> NDArray[Any]:
    if not isinstance(items, list) or len(items) != math.prod(sizes):
        raise PickleFault(f"an array of objects of shape {_short(sizes)}, and not as many objects")
    array = np.empty(len(items), object)
    for place, item in enumerate(items):
        array[place] = item
    array = array.reshape(sizes, order=_order(order))
    array.flags.writeable = False
    return array


def _reconstructed(_: str, arguments: tuple[Any, ...], __: mmap.mmap) -> Unbuilt:
    is_array = len(arguments) == 3 and isinstance(arguments[0], Global)  # noqa: PLR2004
    if not is_array or arguments[0].name != "numpy.ndarray":
        raise PickleFault(f"an array made of {_short(arguments)}")
    return Unbuilt(_array)


def _array(state: object, file: mmap.mmap) -> NDArray[Any]:
    if not isinstance(state, tuple) or len(state) != _ARRAY_STATE:
        raise PickleFault(f"an array with the state {_short(state)}")
    _, shape, dtype, is_fortran, data = state
    if not isinstance(dtype, np.dtype) or not isinstance(is_fortran, bool | int):
        raise PickleFault(f"an array of the type {_short(dtype)}")
    return filled(shape, dtype, "F" if is_fortran else "C", data, file)


def _from_buffer(_: str, arguments: tuple[Any, ...], file: mmap.mmap) -> NDArray[Any]:
    if len(arguments) not in (4, 5) or not isinstance(arguments[1], np.dtype):
        raise PickleFault(f"an array made of {_short(arguments)}")
    data, dtype, shape, order, *axes = arguments
    if order != "K":
        return filled(shape, dtype, order, data, file)
    if not axes or not isinstance(axes[0], tuple):
        raise PickleFault("an array in the order 'K' of no axes")
    if not all(type(axis) is int for axis in axes[0]) or sorted(axes[0]) != [*range(len(shape))]:
        raise PickleFault(f"an array in the order 'K' of axes {_short(axes[0])}")
    return filled(shape, dtype, "C", data, file).transpose(axes[0])


def _scalar(_: str, arguments: tuple[Any, ...], file: mmap.mmap) -> Any:  # noqa: ANN401 - any
    if len(arguments) != 2 or not isinstance(arguments[0], np.dtype):  # noqa: PLR2004
        raise PickleFault(f"a scalar made of {_short(arguments)}")
    if arguments[0].hasobject:
        raise PickleFault("a scalar that is an object")
    return filled((), arguments[0], "C", arguments[1], file)[()]


def _dtype(_: str, arguments: tuple[Any, ...], __: mmap.mmap) -> Unbuilt:
    name: Any = arguments[0] if len(arguments) == 3 else arguments  # noqa: PLR2004
    dtype_of(name)
    return Unbuilt(lambda state, _: _described(name, state))


def _described(name: str, state: object) -> np.dtype[Any]:
    """Return a numpy type by its name and what its ``__reduce__`` says of it."""
    if not isinstance(state, tuple) or len(state) != _DTYPE_STATE or state[0] != 3:  # noqa: PLR2004
        raise PickleFault(f"the numpy type {name!r} with the state {_short(state)}")
    _, order, sub, names, fields, item_bytes, _, _ = state
    if not isinstance(order, str) or order not in ("<", ">", "|", "="):
        raise PickleFault(f"the numpy type {name!r} in the byte order {_short(order)}")
    dtype = dtype_of(name, order)
    if names is not None:
        dtype = _structured(names, fields, dtype.itemsize)
    elif sub is not None:
        dtype = _sub_array(sub, dtype.itemsize)
    if item_bytes not in (-1, dtype.itemsize):
        raise PickleFault(f"the numpy type {name!r} of {_short(item_bytes)} bytes")
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
            raise PickleFault(f"a structured numpy type whose field {_short(name)} is no field")
        dtype, offset = found
        if not isinstance(dtype, np.dtype) or dtype.hasobject or type(offset) is not int:
            raise PickleFault(f"a structured numpy type whose field {_short(name)} is no field")
        if not 0 <= offset <= item_bytes - dtype.itemsize:
            raise PickleFault(f"a structured numpy type whose field {_short(name)} is outside")
        formats.append(dtype)
        offsets.append(offset)
    parts = {"names": names, "formats": formats, "offsets": offsets, "itemsize": item_bytes}
    return np.dtype(parts)  # type: ignore[call-overload,no-any-return]


def _sub_array(sub: object, item_bytes: int) -> np.dtype[Any]:
    if not isinstance(sub, tuple) or len(sub) != 2 or not isinstance(sub[0], np.dtype):  # noqa: PLR2004
        raise PickleFault(f"a numpy type of {_short(sub)}")
    base, shape = sub
    sizes = _sizes(shape if isinstance(shape, tuple) else (shape,))
    if base.hasobject or math.prod(sizes) * base.itemsize != item_bytes:
        raise PickleFault(f"a numpy type of shape {_short(sizes)} in {item_bytes} bytes")
    return np.dtype((base, sizes))


def _encoded(name: str, arguments: tuple[Any, ...], _: mmap.mmap) -> bytes:
    """Return bytes as protocol 2 has them: the characters of a text."""
    text, *encoding = arguments or (None,)
    if not isinstance(text, str) or encoding != ["latin1"]:
        raise PickleFault(f"{name} of {_short(arguments)}")
    return text.encode("latin1")


def _empty(name: str, arguments: tuple[Any, ...], _: mmap.mmap) -> Any:  # noqa: ANN401 - as named
    if arguments:
        raise PickleFault(f"{name} of {_short(arguments)}")
    return b"" if name.endswith("bytes") else {}


def _record(name: str, arguments: tuple[Any, ...], _: mmap.mmap) -> Record:
    return Record(name, arguments)


def _rebuilt(name: str, arguments: tuple[Any, ...], _: mmap.mmap) -> Record:
    """Return a record for what protocols below 2 make by ``copyreg._reconstructor``."""
    known = [part for part in arguments if isinstance(part, Global)]
    is_plain = len(arguments) == 3 and arguments[2] is None and len(known) == 2  # noqa: PLR2004
    if not is_plain or known[0].made is not _record:
        raise PickleFault(f"{name} of {_short(arguments)}")
    return Record(known[0].name)


def _nothing(name: str, _: tuple[Any, ...], __: mmap.mmap) -> Any:  # noqa: ANN401 - never
    raise PickleFault(f"a call of {name}")


def _table() -> dict[str, Global]:
    """Return what stands for each name; what is not here is refused."""
    kinds: list[tuple[Callable[[str, tuple[Any, ...], mmap.mmap], Any], Sequence[str]]] = [
        (_reconstructed, [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]),
        (_scalar, [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]),
        (_from_buffer, [f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")]),
        (_dtype, ["numpy.dtype"]),
        (_nothing, ["numpy.ndarray", "builtins.object", "__builtin__.object"]),
        (_encoded, ["_codecs.encode"]),
        (_empty, ["builtins.bytes", "__builtin__.bytes", "collections.OrderedDict"]),
        (_rebuilt, ["copyreg._reconstructor", "copy_reg._reconstructor"]),
        (_record, [f"nibabel.{name}" for name in _NIBABEL]),
        (_record, [f"pathlib{part}.PosixPath" for part in ("", "._local")]),
    ]
    return {name: Global(name, made) for made, names in kinds for name in names}


_NIBABEL = [
    "analyze.AnalyzeHeader",
    "arrayproxy.ArrayProxy",
    "fileholders.FileHolder",
    "nifti1.Nifti1Extension",
    "nifti1.Nifti1Extensions",
    "nifti1.Nifti1Header",
    "nifti1.Nifti1Image",
    "nifti1.Nifti1Pair",
    "nifti1.Nifti1PairHeader",
    "spatialimages.SpatialHeader",
    "spatialimages.SpatialImage",
]


def _short(value: object) -> str:
    """Return a value for a message, of which nobody knows how deep or how long it is."""
    if isinstance(value, str | bytes):
        return repr(value[:60])
    if isinstance(value, tuple) and all(type(item) is int for item in value):
        return repr(value[:8])
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if abs(value) < _MOST_BYTES else "a huge number"
    return f"a {type(value).__name__}"


GLOBALS = _table()
"""The names that a pickle may have."""
