"""Sizes: bytes and files of each form of the masks."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import Record, ranked
from benchmarks.folder import hdf5_path
from benchmarks.readers import hdf5_masks
from benchmarks.workload import Workload

__all__ = ["measure"]

_MOST_MASKS = 500


def measure(workload: Workload) -> Record:
    """Return the sizes; those of RLE and PNG are estimated from some masks if there are many."""
    n_masks = workload.n_masks
    rows = np.unique(np.linspace(0, n_masks - 1, min(n_masks, _MOST_MASKS)).astype(int))
    files = [path for path in workload.store.rglob("*") if path.is_file()]
    stored = sum(path.stat().st_size for path in files)
    estimate = "" if len(rows) == n_masks else f", estimated from {len(rows)} masks"
    found = [
        _row("maskcube store, with its coordinates", "ours", stored, len(files)),
        _row("HDF5, one mask a chunk", "peer", _size(workload.row), 1),
        _row("HDF5, automatic chunks", "peer", _size(workload.auto), 1),
        _estimated(f"pycocotools RLE, counts alone{estimate}", workload, rows, _rle_bytes, 1),
        _estimated(f"PNG of one bit{estimate}", workload, rows, _png_bytes, n_masks),
    ]
    for row in found:
        row["bytes_a_mask"] = None if row["bytes"] is None else row["bytes"] / n_masks
    return {
        "name": "size",
        "title": f"Size of {n_masks:,} masks",
        "note": "",
        "rows": ranked(found, "bytes"),
    }


def _row(peer: str, kind: str, n_bytes: int | None, n_files: int | None) -> Record:
    status = {"status": "ok", "agrees": None}
    return {"peer": peer, "kind": kind, **status, "bytes": n_bytes, "n_files": n_files}


def _estimated(
    peer: str,
    workload: Workload,
    rows: np.ndarray[Any, Any],
    measured: Callable[[np.ndarray[Any, Any]], int],
    n_files: int,
) -> Record:
    masks = hdf5_masks(workload.row)
    try:
        sizes = [measured(masks[int(row)]) for row in rows]
    except ModuleNotFoundError as error:
        return {**_row(peer, "peer", None, None), "status": f"not installed: {error.name}"}
    return _row(peer, "peer", round(sum(sizes) / len(rows) * workload.n_masks), n_files)


def _size(folder: Path) -> int:
    return hdf5_path(folder).stat().st_size


def _rle_bytes(mask: np.ndarray[Any, Any]) -> int:
    from pycocotools import mask as coco

    return len(coco.encode(np.asfortranarray(mask))["counts"])


def _png_bytes(mask: np.ndarray[Any, Any]) -> int:
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(mask.astype(bool)).save(written, "png")
    return len(written.getvalue())
