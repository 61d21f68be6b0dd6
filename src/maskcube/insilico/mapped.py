"""Arrays that stay in their file, and leave no more in memory than is asked for."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
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

    def __repr__(self) -> str:
        """Return its shape and type."""
        return f"<MappedArray {self.shape} {self.dtype}>"
