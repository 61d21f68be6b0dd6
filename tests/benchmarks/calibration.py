"""Calibration: what the model needs to know, measured here, and how far it is from runs here."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

import maskcube
from benchmarks import clusters, scaling
from benchmarks.bucket import Bucket, counted
from benchmarks.contest import Record
from benchmarks.scaling import Costs, Place, Prediction, Spans
from benchmarks.synthetic import put_store
from benchmarks.workload import Workload
from maskcube.commit import commit
from maskcube.conversion import write_shards
from maskcube.layout import Layout
from maskcube.schema import INDEXED

__all__ = ["measure"]

_SHARDS = (16, 64, 256, 1024)
"""Masks in a shard, to compare."""
_MANY = 1_000_000
_LATENCIES_S = (0.0, 0.005, 0.02)
_USUAL = 64
_PART_MASKS = 1024
_CLOUD_S = 0.03
"""Until a bucket in the same region answers: what users of S3 see for small objects."""


def measure(workload: Workload) -> Iterator[Record]:
    """Yield what things cost, what shards of other sizes do, the model's errors, its answers."""
    costs, record = _costs(workload)
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
    loading = {n: replace(costs, decode_s=_load_s(workload, n)) for n in _SHARDS}
    usual = dict.fromkeys(_SHARDS, costs)
    return [
        _Work("scan by dask chunks", tasks, scaling.scan, loading, 1),
        _Work("scan by `map_masks`", parts, scaling.scan, usual, _PART_MASKS),
        _Work("conversion", _convert, scaling.conversion, usual, 1, 4),
    ]


def _load_s(workload: Workload, n_masks: int) -> float:
    """Return the seconds of a mask where so many are read, and then counted."""
    reader: Any = maskcube.open_masks(workload.store).data
    rows = np.arange(min(n_masks, workload.n_masks))
    read = partial(reader.reader.read, rows, workers=1)
    return min(_cpu_s(lambda: clusters.count_block(read())) for _ in range(3)) / len(rows)


def _fixed(bucket: Bucket, workload: Workload, works: list[_Work]) -> list[_Work]:
    """Measure with 64 masks what does not depend on their number."""
    few = replace(workload, row=workload.subset("row", _USUAL))
    _convert(bucket, few, _USUAL, None)
    some = maskcube.open_masks(workload.store, chunks=None)[:1000]
    found = []
    for work in works:
        apart = []
        for latency_s in (0, 0.02):
            before = _busy(some)
            wall = _once(bucket, few, work, 1, _USUAL, latency_s)
            busy, place = (before + _busy(some)) / 2, _place(bucket, 1, latency_s)
            apart.append(wall - work.prediction(_USUAL, _USUAL, place, busy).total_s)
        fixed = {
            "first_s": max(0.0, apart[0]) / busy,
            "rounds": max(0.0, (apart[1] - apart[0]) / 0.02),
        }
        costs = {size: replace(each, **fixed) for size, each in work.costs.items()}
        found.append(replace(work, costs=costs))
    _convert(bucket, workload, _USUAL, None)
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

    store = bucket.obstore(_name(_USUAL))
    reads = [_timed(lambda: obstore.get(store, "zarr.json").bytes()) for _ in range(10)]
    data = bytes(75_000)
    writes = [_timed(lambda: obstore.put(store, "written", data)) for _ in range(10)]
    read_s, write_s = statistics.median(reads), statistics.median(writes)
    longer = max(0.0, write_s - read_s)
    return Place(n_workers=n_workers, latency_s=latency_s + read_s, write_s=longer)


@contextmanager
def shards_of(n_masks: int) -> Iterator[None]:
    """Have stores converted with so many masks in a shard."""
    with patch("maskcube.hdf5.Layout", partial(Layout, shard_masks=n_masks)):
        yield


def _costs(workload: Workload) -> tuple[Costs, Record]:
    """Measure in this process, with one thread, and memory in the place of a bucket."""
    n_masks = workload.n_masks
    _phases(workload, _USUAL)  # imports
    check_s, encode_s, commit_s = _least(workload, _USUAL)
    commit_of_small_s = _least(workload, _SHARDS[0])[-1]
    more_shards = Spans(n_masks, _SHARDS[0]).n_shards - Spans(n_masks, _USUAL).n_shards
    commit_shard_s = max(0.0, (commit_of_small_s - commit_s) / more_shards)
    commit_s = max(0.0, commit_s - commit_shard_s * Spans(n_masks, _USUAL).n_shards)

    masks = maskcube.open_masks(workload.store, chunks=None)
    counts = partial(maskcube.map_masks, _count, masks, workers=1)
    decode_s = min(_cpu_s(counts) for _ in range(3)) / n_masks
    block = json.loads((workload.store / "zarr.json").read_bytes())["attributes"]["maskcube"]
    big, small = (put_store(workload.store, n, _USUAL) for n in (_MANY, _USUAL))
    root_bytes = (big.root_bytes - small.root_bytes) / Spans(_MANY).n_shards
    open_s = min(_cpu_s(big.open) for _ in range(3))
    parse_s = min(_cpu_s(big.parse) for _ in range(3))
    tasks_s = {n: _task_s(n) for n in (10_000, 30_000)}
    # The same labels again and again would take less than others do.
    sizes = {name: size / n_masks for name, (size, _) in block["coordinates"].items()}
    costs = Costs(
        task_s=tasks_s[10_000],
        decode_s=decode_s,
        encode_s=encode_s / n_masks,
        mask_bytes=sum(size for size, _ in block["shards"]) / n_masks,
        entry_bytes=0,
        step_bytes=sum(size for size, _ in block["runs"]["steps"]) / n_masks,
        column_bytes=sum(sizes.values()),
        label_bytes=sum(sizes[name] for name in INDEXED),
        root_bytes=root_bytes,
        fixed_root_bytes=small.root_bytes - root_bytes,
        root_s=parse_s / Spans(_MANY).n_shards,
        label_s=max(0.0, open_s - parse_s) / _MANY,
        check_s=check_s / n_masks,
        commit_s=commit_s / n_masks,
        commit_shard_s=commit_shard_s,
    )
    rows = [
        *[_figure(f"scheduler, of {n:,} tasks, each", each) for n, each in tasks_s.items()],
        _figure("decode and count a mask", decode_s),
        _figure("inflate, check, encode a mask", costs.encode_s),
        _figure("check the source, a mask", costs.check_s),
        _figure("commit, a mask", costs.commit_s),
        _figure("commit, a shard", costs.commit_shard_s),
        _figure("parse the root of 1,000,000 masks", parse_s),
        _figure("open 1,000,000 masks, in memory", open_s),
        _figure("the root of 1,000,000 masks", n_bytes=big.root_bytes),
        _figure("all coordinates of a mask", n_bytes=round(costs.column_bytes)),
        _figure("image, noun and instance of a mask", n_bytes=round(costs.label_bytes)),
        _figure("the pickled graph of 1,000,000 masks", n_bytes=big.graph_bytes()),
        _figure("an encoded mask", n_bytes=round(costs.mask_bytes)),
        _figure("the runs of a mask", n_bytes=round(costs.step_bytes)),
    ]
    return costs, _table(
        "scaling-costs", "What one of each takes, of a core that nobody else uses", rows
    )


def _least(workload: Workload, shard_masks: int) -> tuple[float, float, float]:
    """Return the least seconds of each phase: a noisy moment of the machine is no cost."""
    check, encode, commit = zip(*(_phases(workload, shard_masks) for _ in range(3)), strict=True)
    return min(check), min(encode), min(commit)


def _phases(workload: Workload, shard_masks: int) -> tuple[float, float, float]:
    """Return the seconds of a conversion until it writes, while it writes, and after that."""
    found: dict[str, tuple[float, float]] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            answer = function(*given, **named)
            found[name] = start, time.process_time()
            return answer

        return called

    start = time.process_time()
    with (
        shards_of(shard_masks),
        patch("maskcube.conversion.write_shards", timed("write", write_shards)),
        patch("maskcube.conversion.commit", timed("commit", commit)),
    ):
        url = f"memory://phases-{shard_masks}-{time.monotonic_ns()}"
        maskcube.convert(workload.row, url, workers=1, progress=False)
    end = time.process_time()
    return found["write"][0] - start, found["write"][1] - found["write"][0], end - found["write"][1]


def _task_s(n_tasks: int = 10_000) -> float:
    """Return the seconds that the scheduler and the client take for a task that does nothing."""
    with clusters.workers(2) as client:
        client.gather(client.map(_nothing, range(100), pure=False))
        # The scheduler is in this process, the workers are not.
        return (
            _cpu_s(lambda: client.gather(client.map(_nothing, range(n_tasks), pure=False)))
            / n_tasks
        )


def _nothing(_: int) -> int:
    return 0


def _count(mask: np.ndarray[Any, Any]) -> int:
    return int(np.count_nonzero(mask.view(np.bool_)))


def _timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _cpu_s(function: Callable[[], Any]) -> float:
    """Return the seconds that a core computed: those of a core that nobody else uses."""
    start = time.process_time()
    function()
    return time.process_time() - start


def _busy(masks: Any) -> float:
    """Return how many times as long computing takes now, as others use the cores too."""
    start, computed = time.perf_counter(), time.process_time()
    maskcube.map_masks(_count, masks, workers=1)
    return max(1.0, (time.perf_counter() - start) / (time.process_time() - computed))


def _uploaded(bucket: Bucket, workload: Workload) -> float:
    """Convert onto the bucket with shards of each size; return the bytes of a mask's entry."""
    entry_bytes = 0.0
    for shard_masks in _SHARDS:
        work = partial(_convert, bucket, workload, shard_masks, None)
        report, _, traffic = counted(bucket, work, 0)
        if shard_masks == _USUAL:
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
        for shard_masks in _SHARDS:
            found = [_selected(bucket, shard_masks, asked) for _ in range(5)]
            traffic = found[0][1]
            wall = statistics.median(wall for wall, _ in found)
            rows.append(_size_row(name, shard_masks, wall, traffic))
    for shard_masks in _SHARDS:
        work = partial(clusters.scan_tasks, bucket, _name(shard_masks))
        run = clusters.Run("scan", 1, work)
        run.once(bucket)
        row = _size_row("scan, 1 worker", shard_masks, run.times_s[0], run.traffic)
        rows.append({**row, "peak_bytes": run.peaks[0]})
    return _table(
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
        **_figure(f"{name}, {shard_masks:,} masks a shard", wall),
        "n_requests": traffic.n_requests,
        "bytes_down": traffic.bytes_down,
    }


def _compared(bucket: Bucket, workload: Workload, works: list[_Work]) -> Record:
    """Run what the model predicts, with all but one of the parameters as usual."""
    grid = [(n, _USUAL, latency) for n in (1, 2) for latency in _LATENCIES_S]
    grid += [(1, size, 0.02) for size in _SHARDS if size != _USUAL]
    some = maskcube.open_masks(workload.store, chunks=None)[:1000]
    rows = []
    for n_workers, shard_masks, latency_s in grid:
        place = _place(bucket, n_workers, latency_s)
        name = f"{n_workers} x 1 thread, {shard_masks:,} masks a shard, {latency_s * 1e3:.0f} ms"
        for work in works:
            before = _busy(some)
            wall = _once(bucket, workload, work, n_workers, shard_masks, latency_s)
            busy = (before + _busy(some)) / 2
            predicted = work.prediction(workload.n_masks, shard_masks, place, busy)
            rows.append(_compared_row(f"{work.name}, {name}", wall, predicted))
    return _table("scaling-checked", "Measured once, and predicted", rows)


def _compared_row(name: str, measured: float, predicted: Prediction) -> Record:
    total = predicted.total_s
    return {**_figure(name, measured), "predicted_s": total, "off": total / measured - 1}


def _predicted(works: list[_Work]) -> Iterator[Record]:
    for n_masks in (24_011, _MANY):
        costs = works[0].costs[_USUAL]
        place = Place(latency_s=_CLOUD_S)
        rows = [_prediction_row("open", scaling.opening(Spans(n_masks), costs, place))]
        for n_workers in (1, 10, 100, 1000):
            there = replace(place, n_workers=n_workers)
            rows += [
                _prediction_row(
                    f"{work.name}, {n_workers:,} workers", work.prediction(n_masks, _USUAL, there)
                )
                for work in works
            ]
        title = f"Predicted for {n_masks:,} masks, requests of {_CLOUD_S * 1e3:.0f} ms"
        yield _table(f"scaling-{n_masks}", title, rows)


def _prediction_row(name: str, predicted: Prediction) -> Record:
    parts = {**predicted.parts_s, **predicted.limits_s}
    return {
        **_figure(name),
        "predicted_s": predicted.total_s,
        "limit": predicted.limit,
        "parts": ", ".join(f"{key} {value:.2f}" for key, value in parts.items()),
    }


def _figure(name: str, seconds: float | None = None, n_bytes: int | None = None) -> Record:
    return {
        "peer": name,
        "kind": "figure",
        "status": "ok",
        "agrees": None,
        "median_s": seconds,
        "bytes": n_bytes,
    }


def _table(name: str, title: str, rows: list[Record]) -> Record:
    return {"name": name, "title": title, "note": "", "rows": rows}
