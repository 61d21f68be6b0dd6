"""Cloud: requests, bytes and time of the same questions to a bucket that is 20 ms away."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks import clusters
from benchmarks.bucket import LATENCY_S, Bucket, Traffic, counted
from benchmarks.contest import BUDGET_S, Ask, NotPossible, Record, ranked, rounds
from benchmarks.folder import SHARD_MASKS, csv_path, hdf5_path
from benchmarks.remote import CSV, HDF5, STORE, Hdf5, Obstore, Ours, Reader, S3fs, TensorStore
from benchmarks.workload import Label, Workload

__all__ = ["measure"]

_MEBIBYTE = 2**20
_NOTE = (
    f"SeaweedFS on loopback, {LATENCY_S * 1000:.0f} ms added to each request; every reader is"
    " opened anew each time, and then asked once."
)

Open = Callable[[], Reader]


@dataclass(frozen=True)
class _Question:
    """What is asked, and what has happened before without being counted."""

    name: str
    title: str
    prepare: Callable[[Open], Ask]
    note: str = ""


@dataclass
class _Entrant:
    name: str
    open: Open
    kind: str = "peer"
    status: str = "ok"
    agrees: bool | None = None
    times_s: list[float] = field(default_factory=list)
    traffic: Traffic | None = None

    @property
    def wanted(self) -> bool:
        return self.status == "ok" and sum(self.times_s) < BUDGET_S

    def record(self) -> Record:
        found = self.traffic
        return {
            "peer": self.name,
            "kind": self.kind,
            "status": self.status,
            "agrees": self.agrees,
            "n_questions": 1,
            "n_requests": found and found.n_requests,
            "bytes_down": found and found.bytes_down,
            "times_s": self.times_s,
            "median_s": statistics.median(self.times_s) if self.times_s else None,
        }


def measure(workload: Workload, repetitions: int) -> Iterator[Record]:
    """Yield a record for each question, then those of the clusters."""
    # s3fs closes its connections in the wrong event loop, and says so at length each time.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with Bucket() as bucket:
        bucket.upload(workload.store, STORE)
        bucket.upload(hdf5_path(workload.row), HDF5)
        bucket.upload(csv_path(workload.row), CSV)
        for question in _questions(workload):
            yield _asked(question, _entrants(bucket, workload), bucket, repetitions)
        yield from clusters.measure(bucket, workload, min(repetitions, 3))


def _entrants(bucket: Bucket, workload: Workload) -> list[_Entrant]:
    block = {"cache_type": "blockcache", "block_size": _MEBIBYTE}
    return [
        _Entrant("maskcube", partial(Ours, bucket), "ours"),
        _Entrant("`xr.open_zarr`, s3fs", partial(S3fs, bucket)),
        _Entrant("`xr.open_zarr`, obstore", partial(Obstore, bucket)),
        _Entrant("h5py and pandas, s3fs", partial(Hdf5, bucket)),
        _Entrant("h5py and pandas, s3fs, 1 MiB blocks", partial(Hdf5, bucket, **block)),
        _Entrant("TensorStore, given the rows", partial(TensorStore, bucket, workload)),
    ]


def _questions(workload: Workload) -> list[_Question]:
    image, noun = workload.images[0], workload.noun
    n_image, n_noun = (len(workload.rows_of(*it)) for it in (("image_name", image), ("noun", noun)))
    first, beside, apart = _three(workload)
    return [
        _Question("cloud-open", "Open, and find the rows of one image", partial(_open, image)),
        _Question("cloud-cold", "One mask, the first one", partial(_mask, first, None)),
        _Question(
            "cloud-beside", "One mask, after one of its shard", partial(_mask, beside, first)
        ),
        _Question(
            "cloud-apart", "One mask, after one of another shard", partial(_mask, apart, first)
        ),
        _Question(
            "cloud-image",
            f"All {n_image} masks of one image, together in the store",
            partial(_masks, "image", image),
        ),
        _Question(
            "cloud-noun",
            f"All {n_noun} masks of one noun, scattered over the store",
            partial(_masks, "noun", noun),
        ),
        _Question(
            "cloud-columns",
            "Open, and load everything that is known of the masks",
            _columns,
            " The CSV has neither areas nor checksums.",
        ),
    ]


def _three(workload: Workload) -> list[Label]:
    """Return the labels of a mask, of one in the same shard, and of one in another shard."""
    table = workload.table
    middle = workload.n_masks // 2 // SHARD_MASKS * SHARD_MASKS
    columns = ["image_name", "noun", "instance_id"]
    last = workload.n_masks - 1
    rows = [middle, min(middle + 9, last), 0 if middle else last]
    return [*table.loc[rows, columns].itertuples(index=False, name=None)]


def _open(image: str, opened: Open) -> Ask:
    return lambda _: opened().rows("image", image)


def _mask(label: Label, before: Label | None, opened: Open) -> Ask:
    reader = opened()
    if before is not None:
        reader.mask(before)
    return lambda _: reader.mask(label)


def _masks(column: str, label: str, opened: Open) -> Ask:
    reader = opened()
    return lambda _: reader.masks(column, label)


def _columns(opened: Open) -> Ask:
    return lambda _: opened().columns()


def _asked(
    question: _Question, entrants: list[_Entrant], bucket: Bucket, repetitions: int
) -> Record:
    """Ask everybody in turn; the first round, which imports and is compared, is not timed."""
    expected = None
    for entrant in entrants:
        answer = _once(question, entrant, bucket)
        if entrant.status == "ok":
            expected = answer if expected is None else expected
            entrant.agrees = _same(answer, expected)
        entrant.times_s.clear()
    for entrant in rounds(entrants, repetitions):
        if entrant.wanted:
            _once(question, entrant, bucket)
    return {
        "name": question.name,
        "title": question.title,
        "note": f"{_NOTE}{question.note}",
        "rows": ranked([entrant.record() for entrant in entrants]),
    }


def _once(question: _Question, entrant: _Entrant, bucket: Bucket) -> Any:
    try:
        ask = question.prepare(entrant.open)
        answer, wall, traffic = counted(bucket, lambda: ask(None))
    except ModuleNotFoundError as error:
        entrant.status = f"not installed: {error.name}"
    except NotPossible as error:
        entrant.status = f"not possible: {error}"
    else:
        entrant.times_s.append(wall)
        entrant.traffic = traffic
        return answer
    return None


def _same(answer: Any, expected: Any) -> bool:
    if not isinstance(answer, dict):
        return np.array_equal(answer, expected)
    both = answer.keys() & expected.keys()
    return len(both) > 10 and all(_equal(answer[name], expected[name]) for name in both)


def _equal(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    return np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")
