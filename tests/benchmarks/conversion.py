"""Conversion: HDF5 to store, each converter in a process of its own, measured from outside."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

import maskcube
from benchmarks.contest import BUDGET_S, Record, ranked, rounds
from benchmarks.folder import SHARD_MASKS
from benchmarks.workload import Workload

__all__ = ["measure"]

_LAYOUTS = {"row": "one mask a HDF5 chunk", "auto": "automatic HDF5 chunks"}
_PEERS = {
    "maskcube": "`maskcube.convert`",
    "loop": "h5py and zarr-python, a loop over shards",
    "xarray": "xarray and dask, `to_zarr`",
    "rechunker": "rechunker, zarr 2, a file a mask",
    "floor": "floor: inflate, check, encode; writes nothing",
}
_KINDS = {"maskcube": "ours", "floor": "floor"}

# The peak that the system notes of a child begins with that of the process it was forked from: a
# small process in between keeps ours out of it.
_LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ)
_, status, used = os.wait4(child, 0)
wall = time.perf_counter() - start
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({
    "code": os.waitstatus_to_exitcode(status),
    "wall_s": wall,
    "cpu_s": used.ru_utime + used.ru_stime,
    "peak_bytes": used.ru_maxrss * unit,
}))
"""


@dataclass
class _Run:
    """A converter on one folder, and what it took each time."""

    name: str
    label: str
    folder: Path
    python: str = sys.executable
    status: str = "ok"
    agrees: bool | None = None
    taken: list[dict[str, Any]] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        spent = sum(run["wall_s"] for run in self.taken)
        return self.status == "ok" and spent < BUDGET_S

    def record(self) -> Record:
        median = {
            key: statistics.median(run[key] for run in self.taken) if self.taken else None
            for key in ("wall_s", "cpu_s", "peak_bytes")
        }
        return {
            "peer": self.label,
            "kind": _KINDS.get(self.name, "peer"),
            "status": self.status,
            "agrees": self.agrees,
            "n_questions": 1,
            "times_s": [run["wall_s"] for run in self.taken],
            "median_s": median["wall_s"],
            "cpu_s": median["cpu_s"],
            "peak_bytes": median["peak_bytes"],
        }


def measure(
    workload: Workload, repetitions: int, n_masks: int, rechunker: str | None
) -> Iterator[Record]:
    """Yield a record for each layout; where peers convert the first masks only, so do we.

    Parameters
    ----------
    workload : Workload
        The datasets.
    repetitions : int
        Of each converter.
    n_masks : int
        Masks that all convert.
    rechunker : str, optional
        The interpreter of an environment with rechunker and the zarr 2 that it needs.
    """
    n_masks = min(n_masks, workload.n_masks)
    pythons = {"rechunker": rechunker} if rechunker else {}
    for layout in _LAYOUTS:
        yield _measure(workload, layout, n_masks, repetitions, pythons)
    if n_masks < workload.n_masks:
        yield _whole(workload)


def _measure(
    workload: Workload, layout: str, n_masks: int, repetitions: int, pythons: dict[str, str]
) -> Record:
    folder = workload.subset(layout, n_masks)
    runs = [
        _Run(name, label, folder, pythons.get(name, sys.executable))
        for name, label in _PEERS.items()
    ]
    crcs = maskcube.open_masks(workload.store, chunks=None)["crc32c"].to_numpy()[:n_masks]
    for run in rounds(runs, repetitions):
        if run.wanted:
            _convert(run, workload.work, crcs)
    return {
        "name": f"convert-{layout}",
        "title": f"Convert {n_masks:,} of {workload.n_masks:,} masks, {_LAYOUTS[layout]}",
        "note": "A new process each time, its start and imports included. Peers write the masks; "
        "maskcube also checks the source, writes coordinates and checksums, reads every shard back "
        "and flushes it to the disk.",
        "rows": ranked([run.record() for run in runs]),
    }


def _whole(workload: Workload) -> Record:
    """Convert all masks of both layouts with maskcube, once."""
    crcs = maskcube.open_masks(workload.store, chunks=None)["crc32c"].to_numpy()
    folders = {"row": workload.row, "auto": workload.auto}
    runs = [_Run("maskcube", label, folders[layout]) for layout, label in _LAYOUTS.items()]
    for run in runs:
        _convert(run, workload.work, crcs)
    return {
        "name": "convert-all",
        "title": f"`maskcube.convert` of all {workload.n_masks:,} masks",
        "note": "",
        "rows": ranked([run.record() for run in runs]),
    }


def _convert(run: _Run, work: Path, crcs: np.ndarray[Any, Any]) -> None:
    """Convert once; compare the first time."""
    package = {"loop": "zarr", "floor": "cramjam"}.get(run.name, run.name)
    if run.python == sys.executable and find_spec(package) is None:
        run.status = f"not installed: {package}"
        return
    with tempfile.TemporaryDirectory(dir=work) as folder:
        target = Path(folder) / "masks.zarr"
        taken, error = _launch(run.python, [run.name, str(run.folder), str(target)])
        if taken["code"]:
            run.status = f"not possible: {error}"
            return
        if not run.taken and _KINDS.get(run.name) != "floor":
            run.agrees = _equal(target, crcs)
        run.taken.append(taken)
        shutil.rmtree(target, ignore_errors=True)


def _launch(python: str, arguments: list[str]) -> tuple[dict[str, Any], str]:
    """Return what the process took, and the last line of its errors."""
    path = str(Path(__file__).parents[1])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-I", "-S", "-c", _LAUNCHER, "-m", "benchmarks.converters", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "PYTHONPATH": path},
    )
    taken: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return taken, (done.stderr.strip().splitlines() or [""])[-1]


def _equal(target: Path, crcs: np.ndarray[Any, Any]) -> bool:
    """Whether zarr-python reads the pixels that have these checksums."""
    import zarr

    masks: Any = zarr.open_array(target / "masks", mode="r")
    if masks.shape[0] != len(crcs):
        return False
    found = [
        google_crc32c.value(np.ascontiguousarray(mask))
        for start in range(0, len(crcs), SHARD_MASKS)
        for mask in masks[start : start + SHARD_MASKS]
    ]
    return np.array_equal(found, crcs)
