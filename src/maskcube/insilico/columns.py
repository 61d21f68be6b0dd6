"""An array that is read by blocks of its last axis, whatever holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import InvalidOption
from maskcube.insilico.errors import InvalidParameterError
from maskcube.insilico.scratch import Scratch
from maskcube.layout import memory_bytes

__all__ = ["Columns", "spare_bytes", "whole_chunks"]

_PROCESS_BYTES = 256 * 2**20
"""What the process takes besides: the interpreter, the libraries, the chunks being decoded."""

_LEAST_BYTES = 16 * 2**20


class _Array(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, key: Any, /) -> Any: ...  # noqa: ANN401 - as numpy


class Columns:
    """An array that is read by blocks of its last axis, whatever holds it.

    Parameters
    ----------
    array : numpy.ndarray, zarr.Array, dask.array.Array, xarray.DataArray, ...
        What has a shape and a type and is read by slices; or lists of numbers.
    name : str
        What messages call it.
    dims : sequence of str
        What its axes may be, as in ``("video, feature",)``: one for each number of axes.

    Raises
    ------
    InvalidParameterError
        When it is no array of numbers, or has other axes.

    Examples
    --------
    >>> columns = Columns(np.arange(6).reshape(2, 3), "features", ("video, feature",))
    >>> [(block.start, values.tolist()) for block, values in columns.blocks(2)]
    [(0, [[0, 1], [3, 4]]), (2, [[2], [5]])]
    """

    def __init__(self, array: object, name: str, dims: tuple[str, ...]) -> None:
        self.name = name
        self._array = _array_of(array, name)
        self.shape = tuple(map(int, self._array.shape))
        self.dtype = self._array.dtype
        wanted = {len(text.split(", ")) for text in dims}
        if self.dtype.kind not in "fiu" or len(self.shape) not in wanted:
            kinds = " or ".join(f"({text})" for text in dims)
            raise InvalidParameterError(
                f"{name} is an array {self.shape} of {self.dtype}; give numbers {kinds}"
            )

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def width(self) -> int:
        """Length of the last axis."""
        return self.shape[-1]

    @property
    def column_bytes(self) -> int:
        """Bytes of one position along the last axis."""
        return int(np.prod(self.shape[:-1])) * self.dtype.itemsize

    @property
    def chunk_width(self) -> int:
        """How many positions along the last axis are read together at the least."""
        return _chunk_of(self._array, -1)

    def read(self, columns: slice) -> NDArray[Any]:
        """Return a block in memory: all of the first axes, and a part of the last one."""
        return np.asarray(self._array[..., columns])

    def blocks(self, width: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield blocks in turn, each with where it is along the last axis.

        Parameters
        ----------
        width : int
            Most positions to read at a time; fewer are, to end where chunks end.
        """
        step = whole_chunks(width, self.chunk_width)
        for start in range(0, self.width, step):
            columns = slice(start, min(start + step, self.width))
            yield columns, self.read(columns)

    def within(self, width: int, path: Path) -> Columns:
        """Return the same, copied to a file if its chunks would be read again for each block.

        Parameters
        ----------
        width : int
            Most positions to read at a time.
        path : pathlib.Path
            The file for the copy.
        """
        if self.chunk_width <= width:
            return self
        copy = Scratch(path, self.shape, self.dtype)
        # As much as blocks take; but whole chunks. Read, put together, and where it is written.
        memory = 2 * width * self.column_bytes
        row_bytes = 3 * self.column_bytes * self.width // len(self)
        chunk = _chunk_of(self._array, 0)
        rows = max(1, memory // row_bytes // chunk) * chunk
        for start in range(0, len(self), rows):
            copy[start : start + rows] = np.asarray(self._array[start : start + rows])
        same = object.__new__(Columns)
        same.name, same.shape, same.dtype, same._array = self.name, self.shape, self.dtype, copy
        return same


def whole_chunks(width: int, chunk: int) -> int:
    """Return how many positions to read at a time: whole chunks, where one fits into a width.

    Examples
    --------
    >>> whole_chunks(70, 32), whole_chunks(20, 32)
    (64, 20)
    """
    return width // chunk * chunk or width


def spare_bytes(memory: str | int, needed: int) -> int:
    """Return what a process may take for blocks, after what it needs anyway.

    Parameters
    ----------
    memory : str or int
        What the process may take: see `maskcube.layout.memory_bytes`.
    needed : int
        Bytes that are taken whatever the size of a block.

    Raises
    ------
    InvalidOption
        When that is no number of bytes, or nothing is left.
    """
    given = memory_bytes(memory)
    spare = given - _PROCESS_BYTES - needed
    if spare < _LEAST_BYTES:
        least = -(-(_PROCESS_BYTES + needed + _LEAST_BYTES) // 2**20)
        raise InvalidOption(
            f"memory={memory!r} is too little for so many videos: give at least memory='{least}MiB'"
        )
    return spare


def _array_of(array: Any, name: str) -> _Array:  # noqa: ANN401 - whatever is given
    """Return what is read by slices, without reading it."""
    if isinstance(array, np.ma.MaskedArray):
        raise InvalidParameterError(f"{name} is a masked array: give {name}.filled(np.nan)")
    # A DataArray would slice all its coordinates with each block.
    found = getattr(array, "variable", array)
    if all(hasattr(found, part) for part in ("shape", "dtype", "__getitem__")):
        return found  # type: ignore[no-any-return]
    try:
        made = np.asarray(array)
    except (ValueError, TypeError) as error:
        raise InvalidParameterError(f"{name} is no array: {error}") from None
    return made


def _chunk_of(array: Any, axis: int) -> int:  # noqa: ANN401 - of any library
    """Return the length of a chunk of an array along an axis, 1 where there are none."""
    chunks = getattr(array, "chunks", None)
    if chunks is None:
        encoding = getattr(array, "encoding", None) or {}
        chunks = encoding.get("chunks") if isinstance(encoding, dict) else None
    if not isinstance(chunks, tuple) or not chunks:
        return 1
    found = chunks[axis]
    return max(1, *map(int, found)) if isinstance(found, tuple) else max(1, int(found))
