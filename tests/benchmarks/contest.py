"""The contest: peers that answer the same questions, timed side by side.

One repetition of each peer in turn, beginning with another one each time, so that a noisy moment of
the machine hits all alike. Answers are compared before anything is timed; this also warms the cache
of the operating system, so all figures are of a warm cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

__all__ = ["BUDGET_S", "Ask", "Contest", "NotPossible", "Peer", "Record", "ranked", "rounds", "run"]

BUDGET_S = 8.0
"""Seconds after which a slow peer is not asked again."""

_LEAST_S = 0.05
"""Seconds that a repetition takes at least, or one moment of the machine would decide it."""

Answer = Any
Ask = Callable[[Any], Answer]
Record = dict[str, Any]
_Item = TypeVar("_Item")


class NotPossible(RuntimeError):
    """A peer cannot do this at all; the message says why."""


@dataclass(frozen=True)
class Peer:
    """One way to answer.

    Parameters
    ----------
    name : str
        As the table shows it.
    prepare : callable
        Imports, opens, and returns what answers one question; only the latter is timed.
    kind : "ours", "peer" or "floor"
        A floor is what the machine needs for the bytes alone.
    answers : bool
        Whether the answer is one to compare; a floor may give none.
    """

    name: str
    prepare: Callable[[], Ask]
    kind: Literal["ours", "peer", "floor"] = "peer"
    answers: bool = True


@dataclass(frozen=True)
class Contest:
    """Questions and those who answer them; ratios are to the first peer.

    Parameters
    ----------
    name, title : str
        For the JSON and for the table.
    questions : sequence
        Each repetition asks all of them; a slow peer is asked the first ones only.
    peers : sequence of Peer
        Ours first.
    note : str
        A sentence below the title.
    expected : callable, optional
        The right answer to a question; that of the first peer by default.
    """

    name: str
    title: str
    questions: Sequence[Any]
    peers: Sequence[Peer]
    note: str = ""
    expected: Ask | None = None


@dataclass
class _Entrant:
    peer: Peer
    ask: Ask | None = None
    status: str = "ok"
    agrees: bool | None = None
    n_questions: int = 0
    n_times: int = 1
    n_repetitions: int = 0
    times_s: list[float] = field(default_factory=list)

    def record(self) -> Record:
        return {
            "peer": self.peer.name,
            "kind": self.peer.kind,
            "status": self.status,
            "agrees": self.agrees,
            "n_questions": self.n_questions * self.n_times,
            "times_s": self.times_s,
            "median_s": statistics.median(self.times_s) if self.times_s else None,
        }


def run(contest: Contest, repetitions: int) -> Record:
    """Compare and time; seconds are for one question."""
    entrants: list[_Entrant] = []
    expected = contest.expected
    for peer in contest.peers:
        entrant = _entered(peer)
        if expected is None and entrant.ask is not None:
            expected = entrant.ask
        if entrant.ask is not None and expected is not None:
            _try(entrant, contest.questions, expected, repetitions)
        entrants.append(entrant)
    for entrant in rounds(entrants, repetitions):
        if entrant.ask is not None and len(entrant.times_s) < entrant.n_repetitions:
            asked = [*contest.questions[: entrant.n_questions]] * entrant.n_times
            entrant.times_s.append(_timed(entrant.ask, asked))
    return {
        "name": contest.name,
        "title": contest.title,
        "note": contest.note,
        "rows": ranked([entrant.record() for entrant in entrants]),
    }


def rounds(items: Sequence[_Item], repetitions: int) -> Iterator[_Item]:
    """Yield all items as often as there are repetitions, beginning with another one each time."""
    for repetition in range(repetitions):
        first = repetition % max(1, len(items))
        yield from items[first:]
        yield from items[:first]


def ranked(rows: list[Record], key: str = "median_s") -> list[Record]:
    """Add to each row its ratio to the first one."""
    base = rows[0].get(key) if rows else None
    for row in rows:
        value = row.get(key)
        row["ratio"] = value / base if value is not None and base else None
    return rows


def _entered(peer: Peer) -> _Entrant:
    try:
        return _Entrant(peer, peer.prepare())
    except ModuleNotFoundError as error:
        return _Entrant(peer, status=f"not installed: {error.name}")
    except NotPossible as error:
        return _Entrant(peer, status=f"not possible: {error}")


def _try(entrant: _Entrant, questions: Sequence[Any], expected: Ask, repetitions: int) -> None:
    """Compare the answers, and decide how often this peer is asked."""
    assert entrant.ask is not None
    start = time.perf_counter()
    answer = entrant.ask(questions[0])
    cost = time.perf_counter() - start
    equal = [_same(entrant.peer, answer, expected(questions[0]))]
    del answer  # all masks of a noun may be a gigabyte
    if cost < BUDGET_S / 4:
        # The first answer may have imported, or filled a cache: another one says what it costs.
        cost = _timed(entrant.ask, questions[-1:])
    entrant.n_repetitions = max(1, min(repetitions, int(BUDGET_S / cost)))
    share = BUDGET_S / entrant.n_repetitions
    entrant.n_questions = max(1, min(len(questions), int(share / cost)))
    entrant.n_times = max(1, int(_LEAST_S / (cost * entrant.n_questions)))
    equal += [
        _same(entrant.peer, entrant.ask(question), expected(question))
        for question in questions[1 : entrant.n_questions]
    ]
    entrant.agrees = all(equal) if entrant.peer.answers else None


def _same(peer: Peer, answer: Answer, expected: Answer) -> bool:
    return not peer.answers or np.array_equal(answer, expected)


def _timed(ask: Ask, questions: Sequence[Any]) -> float:
    start = time.perf_counter()
    for question in questions:
        ask(question)
    return (time.perf_counter() - start) / len(questions)
