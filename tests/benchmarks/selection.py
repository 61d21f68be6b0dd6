"""Selection: all masks of an image, which lie together, and of a noun, which lie scattered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import maskcube
from benchmarks.contest import Ask, Contest, Peer
from benchmarks.ranges import Ranges
from benchmarks.readers import dask_over, hdf5_masks, labelled_hdf5, tensorstore_masks, zarr_masks
from benchmarks.workload import Workload

__all__ = ["contests"]

_COLUMNS = {"image": "image_name", "noun": "noun"}


def contests(workload: Workload) -> list[Contest]:
    """Return the contests of this section."""
    return [
        _contest(workload, "image", workload.images, "together in the store"),
        _contest(workload, "noun", [workload.noun], "scattered over the store"),
    ]


def _contest(workload: Workload, name: str, labels: list[str], where: str) -> Contest:
    store = workload.store
    by_rows = partial(_by_rows, workload, name)
    pick = _slice if name == "image" else _orthogonal
    picked = "slice" if name == "image" else "`oindex`"
    n_masks = len(workload.rows_of(_COLUMNS[name], labels[0]))
    return Contest(
        name,
        f"All {n_masks} masks of one {name}, {where}",
        labels,
        [
            Peer("maskcube, `.sel`, `chunks=None`", partial(_sel, workload, name, None), "ours"),
            Peer("maskcube, `.sel`, dask chunks", partial(_sel, workload, name, "auto"), "ours"),
            Peer("h5py, a loop", by_rows(lambda: hdf5_masks(workload.row), _loop)),
            Peer("h5py, `masks[rows]`", by_rows(lambda: hdf5_masks(workload.row), _fancy)),
            Peer(
                "h5py, `masks[rows]`, automatic chunks", by_rows(partial(_auto, workload), _fancy)
            ),
            Peer(f"zarr-python, {picked}", by_rows(lambda: zarr_masks(store), pick)),
            Peer("zarr-python, a loop", by_rows(lambda: zarr_masks(store), _loop)),
            Peer(f"zarrs, {picked}", by_rows(lambda: zarr_masks(store, zarrs=True), pick)),
            Peer("zarrs, a loop", by_rows(lambda: zarr_masks(store, zarrs=True), _loop)),
            Peer("TensorStore", by_rows(lambda: tensorstore_masks(store), _tensorstore)),
            Peer("dask over h5py", by_rows(lambda: dask_over(hdf5_masks(workload.row)), _dask)),
            Peer("xarray and dask over h5py, MultiIndex", partial(_multiindex, workload, name)),
            Peer("floor: `pread`, crc32c, zstd", by_rows(lambda: Ranges(store), _floor), "floor"),
        ],
        note="All peers but maskcube and xarray are given the rows, and answer no question.",
    )


def _sel(workload: Workload, name: str, chunks: Any) -> Ask:
    masks = maskcube.open_masks(workload.store, chunks=chunks)
    return lambda label: masks.sel({name: label}).to_numpy()


def _multiindex(workload: Workload, name: str) -> Ask:
    masks = labelled_hdf5(workload)
    return lambda label: masks.sel({name: label}).to_numpy()


def _by_rows(
    workload: Workload, name: str, opened: Callable[[], Any], read: Callable[[Any, Any], Any]
) -> Callable[[], Ask]:
    """Return the preparation of a peer that is told which rows to read."""

    def prepare() -> Ask:
        masks = opened()
        rows: dict[str, Any] = {}

        def ask(label: str) -> Any:
            if label not in rows:  # found once, in the repetition that is not timed
                rows[label] = workload.rows_of(_COLUMNS[name], label)
            return read(masks, rows[label])

        return ask

    return prepare


def _auto(workload: Workload) -> Any:
    return hdf5_masks(workload.auto)


def _fancy(masks: Any, rows: Any) -> Any:
    return masks[rows]


def _loop(masks: Any, rows: Any) -> Any:
    answer = np.empty((len(rows), *masks.shape[1:]), np.uint8)
    for pixels, row in zip(answer, rows, strict=True):
        pixels[...] = masks[int(row)]
    return answer


def _slice(masks: Any, rows: Any) -> Any:
    together = _together(rows)
    return _orthogonal(masks, rows) if together is None else masks[together]


def _dask(masks: Any, rows: Any) -> Any:
    together = _together(rows)
    return masks[rows if together is None else together].compute()


def _together(rows: Any) -> slice | None:
    """Return the rows as a slice if they are one; of an unsorted dataset they need not be."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else None


def _orthogonal(masks: Any, rows: Any) -> Any:
    return masks.oindex[rows]


def _tensorstore(masks: Any, rows: Any) -> Any:
    return masks[rows].read().result()


def _floor(masks: Ranges, rows: Any) -> Any:
    answer = np.empty((len(rows), masks.height, masks.width), np.uint8)
    for pixels, row in zip(answer, rows, strict=True):
        masks.read(int(row), pixels)
    return answer
