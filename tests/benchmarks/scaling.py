"""The model: what so many workers and masks take, step by step, from what one of each takes here.

A simulation of events, because its parts wait for one another in turn. The scheduler hands out one
task after the other. A worker reads or writes its shards, each request waiting for the bucket's
leave, for the answer, and for its bytes; then it computes. What one process does before and after,
reading the source and committing, is added as it is: nothing runs beside it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

__all__ = [
    "Costs",
    "Place",
    "Prediction",
    "Spans",
    "conversion",
    "opening",
    "scan",
    "tasks_in_turn",
]

_HEAD_BYTES = 2**17
"""Of the packed coordinates, asked for together with the root."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where it runs.

    Examples
    --------
    >>> Place(n_workers=2, latency_s=0.02).answer_s(1_000_000)
    0.03
    """

    n_workers: int = 1
    latency_s: float = 0.02
    """Of a request, until its answer begins."""
    write_s: float = 0.0
    """What a request that writes takes longer."""
    bandwidth: float = 100e6
    """Bytes a second of each worker, and of the process that asks them."""
    gets_a_second: float = 5500
    """What the bucket answers for one prefix."""
    puts_a_second: float = 3500
    max_concurrency: int = 16
    """Requests of a process at once."""

    def answer_s(self, n_bytes: float) -> float:
        """Return the seconds from a question to the end of its answer."""
        return self.latency_s + n_bytes / self.bandwidth

    def side_by_side(self, n_requests: float, n_bytes: float, a_second: float) -> float:
        """Return the seconds of many requests by one process, as many at once as it may."""
        in_turn = math.ceil(n_requests / self.max_concurrency) * self.latency_s
        return max(in_turn, n_bytes / self.bandwidth, n_requests / a_second)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one mask, one shard and one task cost."""

    task_s: float
    """Of the scheduler and the client, for each task."""
    start_s: float = 0.0
    """Of a worker, for each task, besides its masks."""
    decode_s: float
    """Of a mask: check, decode, and look at each pixel."""
    encode_s: float
    """Of a mask: inflate, check, find the runs, encode."""
    mask_bytes: float
    """Encoded."""
    entry_bytes: float
    """Of a mask, in the journal."""
    step_bytes: float
    """Of a mask, in the runs."""
    column_bytes: float
    """Of a mask, in all coordinates."""
    label_bytes: float
    """Of a mask, in image, noun and instance."""
    root_bytes: float
    """Of a shard, in the root metadata."""
    fixed_root_bytes: float
    """Of the root metadata without any shard."""
    root_s: float
    """To parse what the root says of a shard."""
    label_s: float
    """To make an index of the labels of a mask."""
    check_s: float
    """To check and read the source, for each mask, before anything is written."""
    commit_s: float
    """Of the journal and the rest, for each mask, without waiting."""
    commit_shard_s: float = 0.0
    """The same, for each shard."""
    first_s: float = 0.0
    """What the first mask takes longer than others: new workers, new connections, the report."""
    rounds: float = 0.0
    """Requests at the beginning and the end, one after the other."""

    def on_busy_cores(self, factor: float) -> Costs:
        """Return the same where others use the cores too, and all takes so many times as long."""
        times = {name: value * factor for name, value in vars(self).items() if name[-2:] == "_s"}
        return replace(self, **times)

    def fixed_s(self, place: Place) -> float:
        """Return what does not depend on the number of masks."""
        return self.first_s + self.rounds * place.latency_s


@dataclass(frozen=True)
class Spans:
    """Masks in shards in tasks."""

    n_masks: int
    shard_masks: int = 64
    task_shards: int = 1

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return math.ceil(self.n_masks / self.shard_masks)

    def tasks(self) -> Iterator[list[int]]:
        """Yield the masks of each shard of each task."""
        for first in range(0, self.n_shards, self.task_shards):
            shards = range(first, min(first + self.task_shards, self.n_shards))
            yield [
                min(self.shard_masks, self.n_masks - shard * self.shard_masks) for shard in shards
            ]


@dataclass(frozen=True)
class Prediction:
    """How long something takes, and what for."""

    parts_s: dict[str, float]
    """Seconds of what is done one after the other."""
    limits_s: dict[str, float]
    """The least that the scheduler, the bucket, and the workers' cores and waiting take alone."""

    @property
    def total_s(self) -> float:
        """Seconds of all parts."""
        return sum(self.parts_s.values())

    @property
    def limit(self) -> str:
        """What takes longest: one of the parts that nothing runs beside, or of the limits."""
        alone = {name: value for name, value in self.parts_s.items() if name != "workers"}
        return max(found := {**alone, **self.limits_s}, key=found.__getitem__)


class _Turns:
    """Somebody who serves one after the other."""

    def __init__(self, each_s: float) -> None:
        self._each_s = each_s
        self._free_s = 0.0

    def after(self, now: float) -> float:
        self._free_s = max(self._free_s, now) + self._each_s
        return self._free_s


Step = Callable[[float], float]
"""When a step that begins now has ended."""


Task = list[list[Step]]
"""The steps of a task: some chains, each of which begins when the first step of the one before has
ended."""


class _Simulation:
    """Events in the order of their times."""

    def __init__(self, tasks: Iterator[Task], task_s: float) -> None:
        self._tasks = tasks
        self._scheduler = _Turns(task_s)
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Step, Callable[[float], None]]] = []

    def run(self, n_workers: int) -> float:
        for _ in range(n_workers):
            self._next_task(0.0)
        now = 0.0
        while self._events:
            now, _, step, then = heapq.heappop(self._events)
            if step is _ended:
                then(now)
            else:
                self._at(step(now), _ended, then)
        return now

    def _at(self, time: float, step: Step, then: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), step, then))

    def _next_task(self, now: float) -> None:
        """Give a worker that is free its next task, when the scheduler comes to it."""
        chains = next(self._tasks, None)
        if chains is not None:
            self._begin(_Chains(chains), 0, 0, self._scheduler.after(now))

    def _begin(self, task: _Chains, chain: int, step: int, now: float) -> None:
        def then(time: float) -> None:
            task.n_left -= 1
            if step == 0 and chain + 1 < len(task.chains):
                self._begin(task, chain + 1, 0, time)
            if step + 1 < len(task.chains[chain]):
                self._begin(task, chain, step + 1, time)
            if not task.n_left:
                self._next_task(time)

        self._at(now, task.chains[chain][step], then)


class _Chains:
    """A task that was begun."""

    def __init__(self, chains: Task) -> None:
        self.chains = chains
        self.n_left = sum(map(len, chains))


def _ended(now: float) -> float:
    return now


def tasks_in_turn(tasks: Iterable[Task], n_workers: int, task_s: float) -> float:
    """Return when the last task has ended.

    Parameters
    ----------
    tasks : iterable of list of list of callable
        What is to be done.
    n_workers : int
        Of which each does one task at a time.
    task_s : float
        Of the scheduler, for each task, one after the other.
    """
    return _Simulation(iter(tasks), task_s).run(n_workers)


def _computed(seconds: float) -> Step:
    return lambda now: now + seconds


def opening(spans: Spans, costs: Costs, place: Place) -> Prediction:
    """Return what it takes to open a store until its labels can be asked for."""
    root = costs.fixed_root_bytes + spans.n_shards * costs.root_bytes
    labels = spans.n_masks * costs.label_bytes
    # The root and the first labels are asked for together, the other labels afterwards.
    more = 0.0 if labels <= _HEAD_BYTES else place.answer_s(labels)
    return Prediction(
        {
            "requests": place.answer_s(max(root, _HEAD_BYTES)) + more,
            "root": spans.n_shards * costs.root_s,
            "labels": spans.n_masks * costs.label_s,
        },
        {},
    )


def scan(spans: Spans, costs: Costs, place: Place) -> Prediction:
    """Return what it takes to decode every mask: each shard one request, then its masks."""
    bucket = _Turns(1 / place.gets_a_second)

    def fetched(shards: list[int]) -> Step:
        def step(now: float) -> float:
            leave = max(bucket.after(now) for _ in shards)
            return leave + place.answer_s(sum(shards) * costs.mask_bytes)

        return step

    def steps(shards: list[int]) -> Task:
        # A task asks for all its shards at once, as many as may be; then it computes.
        at_once = place.max_concurrency
        asked = [shards[first : first + at_once] for first in range(0, len(shards), at_once)]
        work = _computed(costs.start_s + sum(shards) * costs.decode_s)
        return [[*map(fetched, asked), work]]

    tasks = (steps(shards) for shards in spans.tasks())
    n_tasks = math.ceil(spans.n_shards / spans.task_shards)
    workers = tasks_in_turn(tasks, place.n_workers, costs.task_s)
    opened = opening(spans, costs, place).total_s
    return Prediction(
        {"fixed": costs.fixed_s(place), "open": opened, "workers": workers},
        {
            "scheduler": n_tasks * costs.task_s,
            "bucket": spans.n_shards / place.gets_a_second,
            "waiting": n_tasks
            * math.ceil(spans.task_shards / place.max_concurrency)
            * place.latency_s
            / place.n_workers,
            "cores": spans.n_masks * costs.decode_s / place.n_workers,
        },
    )


def conversion(spans: Spans, costs: Costs, place: Place) -> Prediction:
    """Return what a conversion onto a bucket takes: workers write, and one process commits."""
    bucket = _Turns(1 / place.puts_a_second)

    def put(n_bytes: float) -> Step:
        return lambda now: bucket.after(now) + place.write_s + place.answer_s(n_bytes)

    def steps(shards: list[int]) -> Task:
        # The next shard is encoded while the one before is written, and then its entry.
        return [
            [
                _computed(n_masks * costs.encode_s + (0 if number else costs.start_s)),
                put(n_masks * costs.mask_bytes),
                put(n_masks * costs.entry_bytes),
            ]
            for number, n_masks in enumerate(shards)
        ]

    tasks = (steps(shards) for shards in spans.tasks())
    n_tasks = math.ceil(spans.n_shards / spans.task_shards)
    return Prediction(
        {
            "fixed": costs.fixed_s(place),
            "source": spans.n_masks * costs.check_s,
            "workers": tasks_in_turn(tasks, place.n_workers, costs.task_s),
            "commit": _commit_s(spans, costs, place),
        },
        {
            "scheduler": n_tasks * costs.task_s,
            "bucket": 2 * spans.n_shards / place.puts_a_second,
            "waiting": 2 * n_tasks * place.latency_s / place.n_workers,
            "cores": spans.n_masks * costs.encode_s / place.n_workers,
        },
    )


def _commit_s(spans: Spans, costs: Costs, place: Place) -> float:
    """Return what the process takes that reads back all entries and shards, and writes the rest."""
    n_bytes = spans.n_masks * (costs.entry_bytes + costs.mask_bytes)
    # Of each shard its entry is read, its size asked for, and then all of it.
    waiting = place.side_by_side(3 * spans.n_shards, n_bytes, place.gets_a_second)
    rest = 2 * spans.n_masks * (costs.step_bytes + costs.column_bytes) / place.bandwidth
    working = spans.n_masks * costs.commit_s + spans.n_shards * costs.commit_shard_s
    return waiting + working + rest
