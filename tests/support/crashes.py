"""Operations that write a store, crashed at every moment, and what must be true afterwards.

An operation is anything that is called with a target and writes a store there: a conversion, or a
change of a store. What must be true does not depend on the operation: see :meth:`Case.check`.
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from faults import BUFFER, Fault, Faults
from forks import Forks, Strike, crash
from zarr.storage import MemoryStore

import maskcube

TARGET = "masks.zarr"

Contents = dict[str, bytes]
"""Checksums of the values of every array of a store, by name."""
Place = Path | MemoryStore
"""A target: a path, or the only store of memory."""
Tree = dict[str, bytes]
"""Every file below a folder by its name, and every folder, whose name ends in a slash."""

ROOT = "zarr.json"
FIRST, LAST = 3, 5
"""Changes at the beginning and at the end of an operation that are always struck at."""


def snapshot(place: Place) -> Tree:
    """Return everything that is in the folder of a target, or in memory."""
    if isinstance(place, MemoryStore):
        return {key: value.to_bytes() for key, value in place._store_dict.items()}  # noqa: SLF001
    return {
        f"{path.relative_to(place.parent).as_posix()}{'/' * path.is_dir()}": b""
        if path.is_dir()
        else path.read_bytes()
        for path in place.parent.rglob("*")
    }


def read_masks(place: Place) -> Contents:
    """Read a store with maskcube."""
    return _values(maskcube.open_masks(place, chunks=None).to_dataset(name="masks"))


def read_xarray(place: Place) -> Contents:
    """Read a store with xarray alone."""
    return _values(xr.open_zarr(place, chunks=None))


def read_zarr(place: Place) -> Contents:
    """Read a store, the runs too, with zarr alone."""
    group = zarr.open_group(place, mode="r")
    arrays = dict(group.members(max_depth=None)).items()
    return {name: _digest(it[...]) for name, it in arrays if isinstance(it, zarr.Array)}


def _values(dataset: xr.Dataset) -> Contents:
    return {str(name): _digest(dataset[name].values) for name in dataset.variables}


def _digest(values: Any) -> bytes:
    values = np.ascontiguousarray(values)
    texts = values.dtype.kind in "OT"
    return hashlib.sha256(repr(values.tolist()).encode() if texts else values.data).digest()


class Case:
    """An operation, what is at its target before, and what an uninterrupted run makes of it.

    Parameters
    ----------
    run : callable
        The operation, of a target; must be picklable.
    whole : Path or MemoryStore
        A target for the uninterrupted run.
    begin : callable, optional
        Writes the store that is there before, if one is.
    always_open : bool
        Whether what was there before can be opened until what comes after can.
    breaks : bool
        Whether a put can leave a part of an object: then readers may raise whatever they like.
    """

    def __init__(
        self,
        run: Callable[[Any], object],
        whole: Place,
        begin: Callable[[Any], object] | None = None,
        *,
        always_open: bool = True,
        breaks: bool = False,
    ) -> None:
        self.run = run
        self.breaks = breaks
        self._known: dict[tuple[tuple[str, bytes], ...], list[Contents | None]] = {}
        if isinstance(whole, Path):
            whole.parent.mkdir(parents=True)
        if begin is not None:
            begin(whole)
        self.before = snapshot(whole)
        self.old = self.found(whole)
        self.allowed = (
            [self.old] if always_open and not breaks else [self.old, [None] * len(READERS)]
        )
        started = time.monotonic()
        run(whole)
        self.seconds = time.monotonic() - started
        self.after = snapshot(whole)
        self.new = self.found(whole)
        assert None not in self.new

    def begin(self, place: Place) -> Any:
        """Make of an empty place what is there before the operation, and return it."""
        for name, data in self.before.items():
            if isinstance(place, MemoryStore):
                place._store_dict[name] = BUFFER.from_bytes(data)  # noqa: SLF001
                continue
            path = place.parent / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.write_bytes(data)
        if isinstance(place, Path):
            place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def found(self, place: Place) -> list[Contents | None]:
        """Return what each reader finds at a place; None when it says that no store is there."""
        inside = f"{place.name}/" if isinstance(place, Path) else ""
        key = tuple(
            (name, data)
            for name, data in sorted(snapshot(place).items())
            if name.startswith(inside)
        )
        if key not in self._known:
            found = [_read(reader, place) for reader in READERS]
            if None in found:
                return found
            # Whatever reads the same bytes finds the same.
            self._known[key] = found
        return self._known[key]

    def check(self, place: Place, moment: str) -> None:
        """Check what an interrupted run has left, and that the same command heals it.

        Every reader finds the old store or the new one, or that there is none; after the same
        operation everything is as if nobody had interrupted it, and nothing else is left.
        """
        found = self.found(place)
        if self.breaks:
            found = [None if it and "error" in it else it for it in found]
        finished = found == self.new
        if not finished and found not in self.allowed:
            told = {
                reader.__name__: self._described(it)
                for reader, it in zip(READERS, found, strict=True)
            }
            raise AssertionError(f"{moment}: neither the old nor the new store: {told}")
        try:
            self.run(place)
        except maskcube.StoreExists as error:
            if not finished:
                raise AssertionError(f"{moment}: the same command refuses: {error}") from error
        self.check_finished(place, f"{moment}, and run again")

    def _described(self, found: Contents | None) -> str:
        if found is None:
            return "no store"
        if "error" in found:
            return found["error"].decode()
        return "new" if found in self.new else "old" if found in self.old else "mixed"

    def check_finished(self, place: Place, moment: str) -> None:
        """Check that everything is there as an uninterrupted run leaves it, and nothing else."""
        there = snapshot(place)
        missing, more = (
            sorted(self.after.keys() - there.keys()),
            sorted(there.keys() - self.after.keys()),
        )
        other = sorted(
            name for name in there.keys() & self.after.keys() if there[name] != self.after[name]
        )
        if missing or more or other:
            raise AssertionError(f"{moment}: {missing=} {more=} {other=}")


def _read(reader: Callable[[Place], Contents], place: Place) -> Contents | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of xarray, that there may be a store of zarr 2
        try:
            return reader(place)
        except (FileNotFoundError, maskcube.IncompleteStore):
            return None
        except Exception as error:  # noqa: BLE001 - zarr raises whatever it likes
            return {"error": f"{type(error).__name__}: {error}".encode()}


READERS = (read_masks, read_xarray, read_zarr)


def moments(changes: Sequence[list[str]], *, every: bool) -> Iterator[int]:
    """Yield at which changes to strike: at every one, or at some of those that are much alike.

    Most put one coordinate after the other, or delete one file after the other. What comes first
    and last is tried in full, and so is whatever touches the target itself or its neighbours.
    """
    for at, paths in enumerate(changes, start=1):
        commits = any("/" not in path.removesuffix(f"/{ROOT}") for path in paths if TARGET in path)
        if every or commits or at <= FIRST or at > len(changes) - LAST or at % 30 == 0:
            yield at


class Faulted(NamedTuple):
    """What striking at one change after the other has shown."""

    n_struck: int
    failures: list[str]

    def check(self, at_least: int) -> None:
        """Raise with what has failed; and when hardly anything was struck."""
        if self.failures or self.n_struck < at_least:
            few = "\n".join(self.failures[:5])
            raise AssertionError(f"{len(self.failures)} of {self.n_struck} failed:\n{few}")


def strike_at_changes(
    case: Case, forks: Forks, folder: Path, strike: Strike, *, every: bool, again: int = 0
) -> Faulted:
    """Strike at one change of an operation on a folder after the other, and check each time.

    Parameters
    ----------
    case : Case
        The operation.
    forks : Forks
        Where it runs.
    folder : Path
        For the targets.
    strike : Strike
        What happens at the change.
    every : bool
        At every change; or at some.
    again : int
        Strike so many times at what is run then, further on each time.
    """
    whole = case.begin(folder / "counted" / TARGET)
    changes = forks.run(partial(crash, case.run, whole, 0, strike)).result.changes
    n_struck, failures = 0, []
    for at in moments(changes, every=every):
        target = case.begin(folder / str(at) / TARGET)
        for turn in range(again + 1):
            struck_at = at if turn == 0 else (at + 5 * turn) % len(changes) or 1
            ended = forks.run(partial(crash, case.run, target, struck_at, strike))
            # Which thread comes first differs from run to run, and with it how many there are.
            killed = ended.code == -signal.SIGKILL
            n_struck += killed or len(ended.result.changes) >= struck_at
        try:
            if not killed and ended.result.error is None:
                case.check_finished(target, f"{strike.value} at change {at}, and nothing said")
            case.check(target, f"{strike.value} at change {at}")
        except AssertionError as error:
            failures.append(str(error))
    return Faulted(n_struck, failures)


def fail_at_changes(case: Case, fault: Fault, *, every: bool) -> Faulted:
    """Let one change of an operation in memory after the other fail, and check each time."""
    counted = Faults(case.begin(MemoryStore()))
    case.run(counted)
    failures = []
    tried = list(moments(counted.changes, every=every))
    for at in tried:
        memory = case.begin(MemoryStore())
        moment = f"{fault} at change {at}"
        try:
            try:
                case.run(Faults(memory, at, fault))
                case.check_finished(memory, f"{moment}, and nothing said")
            except (OSError, maskcube.MaskcubeError):
                case.check(memory, moment)
        except AssertionError as error:
            failures.append(str(error))
    return Faulted(len(tried), failures)


class Signalled(NamedTuple):
    """How the command ended that a signal was sent to."""

    code: int
    seconds: float
    """From the signal on."""
    stderr: str


def command(source: Path, target: Path) -> list[str]:
    """Return the command that converts."""
    return [sys.executable, "-m", "maskcube", "convert", str(source), str(target), "--quiet"]


def signalled(source: Path, target: Path, number: int, delay: float) -> Signalled:
    """Run the command and send it a signal some time after it has finished its first shard."""
    with subprocess.Popen(
        command(source, target),
        stderr=subprocess.PIPE,
        text=True,
        # What is started in the background ignores Ctrl-C, and so does whatever that starts.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads
    ) as process:
        while not has_begun(target) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(delay)
        asked = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        return Signalled(process.returncode, time.monotonic() - asked, stderr)


def has_begun(target: Path) -> bool:
    """Whether a conversion to this place has finished a shard."""
    return any(target.parent.glob(f"{target.name}*/_maskcube/shards/*.json"))
