"""Arrays that stay in their file, and leave no more in memory than is asked for."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.insilico.errors import CorruptWeights
from maskcube.insilico.pickles import read_npy

__all__ = ["MappedArray"]

_STEP_BYTES = 2**21
"""What is copied before its pages are given back: the system may have read ten times as much."""


class MappedArray:
    """An array in a file: a part of it is read where it is indexed, into memory of its own.

    What is returned is contiguous, aligned, and in the byte order of this machine. The pages that
    were read for it are given back at once, so that a pass over all of a large array takes the
    memory of a block.

    Parameters
    ----------
    array : numpy.ndarray
        Of `read_npy`: mapped, or small and in memory.
    path : pathlib.Path
        The file that it was read from.
    keys : tuple of str
        Where it is in what was read. With these another process finds it again.
    """

    def __init__(self, array: NDArray[Any], path: Path, keys: tuple[str, ...]) -> None:
        self._array = array
        self._place = path, keys
        base: Any = array.base
        while isinstance(base, np.ndarray):
            base = base.base
        self._file = base if isinstance(base, mmap.mmap) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type, in the byte order of this machine."""
        return self._array.dtype.newbyteorder("=")

    def __getitem__(self, key: Any, /) -> NDArray[Any]:  # noqa: ANN401 - as numpy
        """Return what is asked for, in memory: a copy that may be written to."""
        part = np.asarray(self._array[key])
        found = np.empty(part.shape, self.dtype)
        # Along the axis whose steps are the longest: each step has pages of its own.
        axis = int(np.argmax(np.abs(part.strides))) if part.ndim else 0
        lines, into = (np.moveaxis(np.atleast_1d(array), axis, 0) for array in (part, found))
        step = max(1, _STEP_BYTES // max(1, part.nbytes // max(1, len(lines))))
        for start in range(0, len(lines), step):
            into[start : start + step] = lines[start : start + step]
            self._give_back()
        return found

    def _give_back(self) -> None:
        if self._file is not None and hasattr(self._file, "madvise"):
            self._file.madvise(mmap.MADV_DONTNEED)

    def __reduce__(self) -> tuple[Any, ...]:
        return _found_again, (*self._place, self.shape, self._array.dtype)

    def __repr__(self) -> str:
        return f"<MappedArray {self.shape} {self.dtype}>"


def _found_again(
    path: Path, keys: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> MappedArray:
    """Return an array of a file that was read by another process."""
    found = read_npy(path)
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, np.ndarray) or (found.shape, found.dtype) != (shape, dtype):
        raise CorruptWeights(
            f"{path} is another file here, or has changed: {' '.join(keys)} was {shape} {dtype}."
            " Open it again"
        )
    return MappedArray(found, path, keys)
