"""Clusters: a scan of the bucket's store, and a conversion onto the bucket, by dask's workers."""

from __future__ import annotations

import importlib
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import maskcube
from benchmarks.bucket import LATENCY_S, Bucket, Traffic, counted
from benchmarks.contest import Record, ranked, rounds
from benchmarks.remote import STORE
from benchmarks.workload import Workload

__all__ = ["Run", "count_block", "measure", "peak_bytes", "scan_parts", "scan_tasks", "workers"]

_PART_MASKS = 1024
"""Masks that a task of `map_masks` counts: shards of so many are fetched together."""

_numbers = itertools.count()


@dataclass
class Run:
    """Something that is done with so many workers, and what it took each time.

    Parameters
    ----------
    name : str
        As the table shows it.
    n_workers : int
        Processes of one thread; 0 for this process alone, with its threads.
    work : callable
        Takes a client or None; returns an answer.
    """

    name: str
    n_workers: int
    work: Callable[[Any], Any]
    agrees: bool | None = None
    times_s: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    traffic: Traffic | None = None

    def once(self, bucket: Bucket, latency_s: float = LATENCY_S) -> Any:
        """Do it once, by workers that are new and have imported what they need."""
        with workers(self.n_workers) as client:
            work = partial(self.work, client)
            answer, wall, self.traffic = counted(bucket, work, latency_s)
            self.times_s.append(wall)
            if client is not None:
                self.peaks.append(max(map(peak_bytes, client.run(_pid).values())))
        return answer

    def record(self, n_masks: int) -> Record:
        """Return the row of a table."""
        median = statistics.median(self.times_s)
        found = self.traffic
        return {
            "peer": self.name,
            "kind": "ours",
            "status": "ok",
            "agrees": self.agrees,
            "n_questions": 1,
            "n_requests": found and found.n_requests,
            "bytes_down": found and found.bytes_down,
            "bytes_up": found and found.bytes_up,
            "times_s": self.times_s,
            "median_s": median,
            "masks_a_second": n_masks / median,
            "peak_bytes": max(self.peaks) if self.peaks else None,
        }


def measure(bucket: Bucket, workload: Workload, repetitions: int) -> Iterator[Record]:
    """Yield the records of the scan and of the conversion."""
    areas = maskcube.open_masks(workload.store, chunks=None)["area"].to_numpy()
    crcs = maskcube.open_masks(workload.store, chunks=None)["crc32c"].to_numpy()
    scans = [Run("`map_masks`, no cluster, all cores", 0, partial(scan_parts, bucket, STORE))]
    for name, work in (("dask chunks, a shard a task", scan_tasks), ("`map_masks`", scan_parts)):
        scans += [Run(f"{name}, {_workers(n)}", n, partial(work, bucket, STORE)) for n in (1, 2)]
    note = (
        f"{LATENCY_S * 1000:.0f} ms added to each request. Each time with new workers of one thread"
        " each, which have imported what they need; the peak is of one worker, read from outside."
    )
    yield {
        "name": "cloud-scan",
        "title": "Count every pixel of the store",
        "note": note,
        "rows": _rows(scans, areas, bucket, repetitions),
    }
    writes = [
        Run(
            f"`convert`, {_workers(n) if n else 'no cluster, all cores'}",
            n,
            partial(_converted, bucket, workload.row),
        )
        for n in (0, 1, 2)
    ]
    yield {
        "name": "cloud-convert",
        "title": "Convert onto the bucket",
        "note": note,
        "rows": _rows(writes, crcs, bucket, repetitions),
    }


def _workers(n_workers: int) -> str:
    return "1 worker" if n_workers == 1 else f"{n_workers} workers"


def _rows(
    runs: list[Run], expected: np.ndarray[Any, Any], bucket: Bucket, repetitions: int
) -> list[Record]:
    for run in rounds(runs, repetitions):
        answer = run.once(bucket)
        run.agrees = run.agrees is not False and np.array_equal(answer, expected)
    return ranked([run.record(len(expected)) for run in runs])


@contextmanager
def workers(n_workers: int) -> Iterator[Any]:
    """Yield a client of so many new workers on loopback; None for none."""
    if not n_workers:
        yield None
        return
    from distributed import Client, LocalCluster

    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        # Workers complain of the scheduler when both end.
        "silence_logs": logging.CRITICAL,
    }
    with (
        LocalCluster(n_workers=n_workers, threads_per_worker=1, processes=True, **options) as made,
        Client(made) as client,
    ):
        client.run(_imported)
        yield client


def _imported() -> None:
    for name in ("obstore", "maskcube.conversion", "maskcube.scan"):
        importlib.import_module(name)


def _pid() -> int:
    import os

    return os.getpid()


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has taken; now, where nobody keeps the most."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    return int(psutil.Process(pid).memory_info().rss)


def _count(mask: np.ndarray[Any, Any]) -> int:
    return int(np.count_nonzero(mask.view(np.bool_)))


def count_block(masks: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count the pixels of each mask, (mask, 1, 1)."""
    return np.array([_count(mask) for mask in masks], np.int64).reshape(-1, 1, 1)


def scan_tasks(bucket: Bucket, store: str, client: Any) -> np.ndarray[Any, Any]:
    """Count by the tasks that dask makes of the lazy array, a shard each."""
    assert client is not None
    masks = maskcube.open_masks(bucket.url(store), storage_options=bucket.options).data
    counts = masks.map_blocks(count_block, dtype=np.int64, chunks=(masks.chunks[0], (1,), (1,)))
    return np.asarray(counts.compute())[:, 0, 0]


def scan_parts(bucket: Bucket, store: str, client: Any) -> np.ndarray[Any, Any]:
    """Count with `map_masks`, here, or some parts on each worker."""
    masks = maskcube.open_masks(bucket.url(store), chunks=None, storage_options=bucket.options)
    if client is None:
        return maskcube.map_masks(_count, masks).to_numpy()
    starts = range(0, masks.sizes["mask"], _PART_MASKS)
    parts = [masks[start : start + _PART_MASKS].drop_vars(masks.coords) for start in starts]
    return np.concatenate(client.gather(client.map(_count_part, parts, pure=False)))


def _count_part(masks: Any) -> np.ndarray[Any, Any]:
    return maskcube.map_masks(_count, masks, workers=1).to_numpy()


def _converted(bucket: Bucket, source: Path, client: Any) -> np.ndarray[Any, Any]:
    url = bucket.url(f"again-{next(_numbers)}-{time.monotonic_ns()}.zarr")
    options = bucket.options
    maskcube.convert(
        source,
        url,
        client=client,
        workers=None if client is None else 1,
        progress=False,
        storage_options=options,
    )
    return maskcube.open_masks(url, chunks=None, storage_options=options)["crc32c"].to_numpy()
