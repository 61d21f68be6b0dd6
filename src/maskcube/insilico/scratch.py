"""An array in a file, which takes memory only while it is read or written."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from maskcube.insilico.errors import ResourceError

__all__ = ["Scratch"]


class Scratch:
    """An array in a file, which takes memory only while it is read or written.

    One that is mapped takes whole pages around what is touched, up to all of it.

    Parameters
    ----------
    path : pathlib.Path
        The file, without any header; made anew, with zeros.
    shape : tuple of int
        The shape of the array.
    dtype : numpy.dtype
        Its type.

    Raises
    ------
    ResourceError
        When the disk has no room for it.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     array = Scratch(Path(folder) / "scores", (2, 3), "float32")
    ...     array[:, 1:] = np.full((2, 2), 7)
    ...     array[:1].tolist()
    [[0.0, 7.0, 7.0]]
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._path = path
        self.shape = shape
        self.dtype = np.dtype(dtype)
        _take_room(path, math.prod(shape) * self.dtype.itemsize)

    def __getitem__(self, key: Any, /) -> np.ndarray[Any, Any]:  # noqa: ANN401 - as numpy
        """Return what a slice of the first axis holds, of the last one, or of both."""
        rows, columns = self._lines(key)
        found = np.empty((len(rows), len(columns)), self.dtype)
        with self._path.open("rb", buffering=0) as file:
            for values, row in zip(found, rows, strict=True):
                file.seek(self._place(row, columns.start))
                file.readinto(values.data.cast("B"))
        return found.reshape(-1, *self.shape[1:-1], len(columns))

    def __setitem__(self, key: Any, values: Any, /) -> None:  # noqa: ANN401 - as numpy
        """Write what a slice of the first axis holds, of the last one, or of both."""
        rows, columns = self._lines(key)
        lines = np.ascontiguousarray(values, self.dtype).reshape(len(rows), len(columns))
        with self._path.open("r+b") as file:
            for line, row in zip(lines, rows, strict=True):
                file.seek(self._place(row, columns.start))
                file.write(line.data.cast("B"))

    def _lines(self, key: Any) -> tuple[range, range]:  # noqa: ANN401 - as numpy
        """Return which lines of the last axis are meant, and where in each."""
        first, last = key if isinstance(key, tuple) else (key, slice(None))
        each = math.prod(self.shape[1:-1])
        start, stop, _ = (slice(None) if first is Ellipsis else first).indices(self.shape[0])
        return range(start * each, stop * each), range(*last.indices(self.shape[-1]))

    def _place(self, line: int, position: int) -> int:
        return (line * self.shape[-1] + position) * self.dtype.itemsize


def _take_room(path: Path, n_bytes: int) -> None:
    """Take the room of a file: a full disk that is met through a mapped array ends the process."""
    fits = n_bytes <= shutil.disk_usage(path.parent).free
    try:
        with path.open("wb") as file:
            if fits and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            elif fits:
                file.truncate(n_bytes)
    except OSError:
        fits = False
    if not fits:
        raise ResourceError(
            f"{path.parent} has no room for {n_bytes / 1e9:,.1f} GB: set TMPDIR to a larger place"
        )
