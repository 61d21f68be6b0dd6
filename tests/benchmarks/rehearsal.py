"""Rehearsal: shards of other sizes, the model beside runs here, and what it predicts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import maskcube
from benchmarks import clusters, scaling
from benchmarks.bucket import Bucket, counted
from benchmarks.calibration import (
    MANY,
    SHARDS,
    USUAL,
    busy_factor,
    costs_of,
    figure,
    load_s,
    shards_of,
    tabled,
)
from benchmarks.contest import Record
from benchmarks.scaling import Costs, Place, Prediction, Spans
from benchmarks.workload import Workload

__all__ = ["measure"]

_LATENCIES_S = (0.0, 0.005, 0.02)
_PART_MASKS = 1024
_CLOUD_S = 0.1
"""Until a bucket answers: the less of what S3 documents for small objects."""


def measure(workload: Workload) -> Iterator[Record]:
    """Yield what things cost, what shards of other sizes do, the model's errors, its answers."""
    costs, record = costs_of(workload)
    yield record
    with Bucket() as bucket:
        entry_bytes = _uploaded(bucket, workload)
        costs = replace(costs, entry_bytes=entry_bytes)
        yield _shard_sizes(bucket, workload)
        works = _fixed(bucket, workload, _works(workload, costs))
        yield _compared(bucket, workload, works)
    yield from _predicted(works)


@dataclass(frozen=True)
class _Work:
    """Something that workers do, and what the model says of it."""

    name: str
    do: Callable[[Bucket, Workload, int, Any], Any]
    predict: Callable[[Spans, Costs, Place], Prediction]
    costs: Mapping[int, Costs]
    """By masks in a shard."""
    task_masks: int
    """Masks in a task, if they are more than a shard."""
    fewest_shards: int = 1
    """In a task, if there are so many."""

    def spans(self, n_masks: int, shard_masks: int) -> Spans:
        shards = max(self.fewest_shards, self.task_masks // shard_masks)
        return Spans(n_masks, shard_masks, shards)

    def prediction(
        self, n_masks: int, shard_masks: int, place: Place, busy: float = 1.0
    ) -> Prediction:
        costs = self.costs[shard_masks].on_busy_cores(busy)
        return self.predict(self.spans(n_masks, shard_masks), costs, place)


def _works(workload: Workload, costs: Costs) -> list[_Work]:
    def tasks(bucket: Bucket, _: Workload, shard_masks: int, client: Any) -> Any:
        return clusters.scan_tasks(bucket, _name(shard_masks), client)

    def parts(bucket: Bucket, _: Workload, shard_masks: int, client: Any) -> Any:
        return clusters.scan_parts(bucket, _name(shard_masks), client)

    # What a task reads whole takes new memory for each mask.
    loading = {n: replace(costs, decode_s=load_s(workload, n)) for n in SHARDS}
    usual = dict.fromkeys(SHARDS, costs)
    return [
        _Work("scan by dask chunks", tasks, scaling.scan, loading, 1),
        _Work("scan by `map_masks`", parts, scaling.scan, usual, _PART_MASKS),
        _Work("conversion", _convert, scaling.conversion, usual, 1, 4),
    ]


def _fixed(bucket: Bucket, workload: Workload, works: list[_Work]) -> list[_Work]:
    """Measure with 64 masks what does not depend on their number."""
    few = replace(workload, row=workload.subset("row", USUAL))
    _convert(bucket, few, USUAL, None)
    some = maskcube.open_masks(workload.store, chunks=None)[:1000]
    found = []
    for work in works:
        apart = []
        for latency_s in (0, 0.02):
            before = busy_factor(some)
            wall = _once(bucket, few, work, 1, USUAL, latency_s)
            busy, place = (before + busy_factor(some)) / 2, _place(bucket, 1, latency_s)
            apart.append(wall - work.prediction(USUAL, USUAL, place, busy).total_s)
        fixed = {
            "first_s": max(0.0, apart[0]) / busy,
            "rounds": max(0.0, (apart[1] - apart[0]) / 0.02),
        }
        costs = {size: replace(each, **fixed) for size, each in work.costs.items()}
        found.append(replace(work, costs=costs))
    _convert(bucket, workload, USUAL, None)
    return found


def _once(bucket: Bucket, workload: Workload, work: _Work, n_workers: int, *given: Any) -> float:
    """Return the seconds that it takes, with so many workers, masks in a shard, and latency."""
    shard_masks, latency_s = given
    do = partial(work.do, bucket, workload, shard_masks)
    run = clusters.Run(work.name, n_workers, do)
    run.once(bucket, latency_s)
    return run.times_s[0]


def _place(bucket: Bucket, n_workers: int, latency_s: float) -> Place:
    """Return this place, where the server and the proxy take some time too."""
    import obstore

    store = bucket.obstore(_name(USUAL))
    reads = [_timed(lambda: obstore.get(store, "zarr.json").bytes()) for _ in range(10)]
    data = bytes(75_000)
    writes = [_timed(lambda: obstore.put(store, "written", data)) for _ in range(10)]
    read_s, write_s = statistics.median(reads), statistics.median(writes)
    longer = max(0.0, write_s - read_s)
    return Place(n_workers=n_workers, latency_s=latency_s + read_s, write_s=longer)


def _timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _uploaded(bucket: Bucket, workload: Workload) -> float:
    """Convert onto the bucket with shards of each size; return the bytes of a mask's entry."""
    entry_bytes = 0.0
    for shard_masks in SHARDS:
        work = partial(_convert, bucket, workload, shard_masks, None)
        report, _, traffic = counted(bucket, work, 0)
        if shard_masks == USUAL:
            entry_bytes = (traffic.bytes_up - report.store_bytes) / workload.n_masks
    return entry_bytes


def _convert(bucket: Bucket, workload: Workload, shard_masks: int, client: Any) -> Any:
    with shards_of(shard_masks):
        return maskcube.convert(
            workload.row,
            bucket.url(_name(shard_masks)),
            overwrite=True,
            client=client,
            workers=None if client is None else 1,
            progress=False,
            storage_options=bucket.options,
        )


def _name(shard_masks: int) -> str:
    return f"shards-of-{shard_masks}.zarr"


def _shard_sizes(bucket: Bucket, workload: Workload) -> Record:
    rows = []
    image, noun, label = workload.images[0], workload.noun, workload.labels[0]
    one = dict(zip(("image", "noun", "instance"), label, strict=True))
    questions: dict[str, dict[str, Any]] = {
        "one mask": one,
        "an image": {"image": image},
        "a noun": {"noun": noun},
    }
    for name, asked in questions.items():
        for shard_masks in SHARDS:
            found = [_selected(bucket, shard_masks, asked) for _ in range(5)]
            traffic = found[0][1]
            wall = statistics.median(wall for wall, _ in found)
            rows.append(_size_row(name, shard_masks, wall, traffic))
    for shard_masks in SHARDS:
        work = partial(clusters.scan_tasks, bucket, _name(shard_masks))
        run = clusters.Run("scan", 1, work)
        run.once(bucket)
        row = _size_row("scan, 1 worker", shard_masks, run.times_s[0], run.traffic)
        rows.append({**row, "peak_bytes": run.peaks[0]})
    return tabled(
        "scaling-shards",
        f"Shards of other sizes, {workload.n_masks:,} masks, 20 ms added to each request",
        rows,
    )


def _selected(bucket: Bucket, shard_masks: int, asked: dict[str, Any]) -> tuple[float, Any]:
    masks = maskcube.open_masks(
        bucket.url(_name(shard_masks)), chunks=None, storage_options=bucket.options
    )
    _, wall, traffic = counted(bucket, lambda: masks.sel(asked).to_numpy())
    return wall, traffic


def _size_row(name: str, shard_masks: int, wall: float, traffic: Any) -> Record:
    return {
        **figure(f"{name}, {shard_masks:,} masks a shard", wall),
        "n_requests": traffic.n_requests,
        "bytes_down": traffic.bytes_down,
    }


def _compared(bucket: Bucket, workload: Workload, works: list[_Work]) -> Record:
    """Run what the model predicts, with all but one of the parameters as usual."""
    grid = [(n, USUAL, latency) for latency in _LATENCIES_S for n in (1, 2)]
    grid += [(1, size, 0.02) for size in SHARDS if size != USUAL]
    some = maskcube.open_masks(workload.store, chunks=None)[:1000]
    rows = []
    for n_workers, shard_masks, latency_s in grid:
        place = _place(bucket, n_workers, latency_s)
        name = f"{n_workers} x 1 thread, {shard_masks:,} masks a shard, {latency_s * 1e3:.0f} ms"
        for work in works:
            before = busy_factor(some)
            wall = _once(bucket, workload, work, n_workers, shard_masks, latency_s)
            busy = (before + busy_factor(some)) / 2
            predicted = work.prediction(workload.n_masks, shard_masks, place, busy)
            rows.append(_compared_row(f"{work.name}, {name}", wall, predicted))
    return tabled("scaling-checked", "Measured once, and predicted", rows)


def _compared_row(name: str, measured: float, predicted: Prediction) -> Record:
    total = predicted.total_s
    return {**figure(name, measured), "predicted_s": total, "off": total / measured - 1}


def _predicted(works: list[_Work]) -> Iterator[Record]:
    for n_masks in (24_011, MANY):
        costs = works[0].costs[USUAL]
        place = Place(latency_s=_CLOUD_S)
        rows = [_prediction_row("open", scaling.opening(Spans(n_masks), costs, place))]
        for n_workers in (1, 10, 100, 1000):
            there = replace(place, n_workers=n_workers)
            rows += [
                _prediction_row(
                    f"{work.name}, {n_workers:,} workers", work.prediction(n_masks, USUAL, there)
                )
                for work in works
            ]
        title = f"Predicted for {n_masks:,} masks, requests of {_CLOUD_S * 1e3:.0f} ms"
        yield tabled(f"scaling-{n_masks}", title, rows)


def _prediction_row(name: str, predicted: Prediction) -> Record:
    parts = {**predicted.parts_s, **predicted.limits_s}
    return {
        **figure(name),
        "predicted_s": predicted.total_s,
        "limit": predicted.limit,
        "parts": ", ".join(f"{key} {value:.2f}" for key, value in parts.items()),
    }
