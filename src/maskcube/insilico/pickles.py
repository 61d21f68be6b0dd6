"""Files of numpy that hold pickles, read without unpickling."""

from __future__ import annotations

import ast
import mmap
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.insilico.errors import CorruptWeights, ModelLoadError
from maskcube.insilico.opcodes import Machine
from maskcube.insilico.pickled_types import PickleFault, Source, dtype_of, short
from maskcube.insilico.stand_ins import Blob, filled

__all__ = ["read_npy"]

_MAGIC = b"\x93NUMPY"
_LENGTHS = {b"\1\0": "<H", b"\2\0": "<I"}
"""How each version of the format has the length of its header."""
_MOST_HEADER_BYTES = 10_000
_KEYS = {"descr", "fortran_order", "shape"}


def read_npy(path: str | Path) -> Any:  # noqa: ANN401 - whatever was saved
    """Return what ``np.save`` has written, be it pickled: nothing of it is imported or called.

    Names of numpy make arrays, types and scalars, names of nibabel records of what is said of them;
    every other name is refused, as are loops, more than 64 levels, more than 400,000 opcodes and
    more than 32 MiB of small things.

    The file must stay as it is while its arrays are used, as with `numpy.memmap`.

    Parameters
    ----------
    path : str or pathlib.Path
        A file on this machine: an array of plain numbers, or an array of objects, pickled by one of
        the protocols 2 to 5.

    Returns
    -------
    object
        What ``np.load(path, allow_pickle=True)`` returns, `item` of it if it is a single object.
        Arrays are read-only; those above 64 KiB are mapped: in place, not aligned, in their own
        byte order, and not read before they are looked at. Other strings of bytes above 64 KiB are
        left out: `maskcube.insilico.stand_ins.Blob` says where they are.

    Raises
    ------
    CorruptWeights
        When the file is no such file, is cut off, is not what it says, or would run code.
    ModelLoadError
        When there is no file, or it cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> np.save("weights.npy", {"coef_": np.ones((3, 2)), "n_features_in_": 2})
    >>> read_npy("weights.npy")["coef_"].shape
    (3, 2)
    """
    place = Path(path)
    file = _mapped(place)
    try:
        order, shape, name, start = _header(file)
        if name == "|O":
            return _single(_unpickled(file, start), shape)
        return _numbers(file, start, shape, name, order)
    except PickleFault as fault:
        raise CorruptWeights(
            f"{place}: {fault}. It is damaged, or would run code; nothing of it was run. Get it"
            " again from where it came from, and compare its size and checksum with theirs"
        ) from fault


def _mapped(path: Path) -> mmap.mmap:
    """Return a file, mapped to be read; a pipe would be waited for."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ModelLoadError(f"{path} is no file: weights are read from files on this machine")
        if not state.st_size:
            raise CorruptWeights(f"{path} is empty: get it again from where it came from")
        with path.open("rb") as opened:
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror or error}") from error


def _header(file: mmap.mmap) -> tuple[str, tuple[Any, ...], str, int]:
    """Return order, shape, the name of the type, and where the data begin."""
    layout = _LENGTHS.get(file[6:8])
    if file[:6] != _MAGIC or layout is None:
        raise PickleFault(f"it is no .npy of version 1 or 2, but begins with {file[:8]!r}")
    start = 8 + struct.calcsize(layout)
    (size,) = struct.unpack_from(layout, file[:start].ljust(start, b"\xff"), 8)
    if size > min(_MOST_HEADER_BYTES, len(file) - start):
        raise PickleFault(f"its header has {size:,} bytes")
    text = file[start : start + size]
    try:
        header = ast.literal_eval(text.decode("latin-1").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        header = None
    if not isinstance(header, dict) or set(header) != _KEYS:
        raise PickleFault(f"its header is {text[:100]!r}")
    name, is_fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    known = isinstance(name, str) and len(name) > 1 and name[0] in "<>|="
    if not known or not isinstance(is_fortran, bool) or not isinstance(shape, tuple):
        raise PickleFault(f"its header is {text[:100]!r}")
    return "F" if is_fortran else "C", shape, name, start + size


def _numbers(
    file: mmap.mmap, start: int, shape: tuple[Any, ...], name: str, order: str
) -> NDArray[Any]:
    try:
        data = Blob(start, len(file) - start)
        return filled(shape, dtype_of(name[1:], name[0]), order, data, Source(file))
    except PickleFault as fault:
        raise PickleFault(f"it has {fault}") from fault


def _unpickled(file: mmap.mmap, start: int) -> object:
    machine = Machine(file, start)
    try:
        return machine.run()
    except PickleFault as fault:
        raise PickleFault(f"its pickle has {fault}, at byte {machine.at:,}") from fault
    except (ValueError, TypeError, OverflowError) as error:
        raise PickleFault(f"its pickle says what cannot be, at byte {machine.at:,}") from error


def _single(tree: object, shape: tuple[Any, ...]) -> Any:  # noqa: ANN401 - whatever was saved
    """Return what is in an array of objects, if that is one object."""
    if not isinstance(tree, np.ndarray) or tree.dtype != object or tree.shape != shape:
        raise PickleFault(f"its header promises an array of objects of shape {short(shape)}")
    return tree if shape else tree.item()
