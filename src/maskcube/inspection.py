"""What must be true of an HDF5 before a byte of its masks is read.

HDF5 can make other files part of a file: external links, external raw storage and virtual datasets
read whatever the process may read, and an unknown filter makes the library look for a plugin to
load. Only a plain chunked dataset with known filters is accepted.

Nothing in HDF5's own description has a checksum, and a small file may declare anything: sizes are
compared with the file's before anything of that size is made, and chunks with each other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from maskcube.errors import listed
from maskcube.filters import COMPRESSORS, FILTERS, most_stored_bytes
from maskcube.metadata import MOST_ROWS

if TYPE_CHECKING:
    import h5py

__all__ = ["DATASET", "faults_of", "filters_of", "places_of"]

DATASET = "masks"

_MOST_BYTES = 2**28
"""Largest mask, and largest chunk: three of them may be in memory at once."""

_MOST_CHUNKS = 2**22
"""Looking at more would take minutes; 24,011 masks in automatic chunks are 65,536 of them."""

_REWRITE = "rewrite it with h5repack -f masks:GZIP=4"


def faults_of(file: h5py.File, *, whole: bool = True) -> list[str]:
    """Return what is wrong with a file, from its description alone.

    Unless it is there as a `whole`, its list of chunks, which is all over the file, is not read.
    """
    import h5py

    link = file.get(DATASET, getclass=True, getlink=True)
    if link is None:
        return [f"has no dataset {DATASET!r}; it holds: {listed(file) or 'nothing'}"]
    if link is not h5py.HardLink:
        return [f"{DATASET!r} is a link ({link.__name__}), which may lead elsewhere: refused"]
    dataset = file[DATASET]
    if not isinstance(dataset, h5py.Dataset):
        return [f"{DATASET!r} is a {type(dataset).__name__.lower()}, expected a dataset"]
    return _storage_faults(dataset) or [
        *_shape_faults(dataset),
        *_type_faults(dataset),
        *_chunk_faults(dataset, file.id.get_filesize(), whole=whole),
    ]


def filters_of(dataset: h5py.Dataset) -> list[str]:
    """Return the names of a dataset's filters, all known, in the order of their application."""
    return [FILTERS[code] for code, _ in _filters(dataset)]


def _filters(dataset: h5py.Dataset) -> list[tuple[int, tuple[int, ...]]]:
    """Return the number and the parameters of each filter."""
    created = dataset.id.get_create_plist()
    found = (created.get_filter(i) for i in range(created.get_nfilters()))
    return [(code, values) for code, _, values, _ in found]


def _storage_faults(dataset: h5py.Dataset) -> list[str]:
    """Return what would make reading the dataset read, or load, something else."""
    if dataset.is_virtual:
        return [f"{DATASET!r} is a virtual dataset, which reads other files: refused"]
    if dataset.external:
        return [f"{DATASET!r} keeps its bytes in other files (external storage): refused"]
    if dataset.chunks is None:
        advice = f"create_dataset({DATASET!r}, data=..., chunks=True, compression='gzip')"
        return [f"{DATASET!r} is not chunked; write it with {advice}"]
    return _filter_faults(_filters(dataset))


def _filter_faults(filters: list[tuple[int, tuple[int, ...]]]) -> list[str]:
    """Return why filters cannot be undone."""
    unknown = [code for code, _ in filters if code not in FILTERS]
    if unknown:
        known = ", ".join(FILTERS.values())
        return [f"{DATASET!r} uses HDF5 filters {listed(unknown)}; known are {known}: {_REWRITE}"]
    names = [FILTERS[code] for code, _ in filters]
    if len(set(names)) < len(names) or len(COMPRESSORS.intersection(names)) > 1:
        return [f"{DATASET!r} is filtered by {listed(names)}, by one too often: {_REWRITE}"]
    # Of elements of one byte shuffling makes what they were.
    if any(FILTERS[code] == "shuffle" and values[:1] != (1,) for code, values in filters):
        return [f"{DATASET!r} is shuffled as if its elements were not one byte: {_REWRITE}"]
    return []


def _shape_faults(dataset: h5py.Dataset) -> list[str]:
    if dataset.ndim != 3:  # noqa: PLR2004 - (mask, y, x)
        return [f"{DATASET!r} has shape {dataset.shape}, expected (mask, y, x)"]
    if 0 in dataset.shape:
        return [f"{DATASET!r} has shape {dataset.shape}: there is nothing to convert"]
    faults = []
    if dataset.shape[0] > MOST_ROWS:
        faults.append(f"{DATASET!r} has shape {dataset.shape}: more than {MOST_ROWS:,} masks")
    if math.prod(dataset.shape[1:]) > _MOST_BYTES:
        most = f"{_MOST_BYTES // 2**20} MiB"
        faults.append(f"{DATASET!r} has shape {dataset.shape}: more than {most} for one mask")
    return faults


def _type_faults(dataset: h5py.Dataset) -> list[str]:
    from h5py import h5t

    expected = "expected uint8 (or bool)"
    if dataset.dtype not in (np.uint8, np.bool_):
        return [f"{DATASET!r} has dtype {dataset.dtype}, {expected}"]
    # numpy has no word for a number that is only some of the bits of its byte.
    type_id = dataset.id.get_type()
    whole = [h5t.STD_U8LE, h5t.STD_U8BE, h5t.STD_B8LE, h5t.STD_B8BE]
    if type_id.get_class() == h5t.ENUM:
        type_id = type_id.get_super()
        whole += [h5t.STD_I8LE, h5t.STD_I8BE] if dataset.dtype == np.bool_ else []
    if not any(type_id.equal(each) for each in whole):
        return [f"{DATASET!r} has numbers of less than the 8 bits of a byte, {expected}"]
    return []


def _chunk_faults(dataset: h5py.Dataset, file_bytes: int, *, whole: bool) -> list[str]:
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if chunk_bytes > _MOST_BYTES:
        most = f"{_MOST_BYTES // 2**20} MiB"
        return [f"{DATASET!r} has chunks of shape {dataset.chunks}: more than {most} each"]
    grid = _grid(dataset)
    n_chunks = math.prod(grid)
    if n_chunks > file_bytes:
        lost = f"most of the {n_chunks:,} chunks of {DATASET!r} were never written"
        return [f"{lost}: the file has only {file_bytes:,} bytes"]
    if n_chunks > _MOST_CHUNKS:
        small = f"{DATASET!r} has {n_chunks:,} chunks of shape {dataset.chunks}"
        return [f"{small}, more than {_MOST_CHUNKS:,}: write it with chunks of whole masks"]
    return _place_faults(dataset, grid, places_of(dataset), file_bytes) if whole else []


def _grid(dataset: h5py.Dataset) -> list[int]:
    """Return how many chunks there are along each axis."""
    return [
        math.ceil(size / chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    ]


def places_of(dataset: h5py.Dataset) -> np.ndarray[Any, Any]:
    """Return where each chunk lies in the file, its bytes and the filters skipped, (chunk, 3).

    The chunks are in the order of their first pixels; one of 0 bytes is nowhere.
    """
    grid = _grid(dataset)
    places = np.zeros((math.prod(grid), 3), np.uint64)
    left = 4 * len(places) + 1024

    def note(chunk: Any) -> bool | None:  # noqa: ANN401 - h5py has no types
        nonlocal left
        left -= 1
        offsets = zip(chunk.chunk_offset, dataset_shape, dataset_chunks, strict=True)
        if all(offset < size and not offset % length for offset, size, length in offsets):
            numbers = map(int.__floordiv__, chunk.chunk_offset, dataset_chunks)
            number = 0
            for each, count in zip(numbers, grid, strict=True):
                number = number * count + each
            places[number] = chunk.byte_offset, chunk.size, chunk.filter_mask
        # A damaged list of chunks may lead back to its beginning.
        return None if left else True

    dataset_shape, dataset_chunks = dataset.shape, dataset.chunks
    dataset.id.chunk_iter(note)
    return places


def _place_faults(
    dataset: h5py.Dataset, grid: list[int], places: np.ndarray[Any, Any], file_bytes: int
) -> list[str]:
    """Return what cannot be true of the chunks' places together."""
    lost = int((places[:, 1] == 0).sum())
    if lost:
        # HDF5 would read them as empty masks without a word.
        return [f"{lost:,} of {len(places):,} chunks of {DATASET!r} were never written"]
    order = np.argsort(places[:, 0], kind="stable")
    starts, sizes, _ = places[order].T
    covered = np.append(starts[:-1] + sizes[:-1] > starts[1:], False)
    chunk_bytes = math.prod(dataset.chunks)
    # Without filters the library reads as much as it needs, whatever the list of chunks says.
    other = sizes != chunk_bytes if not _filters(dataset) else np.zeros(len(sizes), bool)
    faults = [
        (f"without filters, but not of {chunk_bytes:,} bytes", other),
        ("larger than they can be", sizes > most_stored_bytes(chunk_bytes)),
        ("beyond the end of the file", (starts > file_bytes) | (sizes > file_bytes - starts)),
        ("in the place of others", covered),
    ]
    return [
        f"chunks of {DATASET!r} {what}, at (mask, y, x): {_offsets(dataset, grid, order[found])};"
        " is the file damaged?"
        for what, found in faults
        if found.any()
    ]


def _offsets(dataset: h5py.Dataset, grid: list[int], numbers: np.ndarray[Any, Any]) -> str:
    """Return the first pixels of chunks for a message."""
    places = np.column_stack(np.unravel_index(np.sort(numbers), grid)) * dataset.chunks
    return listed(map(tuple, places.tolist()))
