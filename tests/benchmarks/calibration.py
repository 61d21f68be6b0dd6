"""Calibration: what the model needs to know, measured here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

import maskcube
from benchmarks import clusters
from benchmarks.contest import Record
from benchmarks.scaling import Costs, Spans
from benchmarks.synthetic import put_store
from benchmarks.workload import Workload
from maskcube.commit import commit
from maskcube.conversion import write_shards
from maskcube.layout import Layout
from maskcube.schema import INDEXED

__all__ = [
    "MANY",
    "SHARDS",
    "USUAL",
    "busy_factor",
    "costs_of",
    "figure",
    "load_s",
    "shards_of",
    "tabled",
]

SHARDS = (16, 64, 256, 1024)
"""Masks in a shard, to compare."""
USUAL = 64
MANY = 1_000_000


def costs_of(workload: Workload) -> tuple[Costs, Record]:
    """Measure in this process, with one thread, and memory in the place of a bucket."""
    n_masks = workload.n_masks
    _phases(workload, USUAL)  # imports
    check_s, encode_s, commit_s = _least(workload, USUAL)
    commit_of_small_s = _least(workload, SHARDS[0])[-1]
    more_shards = Spans(n_masks, SHARDS[0]).n_shards - Spans(n_masks, USUAL).n_shards
    commit_shard_s = max(0.0, (commit_of_small_s - commit_s) / more_shards)
    commit_s = max(0.0, commit_s - commit_shard_s * Spans(n_masks, USUAL).n_shards)

    masks = maskcube.open_masks(workload.store, chunks=None)
    counts = partial(maskcube.map_masks, _count, masks, workers=1)
    decode_s = min(_cpu_s(counts) for _ in range(3)) / n_masks
    block = json.loads((workload.store / "zarr.json").read_bytes())["attributes"]["maskcube"]
    big, small = (put_store(workload.store, n, USUAL) for n in (MANY, USUAL))
    root_bytes = (big.root_bytes - small.root_bytes) / Spans(MANY).n_shards
    open_s = min(_cpu_s(big.open) for _ in range(3))
    parse_s = min(_cpu_s(big.parse) for _ in range(3))
    tasks_s = {n: _task_s(n) for n in (1_000, 10_000)}
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
        root_s=parse_s / Spans(MANY).n_shards,
        label_s=max(0.0, open_s - parse_s) / MANY,
        check_s=check_s / n_masks,
        commit_s=commit_s / n_masks,
        commit_shard_s=commit_shard_s,
    )
    rows = [
        *[figure(f"scheduler, of {n:,} tasks, each", each) for n, each in tasks_s.items()],
        figure("decode and count a mask", decode_s),
        figure("inflate, check, encode a mask", costs.encode_s),
        figure("check the source, a mask", costs.check_s),
        figure("commit, a mask", costs.commit_s),
        figure("commit, a shard", costs.commit_shard_s),
        figure("parse the root of 1,000,000 masks", parse_s),
        figure("open 1,000,000 masks, in memory", open_s),
        figure("the root of 1,000,000 masks", n_bytes=big.root_bytes),
        figure("all coordinates of a mask", n_bytes=round(costs.column_bytes)),
        figure("image, noun and instance of a mask", n_bytes=round(costs.label_bytes)),
        figure("the pickled graph of 1,000,000 masks", n_bytes=big.graph_bytes()),
        figure("an encoded mask", n_bytes=round(costs.mask_bytes)),
        figure("the runs of a mask", n_bytes=round(costs.step_bytes)),
    ]
    return costs, tabled(
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


def load_s(workload: Workload, n_masks: int) -> float:
    """Return the seconds of a mask where so many are read, and then counted."""
    reader: Any = maskcube.open_masks(workload.store).data
    rows = np.arange(min(n_masks, workload.n_masks))
    read = partial(reader.reader.read, rows, workers=1)
    return min(_cpu_s(lambda: clusters.count_block(read())) for _ in range(3)) / len(rows)


@contextmanager
def shards_of(n_masks: int) -> Iterator[None]:
    """Have stores converted with so many masks in a shard."""
    with patch("maskcube.hdf5.Layout", partial(Layout, shard_masks=n_masks)):
        yield


def busy_factor(masks: Any) -> float:
    """Return how many times as long computing takes now, as others use the cores too."""
    start, computed = time.perf_counter(), time.process_time()
    maskcube.map_masks(_count, masks, workers=1)
    return max(1.0, (time.perf_counter() - start) / (time.process_time() - computed))


def _cpu_s(function: Callable[[], Any]) -> float:
    """Return the seconds that a core computed: those of a core that nobody else uses."""
    start = time.process_time()
    function()
    return time.process_time() - start


def _count(mask: np.ndarray[Any, Any]) -> int:
    return int(np.count_nonzero(mask.view(np.bool_)))


def figure(name: str, seconds: float | None = None, n_bytes: int | None = None) -> Record:
    """Return a row of a table."""
    return {
        "peer": name,
        "kind": "figure",
        "status": "ok",
        "agrees": None,
        "median_s": seconds,
        "bytes": n_bytes,
    }


def tabled(name: str, title: str, rows: list[Record]) -> Record:
    """Return a table."""
    return {"name": name, "title": title, "note": "", "rows": rows}
