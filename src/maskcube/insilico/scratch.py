"""An array in a file, which takes memory only while it is read or written."""

from __future__ import annotations

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

    An array that is mapped once keeps every page that was touched, up to all of it.

    Parameters
    ----------
    path : pathlib.Path
        The file, ``.npy``; made anew, with zeros.
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
    ...     array = Scratch(Path(folder) / "scores.npy", (2, 3), "float32")
    ...     array[:, 1:] = 7
    ...     array[0].tolist()
    [0.0, 7.0, 7.0]
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._path = path
        self.shape = shape
        self.dtype = np.dtype(dtype)
        np.lib.format.open_memmap(path, "w+", self.dtype, shape)
        _take_room(path)

    def __getitem__(self, key: Any, /) -> np.ndarray[Any, Any]:  # noqa: ANN401 - as numpy
        return np.array(np.lib.format.open_memmap(self._path, "r")[key])

    def __setitem__(self, key: Any, value: Any, /) -> None:  # noqa: ANN401 - as numpy
        np.lib.format.open_memmap(self._path, "r+")[key] = value


def _take_room(path: Path) -> None:
    """Take the room of a file: a full disk that is met through a mapped array ends the process."""
    n_bytes = path.stat().st_size
    try:
        if not hasattr(os, "posix_fallocate"):
            fits = shutil.disk_usage(path.parent).free >= n_bytes
        else:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            fits = True
    except OSError:
        fits = False
    if not fits:
        raise ResourceError(
            f"{path.parent} has no room for {n_bytes / 1e9:,.1f} GB: set TMPDIR to a larger place"
        )
