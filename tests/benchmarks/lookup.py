"""Lookup: one random mask, by its row and by its labels."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

import maskcube
from benchmarks.contest import Ask, Contest, Peer
from benchmarks.folder import csv_path
from benchmarks.ranges import Ranges
from benchmarks.readers import hdf5_masks, labelled_hdf5, tensorstore_masks, zarr_masks
from benchmarks.workload import Label, Workload

__all__ = ["contests"]


def contests(workload: Workload) -> list[Contest]:
    """Return the contests of this section."""
    return [_by_row(workload), _by_label(workload)]


def _by_row(workload: Workload) -> Contest:
    store = workload.store
    return Contest(
        "get",
        "One random mask by its row",
        workload.rows,
        [
            Peer("maskcube, `Segmentations[row]`", partial(_segmentations, workload), "ours"),
            Peer("h5py, one mask a chunk", lambda: hdf5_masks(workload.row).__getitem__),
            Peer("h5py, automatic chunks", lambda: hdf5_masks(workload.auto).__getitem__),
            Peer("zarr-python, our store", lambda: zarr_masks(store).__getitem__),
            Peer("zarrs, our store", lambda: zarr_masks(store, zarrs=True).__getitem__),
            Peer("TensorStore, our store", partial(_tensorstore, workload)),
            Peer("pycocotools, RLE in memory", partial(_run_lengths, workload)),
            Peer("floor: `pread`, crc32c, zstd", lambda: Ranges(store).mask, "floor"),
        ],
    )


def _segmentations(workload: Workload) -> Ask:
    segmentations = maskcube.Segmentations(workload.store)
    return lambda row: segmentations[row]


def _tensorstore(workload: Workload) -> Ask:
    masks = tensorstore_masks(workload.store)
    return lambda row: masks[row].read().result()


def _run_lengths(workload: Workload) -> Ask:
    from pycocotools import mask as coco

    source = hdf5_masks(workload.row)
    encoded = {row: coco.encode(np.asfortranarray(source[row])) for row in set(workload.rows)}
    return lambda row: coco.decode(encoded[row])


def _by_label(workload: Workload) -> Contest:
    return Contest(
        "sel",
        "One mask by image, noun and instance, with its pixels",
        workload.labels,
        [
            Peer("maskcube, `.sel`, `chunks=None`", partial(_sel, workload), "ours"),
            Peer("maskcube, `Segmentations.get`", partial(_get, workload), "ours"),
            Peer("pandas `get_group` and filter, h5py", partial(_grouped, workload)),
            Peer("xarray and dask over h5py, MultiIndex", partial(_multiindex, workload)),
        ],
    )


def _sel(workload: Workload) -> Ask:
    masks = maskcube.open_masks(workload.store, chunks=None)

    def ask(label: Label) -> Any:
        image, noun, instance = label
        return masks.sel(image=image, noun=noun, instance=instance).to_numpy()

    return ask


def _get(workload: Workload) -> Ask:
    segmentations = maskcube.Segmentations(workload.store)
    return lambda label: segmentations.get(*label)


def _grouped(workload: Workload) -> Ask:
    groups = pd.read_csv(csv_path(workload.row)).groupby("image_name")
    source = hdf5_masks(workload.row)

    def ask(label: Label) -> Any:
        image, noun, instance = label
        rows = groups.get_group(image)
        found = rows[(rows["noun"] == noun) & (rows["instance_id"] == instance)]
        return source[int(found["mask_row"].iloc[0])]

    return ask


def _multiindex(workload: Workload) -> Ask:
    masks = labelled_hdf5(workload)

    def ask(label: Label) -> Any:
        image, noun, instance = label
        return masks.sel(image=image, noun=noun, instance=instance).to_numpy()

    return ask
