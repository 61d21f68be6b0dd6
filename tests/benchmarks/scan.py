"""Scan: the pixels of every mask, counted. All dask peers count with the same function."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

import maskcube
from benchmarks.contest import Ask, Contest, Peer
from benchmarks.machine import n_cores
from benchmarks.ranges import Ranges, decode
from benchmarks.readers import dask_over, hdf5_masks, tensorstore_masks, zarr_masks
from benchmarks.workload import Workload

__all__ = ["contests"]

_BLOCK_MASKS = 32
_TASK_MASKS = 16
"""zarrs and TensorStore are fastest with arrays so small that their memory is used again."""

_local = threading.local()


def contests(workload: Workload, most_masks: int | None = None) -> list[Contest]:
    """Return the contests of this section, over the first masks or all."""
    expected = maskcube.open_masks(workload.store, chunks=None)["area"].to_numpy()[:most_masks]
    n_masks = len(expected)
    row, store = workload.row, workload.store
    return [
        Contest(
            "scan",
            f"Count the pixels of {n_masks:,} of {workload.n_masks:,} masks",
            [n_masks],
            [
                Peer("maskcube, `map_masks`", partial(_mapped, workload), "ours"),
                Peer("maskcube, blocks of `chunks=None`", partial(_blocks, workload), "ours"),
                Peer("maskcube, dask chunks", partial(_ours_dask, workload), "ours"),
                Peer('maskcube, `masks.sum(("y", "x"))`', partial(_ours_sum, workload), "ours"),
                Peer("dask over h5py, 64 masks", _dask(lambda: hdf5_masks(row), 64)),
                Peer("dask over zarr-python, 64 masks", _dask(lambda: zarr_masks(store), 64)),
                Peer(
                    "dask over zarrs, 16 masks",
                    _dask(lambda: zarr_masks(store, zarrs=True), _TASK_MASKS),
                ),
                Peer(
                    "dask over TensorStore, 16 masks",
                    _dask(lambda: _Arrays(tensorstore_masks(store)), _TASK_MASKS),
                ),
                Peer("floor: read, crc32c, zstd, count", partial(_floor, workload), "floor"),
            ],
            note="Threads on all cores, unless one is said.",
            expected=lambda _: expected,
        )
    ]


def _count(masks: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count the pixels of each mask, (mask,); as booleans they are counted four times as fast."""
    return np.array([np.count_nonzero(mask) for mask in masks.view(np.bool_)], np.int64)


def _count_block(masks: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    # dask joins, and so copies, the blocks of an axis that is dropped: keep y and x, of length 1.
    return _count(masks).reshape(-1, 1, 1)


def _mapped(workload: Workload) -> Ask:
    masks = maskcube.open_masks(workload.store, chunks=None)

    def count(mask: np.ndarray[Any, Any]) -> int:
        return int(np.count_nonzero(mask.view(np.bool_)))

    return lambda n_masks: maskcube.map_masks(count, masks[:n_masks]).to_numpy()


def _blocks(workload: Workload) -> Ask:
    masks = maskcube.open_masks(workload.store, chunks=None)

    def ask(n_masks: int) -> Any:
        starts = range(0, n_masks, _BLOCK_MASKS)
        stops = [min(start + _BLOCK_MASKS, n_masks) for start in starts]
        blocks = [slice(*ends) for ends in zip(starts, stops, strict=True)]
        return np.concatenate([_count(masks[block].to_numpy()) for block in blocks])

    return ask


def _ours_dask(workload: Workload) -> Ask:
    masks = maskcube.open_masks(workload.store)
    return lambda n_masks: _counted(masks.data[:n_masks])


def _ours_sum(workload: Workload) -> Ask:
    masks = maskcube.open_masks(workload.store)
    return lambda n_masks: masks[:n_masks].sum(("y", "x")).to_numpy()


def _dask(opened: Callable[[], Any], n_masks: int) -> Callable[[], Ask]:
    def prepare() -> Ask:
        array = dask_over(opened(), n_masks)
        return lambda n_masks: _counted(array[:n_masks])

    return prepare


def _counted(array: Any) -> Any:
    counts = array.map_blocks(_count_block, dtype=np.int64, chunks=(array.chunks[0], (1,), (1,)))
    return counts.compute(scheduler="threads", num_workers=n_cores())[:, 0, 0]


class _Arrays:
    """TensorStore's answers as arrays, which dask wants."""

    def __init__(self, masks: Any) -> None:
        self.masks = masks
        self.shape, self.dtype, self.ndim = masks.shape, masks.dtype.numpy_dtype, masks.ndim

    def __getitem__(self, key: Any) -> Any:
        return self.masks[key].read().result()


def _floor(workload: Workload) -> Ask:
    ranges = Ranges(workload.store)

    def ask(n_masks: int) -> Any:
        shards = range(-(-n_masks // ranges.shard_masks))
        with ThreadPoolExecutor(n_cores()) as threads:
            counts = threads.map(partial(_count_shard, ranges), shards)
            return np.concatenate(list(counts))[:n_masks]

    return ask


def _count_shard(ranges: Ranges, shard: int) -> list[int]:
    return list(_counts(ranges, shard))


def _counts(ranges: Ranges, shard: int) -> Iterator[int]:
    pixels = getattr(_local, "pixels", None)
    if pixels is None or pixels.shape != (ranges.height, ranges.width):
        # One array a thread, used again and again: fresh memory costs as much as decoding.
        pixels = _local.pixels = np.empty((ranges.height, ranges.width), np.uint8)
    for data in ranges.chunks(shard):
        yield int(np.count_nonzero(decode(data, pixels).view(np.bool_)))
