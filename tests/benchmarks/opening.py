"""Opening: until the index can answer a question, and from a cold process to the first mask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import xarray as xr
from numcodecs.zstd import Zstd

import maskcube
from benchmarks.contest import Ask, Contest, Peer
from benchmarks.folder import csv_path, hdf5_path
from benchmarks.workload import Label, Workload

__all__ = ["contests"]

_CRC_BYTES = 4
_LABELS = ("image", "noun", "instance")


def contests(workload: Workload) -> list[Contest]:
    """Return the contests of this section."""
    return [_open(workload), _cold(workload)]


def _open(workload: Workload) -> Contest:
    def ours(chunks: Any) -> Ask:
        def ask(image: str) -> Any:
            masks = maskcube.open_masks(workload.store, chunks=chunks)
            index: Any = masks.xindexes["image"]
            return index.rows({"image": image})

        return ask

    return Contest(
        "open",
        "Open, and find the rows of one image",
        workload.images,
        [
            Peer("maskcube, `chunks=None`", partial(ours, None), "ours"),
            Peer("maskcube, dask chunks", partial(ours, "auto"), "ours"),
            Peer("h5py, `read_csv`, `groupby`", partial(_h5py_and_pandas, workload)),
            Peer("`xr.open_zarr` of our store", partial(_plain_xarray, workload)),
            Peer(
                "floor: read and inflate the labels",
                partial(_label_bytes, workload),
                "floor",
                False,
            ),
        ],
    )


def _h5py_and_pandas(workload: Workload) -> Ask:
    def ask(image: str) -> Any:
        with h5py.File(hdf5_path(workload.row)):
            table = pd.read_csv(csv_path(workload.row))
            groups: dict[Any, Any] = table.groupby("image_name").indices
            return table["mask_row"].to_numpy()[groups[image]]

    return ask


def _plain_xarray(workload: Workload) -> Ask:
    def ask(image: str) -> Any:
        with xr.open_zarr(workload.store, chunks=None, zarr_format=3, consolidated=True) as store:
            labels = {name: store[name].to_numpy() for name in _LABELS}
            return np.flatnonzero(labels["image"] == image)

    return ask


def _label_bytes(workload: Workload) -> Ask:
    def ask(_: str) -> None:
        json.loads((workload.store / "zarr.json").read_bytes())
        for name in _LABELS:
            data = (workload.store / name / "c" / "0").read_bytes()
            Zstd().decode(data[:-_CRC_BYTES])

    return ask


_OURS = """
import sys, maskcube
_, store, image, noun, instance = sys.argv
print(int(maskcube.Segmentations(store).get(image, noun, int(instance)).sum()))
"""

_H5PY = """
import sys, h5py, pandas
_, hdf5, csv, image, noun, instance = sys.argv
table = pandas.read_csv(csv)
rows = table.iloc[table.groupby("image_name").indices[image]]
row = rows[(rows["noun"] == noun) & (rows["instance_id"] == int(instance))]["mask_row"].iloc[0]
with h5py.File(hdf5) as file:
    print(int(file["masks"][int(row)].sum()))
"""


def _cold(workload: Workload) -> Contest:
    store, files = workload.store, [hdf5_path(workload.row), csv_path(workload.row)]
    python = [sys.executable, "-c"]
    command = [*_maskcube(), "get", "--json", store]
    return Contest(
        "cold",
        "From the start of a process to the first mask",
        workload.labels[:1],
        [
            Peer("maskcube, `Segmentations`", _process([*python, _OURS, store]), "ours"),
            Peer("maskcube, `maskcube get`", _process(command, _area, "--instance"), "ours"),
            Peer("h5py, `read_csv`, `groupby`", _process([*python, _H5PY, *files])),
            Peer("floor: `python -c pass`", _process([*python, "pass"], len), "floor", False),
        ],
        note="A new process each time; the cache of the operating system is warm.",
    )


def _process(
    command: Sequence[Any], read: Callable[[str], int] = int, *before_instance: str
) -> Callable[[], Ask]:
    def ask(label: Label) -> int:
        image, noun, instance = label
        arguments = [str(part) for part in (*command, image, noun, *before_instance, instance)]
        done = subprocess.run(
            arguments, capture_output=True, text=True, check=True, env=_environment()
        )
        return read(done.stdout)

    return lambda: ask


def _area(printed: str) -> int:
    return int(json.loads(printed)["area"])


def _environment() -> dict[str, str]:
    """Return an environment in which Python keeps its compiled modules, as it does for a user."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def _maskcube() -> list[str]:
    command = Path(sys.executable).with_name("maskcube")
    return [str(command)] if command.exists() else [sys.executable, "-m", "maskcube"]
