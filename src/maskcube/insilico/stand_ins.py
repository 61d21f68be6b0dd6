"""What stands for the names in a pickle: nothing of them is ever imported or called.

Numpy's arrays, types and scalars are built here, from bytes that are counted before; what else
BERG's files have, nibabel's headers and images, becomes a record of what was said of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.insilico.pickled_types import (
    PickleFault,
    Source,
    described,
    dtype_of,
    short,
    sizes_of,
)

__all__ = ["GLOBALS", "Blob", "Global", "Record", "Unbuilt", "filled"]

_LAST_CHARACTER = 0x10FFFF
_ARRAY_STATE = 5


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

    build: Callable[[Any, Source], Any]
    """From its state to what it is."""
    places: list[int] = field(default_factory=list)
    """Where the pickle remembers it."""


class Global(NamedTuple):
    """A name that BERG's files may have, and what stands for it."""

    name: str
    made: Callable[[str, tuple[Any, ...], Source], Any]
    """From its name, its arguments and the file to what a call of it would have made."""


def filled(
    shape: object, dtype: np.dtype[Any], order: str, data: object, source: Source
) -> NDArray[Any]:
    """Return an array over its bytes, which are all there; read-only.

    Raises
    ------
    PickleFault
        When the bytes are not as many as shape and type say, or are no values of the type.
    """
    sizes = sizes_of(shape)
    if dtype.hasobject:
        return _of_objects(sizes, order, data, source)
    if not isinstance(data, bytes | Blob):
        raise PickleFault(f"an array of {short(data)} in the place of bytes")
    size = data.size if isinstance(data, Blob) else len(data)
    if math.prod(sizes) * dtype.itemsize != size:
        raise PickleFault(f"an array of shape {short(sizes)} and type {dtype} in {size:,} bytes")
    if dtype.kind == "U":
        data = _checked_texts(data, dtype, source)
    if isinstance(data, Blob):
        return np.ndarray(sizes, dtype, source.file, data.offset, order=_order(order))
    return np.ndarray(sizes, dtype, data, order=_order(order))


def _checked_texts(data: bytes | Blob, dtype: np.dtype[Any], source: Source) -> bytes:
    """Return the bytes of texts, all of whose characters are some."""
    if isinstance(data, Blob):
        source.spend(data.size)
        data = source.file[data.offset : data.offset + data.size]
    codes = np.frombuffer(data, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
    source.spend(len(data))
    if codes.max(initial=0) > _LAST_CHARACTER:
        raise PickleFault("texts that are none")
    return data


def _order(order: str) -> Any:  # noqa: ANN401 - a literal of two
    if order not in ("C", "F"):
        raise PickleFault(f"an array in the order {short(order)}")
    return order


def _of_objects(sizes: tuple[int, ...], order: str, items: object, source: Source) -> NDArray[Any]:
    if not isinstance(items, list) or len(items) != math.prod(sizes):
        raise PickleFault(f"an array of objects of shape {short(sizes)}, and not as many objects")
    source.spend(8 * len(items))
    array = np.empty(len(items), object)
    for place, item in enumerate(items):
        array[place] = item
    array = array.reshape(sizes, order=_order(order))
    array.flags.writeable = False
    return array


def _reconstructed(_: str, arguments: tuple[Any, ...], __: Source) -> Unbuilt:
    is_array = len(arguments) == 3 and isinstance(arguments[0], Global)  # noqa: PLR2004
    if not is_array or arguments[0].name not in _ARRAYS:
        raise PickleFault(f"an array made of {short(arguments)}")
    return Unbuilt(_array)


def _array(state: object, source: Source) -> NDArray[Any]:
    if not isinstance(state, tuple) or len(state) != _ARRAY_STATE:
        raise PickleFault(f"an array with the state {short(state)}")
    _, shape, dtype, is_fortran, data = state
    if not isinstance(dtype, np.dtype) or not isinstance(is_fortran, bool | int):
        raise PickleFault(f"an array of the type {short(dtype)}")
    return filled(shape, dtype, "F" if is_fortran else "C", data, source)


def _from_buffer(_: str, arguments: tuple[Any, ...], source: Source) -> NDArray[Any]:
    if len(arguments) not in (4, 5) or not isinstance(arguments[1], np.dtype):
        raise PickleFault(f"an array made of {short(arguments)}")
    data, dtype, shape, order, *axes = arguments
    if order != "K":
        return filled(shape, dtype, order, data, source)
    if not axes or not isinstance(axes[0], tuple):
        raise PickleFault("an array in the order 'K' of no axes")
    if not all(type(axis) is int for axis in axes[0]) or sorted(axes[0]) != [*range(len(shape))]:
        raise PickleFault(f"an array in the order 'K' of axes {short(axes[0])}")
    return filled(shape, dtype, "C", data, source).transpose(axes[0])


def _scalar(_: str, arguments: tuple[Any, ...], source: Source) -> Any:  # noqa: ANN401 - any
    if len(arguments) != 2 or not isinstance(arguments[0], np.dtype):  # noqa: PLR2004
        raise PickleFault(f"a scalar made of {short(arguments)}")
    if arguments[0].hasobject:
        raise PickleFault("a scalar that is an object")
    source.spend(arguments[0].itemsize)
    return filled((), arguments[0], "C", arguments[1], source)[()]


def _dtype(_: str, arguments: tuple[Any, ...], __: Source) -> Unbuilt:
    name: Any = arguments[0] if len(arguments) == 3 else arguments  # noqa: PLR2004
    dtype_of(name)
    return Unbuilt(lambda state, source: described(name, state, source))


def _encoded(name: str, arguments: tuple[Any, ...], source: Source) -> bytes:
    """Return bytes as protocol 2 has them: the characters of a text."""
    text, *encoding = arguments or (None,)
    if not isinstance(text, str) or encoding != ["latin1"]:
        raise PickleFault(f"{name} of {short(arguments)}")
    source.spend(len(text))
    return text.encode("latin1")


def _empty(name: str, arguments: tuple[Any, ...], _: Source) -> Any:  # noqa: ANN401 - as named
    if arguments:
        raise PickleFault(f"{name} of {short(arguments)}")
    return b"" if name.endswith("bytes") else {}


def _record(name: str, arguments: tuple[Any, ...], _: Source) -> Record:
    return Record(name, arguments)


def _rebuilt(name: str, arguments: tuple[Any, ...], _: Source) -> Record:
    """Return a record for what protocols below 2 make by ``copyreg._reconstructor``."""
    known = [part for part in arguments if isinstance(part, Global)]
    is_plain = len(arguments) == 3 and arguments[2] is None and len(known) == 2  # noqa: PLR2004
    if not is_plain or known[0].made is not _record:
        raise PickleFault(f"{name} of {short(arguments)}")
    return Record(known[0].name)


def _nothing(name: str, _: tuple[Any, ...], __: Source) -> Any:  # noqa: ANN401 - never
    raise PickleFault(f"a call of {name}")


def _table() -> dict[str, Global]:
    """Return what stands for each name; what is not here is refused."""
    kinds: list[tuple[Callable[[str, tuple[Any, ...], Source], Any], Sequence[str]]] = [
        (_reconstructed, [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]),
        (_scalar, [f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")]),
        (_from_buffer, [f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")]),
        (_dtype, ["numpy.dtype"]),
        (_nothing, [*_ARRAYS, "builtins.object", "__builtin__.object"]),
        (_encoded, ["_codecs.encode"]),
        (_empty, ["builtins.bytes", "__builtin__.bytes", "collections.OrderedDict"]),
        (_rebuilt, ["copyreg._reconstructor", "copy_reg._reconstructor"]),
        (_record, [f"nibabel.{name}" for name in _NIBABEL]),
        (_record, [f"pathlib{part}.PosixPath" for part in ("", "._local")]),
    ]
    return {name: Global(name, made) for made, names in kinds for name in names}


_ARRAYS = ["numpy.ndarray", "numpy.memmap", "numpy.core.memmap.memmap", "numpy._core.memmap.memmap"]
"""What an array may be of: images of nibabel's may have been mapped when they were pickled."""

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
    "nifti1.NiftiExtension",
    "spatialimages.SpatialHeader",
    "spatialimages.SpatialImage",
]


GLOBALS = _table()
"""The names that a pickle may have."""
