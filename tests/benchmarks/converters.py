"""Converters: each turns an HDF5 into a store, in a process of its own.

``python -m benchmarks.converters NAME FOLDER TARGET``; only what a converter needs is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.folder import SHARD_MASKS, hdf5_path

if TYPE_CHECKING:
    import h5py
    import numpy as np

__all__ = ["CONVERTERS"]

_DIMS = ("mask", "y", "x")
_LEVEL = 3


def _maskcube(folder: Path, target: Path) -> None:
    import maskcube

    maskcube.convert(folder, target, progress=False)


def _loop(folder: Path, target: Path) -> None:
    """Read a shard's masks with h5py, write them with zarr-python."""
    import zarr

    source = _hdf5(folder)
    array = zarr.create_array(
        target / "masks",
        shape=source.shape,
        dtype=source.dtype,
        # Without this zarr-python looks through every mask for one that is not 0, which is slow.
        config={"write_empty_chunks": True},
        **_layout(source),
    )
    for start in range(0, len(source), SHARD_MASKS):
        array[start : start + SHARD_MASKS] = source[start : start + SHARD_MASKS]


def _xarray(folder: Path, target: Path) -> None:
    """Let dask read the HDF5 and xarray write a shard a task."""
    import dask.array as da
    import xarray as xr

    source = _hdf5(folder)
    masks = da.from_array(source, chunks=(SHARD_MASKS, -1, -1))
    xr.Dataset({"masks": (_DIMS, masks)}).to_zarr(
        target, zarr_format=3, encoding={"masks": _layout(source)}, write_empty_chunks=True
    )


def _rechunker(folder: Path, target: Path) -> None:
    """Let rechunker do it; it needs zarr 2, which knows no shards."""
    import dask.array as da
    from numcodecs import Zstd
    from rechunker import rechunk

    source = _hdf5(folder)
    rows = max(SHARD_MASKS, source.chunks[0])
    plan = rechunk(
        da.from_array(source, chunks=(rows, -1, -1)),
        target_chunks=(1, *source.shape[1:]),
        max_mem="1GiB",  # as much as maskcube may take
        target_options={"compressor": Zstd(level=_LEVEL)},
        target_store=str(target / "masks"),
        temp_store=str(target / "between"),
    )
    plan.execute()


def _floor(folder: Path, target: Path) -> None:  # noqa: ARG001 - it writes nothing
    """Inflate, check and encode on all cores, and write nothing."""
    import numpy as np

    from benchmarks.machine import n_cores

    source = _hdf5(folder)
    depth = -(-SHARD_MASKS // source.chunks[0]) * source.chunks[0]
    slab = np.empty((depth, *source.shape[1:]), np.uint8)
    with ThreadPoolExecutor(n_cores()) as threads:
        for start in range(0, len(source), len(slab)):
            masks = slab[: len(source) - start]
            chunks = (part for part in _raw_chunks(source, start, len(masks)))
            for _ in threads.map(lambda part: _inflate(part, source.chunks, slab), chunks):
                pass
            for _ in threads.map(_encode, masks):
                pass


def _raw_chunks(source: h5py.Dataset, start: int, n_masks: int) -> Any:
    """Yield the place in the slab and the deflated bytes of each chunk of some masks."""
    depth, height, width = source.chunks
    for row in range(start, start + n_masks, depth):
        for top in range(0, source.shape[1], height):
            for left in range(0, source.shape[2], width):
                _, data = source.id.read_direct_chunk((row, top, left))
                yield (row - start, top, left), data


def _inflate(
    part: tuple[tuple[int, int, int], bytes], shape: tuple[int, int, int], slab: np.ndarray
) -> None:
    import cramjam
    import numpy as np

    (row, top, left), data = part
    place = slab[row : row + shape[0], top : top + shape[1], left : left + shape[2]]
    if place.shape == shape and place.flags.c_contiguous:
        flat: Any = place.reshape(-1)  # numpy declares itself a buffer from Python 3.12 on
        cramjam.zlib.decompress_into(data, flat)
        return
    pixels: Any = np.empty(shape, np.uint8)
    cramjam.zlib.decompress_into(data, pixels.reshape(-1))
    place[...] = pixels[: place.shape[0], : place.shape[1], : place.shape[2]]


def _encode(mask: np.ndarray) -> int:
    import google_crc32c
    from numcodecs.zstd import Zstd

    google_crc32c.value(mask)
    return int(google_crc32c.value(Zstd(level=_LEVEL).encode(mask)))


CONVERTERS: dict[str, Callable[[Path, Path], None]] = {
    "maskcube": _maskcube,
    "loop": _loop,
    "xarray": _xarray,
    "rechunker": _rechunker,
    "floor": _floor,
}


def _hdf5(folder: Path) -> h5py.Dataset:
    import h5py

    return h5py.File(hdf5_path(folder), "r")["masks"]


def _layout(source: h5py.Dataset) -> dict[str, Any]:
    """Return the chunks, shards and codecs that our store has."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return {
        "chunks": (1, *source.shape[1:]),
        "shards": (SHARD_MASKS, *source.shape[1:]),
        "compressors": [ZstdCodec(level=_LEVEL), Crc32cCodec()],
    }


if __name__ == "__main__":
    name, folder, target = sys.argv[1:]
    CONVERTERS[name](Path(folder), Path(target))
