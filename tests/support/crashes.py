"""Operations that write a store, crashed at every moment, and what must be true afterwards.

An operation is anything that is called with a target and writes a store there: a conversion, or a
change of a store. A crash is real: a forked process that kills itself just before its n-th change
to the disk. What must be true does not depend on the operation: see :meth:`Case.check`.
"""

from __future__ import annotations

import enum
import errno
import hashlib
import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, Self

import numpy as np
import xarray as xr
import zarr
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore, WrapperStore

import maskcube

TARGET = "masks.zarr"
BUFFER = default_buffer_prototype().buffer
EPOCH = "1700000000"
"""SOURCE_DATE_EPOCH of every run here: same source, same bytes."""

Contents = dict[str, bytes]
"""Checksums of the values of every array of a store, by name."""
Place = Path | MemoryStore
"""A target: a path, or the only store of memory."""
Tree = dict[str, bytes]
"""Every file below a folder by its name, and every folder, whose name ends in a slash."""

_OF_TWO = {"maskcube.exchange", "os.link", "os.rename"}
_CHANGES = _OF_TWO | {
    "open",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
}
"""Audit events that come before a change to the disk."""
ROOT = "zarr.json"
FIRST, LAST = 5, 6
"""Changes at the beginning and at the end of an operation that are always struck at."""
_USED = [
    "dask.array",
    "encodings.utf_8_sig",
    "importlib.metadata",
    "email.policy",
    "maskcube.conversion",
    "maskcube.reader",
    "tqdm",
]
"""What an operation imports: the forks find it there."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Strike(enum.Enum):
    """What happens at the n-th change."""

    KILL = "killed with -9"
    TEAR = "killed with -9, the file that is to be renamed half written"
    STOP = "stopped until it is continued"
    INTERRUPT = "KeyboardInterrupt"
    FAIL = "OSError, and again at every later change"


class Tripwire:
    """An audit hook that counts the changes below a folder, and strikes at one of them.

    Parameters
    ----------
    folder : Path
        Only what happens below it is counted.
    at : int
        Which change to strike at, from 1; 0 counts only.
    strike : Strike
        What to do there.
    """

    def __init__(self, folder: Path, at: int = 0, strike: Strike = Strike.KILL) -> None:
        self.folder = f"{folder.absolute()}{os.sep}"
        self.at = at
        self.strike = strike
        self.changes: list[list[str]] = []
        """The paths of each change, below the folder."""
        self.armed = True
        self._lock = threading.RLock()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or not self.armed:
            return
        paths = self.changed(event, arguments)
        if not paths:
            return
        with self._lock:
            self.changes.append([path.removeprefix(self.folder) for path in paths])
            n_changes = len(self.changes)
        if n_changes == self.at or (n_changes > self.at > 0 and self.strike is Strike.FAIL):
            self._hit(paths[0])

    def changed(self, event: str, arguments: tuple[Any, ...]) -> list[str]:
        """Return the paths that will change; none when they are elsewhere, or stay as they are."""
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return []
        names = arguments[: 2 if event in _OF_TWO else 1]
        paths = [_absolute(name, arguments[-1]) for name in names]
        if not any(path.startswith(self.folder) for path in paths):
            return []
        if event == "os.mkdir" and os.path.isdir(paths[0]):  # noqa: PTH112 - raises no event
            return []
        if self.strike is Strike.TEAR and not (event == "os.rename" and _is_file(paths[0])):
            return []
        return paths

    def _hit(self, path: str) -> None:
        if self.strike is Strike.INTERRUPT:
            raise KeyboardInterrupt
        if self.strike is Strike.FAIL:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        if self.strike is Strike.TEAR:
            self.armed = False
            os.truncate(path, os.stat(path).st_size // 2)  # noqa: PTH116 - as it was given
        os.kill(os.getpid(), signal.SIGSTOP if self.strike is Strike.STOP else signal.SIGKILL)


def _absolute(name: Any, descriptor: Any) -> str:
    """Return a path as the event means it, which may be relative to an open folder."""
    path = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
    if not path.startswith(os.sep) and isinstance(descriptor, int) and descriptor >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), path)  # noqa: PTH115, PTH118
    return os.path.abspath(path)  # noqa: PTH100


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113


class Outcome(NamedTuple):
    """How an operation in a process of its own ended."""

    changes: list[list[str]]
    """The paths of each change, below the folder of the target."""
    error: str | None
    """Name of the class of what it raised, and its message."""


def crash(run: Callable[[Path], object], target: Path, at: int, strike: Strike) -> Outcome:
    """Run an operation that is struck at its n-th change; to be called in a forked process."""
    # No kill loses what the system has already been given: the disk need not be waited for.
    vars(os)["fsync"] = lambda _: None
    wire = Tripwire(target.parent, at, strike)
    sys.addaudithook(wire)
    error = None
    try:
        run(target)
    except (maskcube.MaskcubeError, OSError, KeyboardInterrupt) as raised:
        error = f"{type(raised).__name__}: {raised}"
    wire.armed = False
    return Outcome(wire.changes, error)


def flushes(run: Callable[[Path], object], target: Path) -> list[tuple[str, ...]]:
    """Return every change below the folder of a target, and every flush to the disk, in order.

    To be called in a forked process.
    """
    log: list[tuple[str, ...]] = []
    wire = Tripwire(target.parent)
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        log.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))  # noqa: PTH115
        fsync(descriptor)

    def changed(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES and (paths := wire.changed(event, arguments)):
            log.append((event, *paths))

    vars(os)["fsync"] = recorded
    sys.addaudithook(changed)
    run(target)
    return list(log)


def attempt(run: Callable[[Path], object], target: Path, start: float) -> str | None:
    """Run an operation at a moment of the monotonic clock; return what it raised."""
    time.sleep(max(0.0, start - time.monotonic()))
    try:
        run(target)
    except maskcube.MaskcubeError as error:
        return f"{type(error).__name__}: {error}"
    return None


class Ended(NamedTuple):
    """How a forked process ended."""

    code: int
    """Its exit code; -9 when it was killed with 9."""
    result: Any
    """What its job returned; None when it was killed."""


class Forks:
    """Processes forked from one that has imported everything and has no threads.

    Forking is as safe there as it would not be in a test process, where zarr and dask have threads,
    and takes 10 ms instead of the second of a new Python.
    """

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", "import crashes; crashes.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SOURCE_DATE_EPOCH": EPOCH},
        )

    def start(self, job: Callable[[], object]) -> int:
        """Start a job, which can be pickled, in a process of its own; return its number."""
        pickle.dump(job, self._pipe(self._server.stdin))
        self._pipe(self._server.stdin).flush()
        return int(self._receive())

    def wait(self) -> Ended:
        """Wait for the job that was started last; what it raises is raised here."""
        result = None
        while not isinstance(found := self._receive(), Ended):
            result = found
        if found.code > 0:
            raise AssertionError(result)
        return Ended(found.code, result)

    def run(self, job: Callable[[], object]) -> Ended:
        """Start a job and wait for it."""
        self.start(job)
        return self.wait()

    def _receive(self) -> Any:
        return pickle.load(self._pipe(self._server.stdout))  # noqa: S301 - our own process

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # It ends when nobody can ask it any more; a job that is stopped ends too.
        self._pipe(self._server.stdin).close()
        self._pipe(self._server.stdout).close()
        self._server.wait(30)


def serve() -> None:
    """Fork a process for each job that is asked for on stdin, and say on stdout how it ends."""
    for name in _USED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(value: object) -> None:
        pickle.dump(value, answers)
        answers.flush()

    assert threading.active_count() == 1
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own process
        except EOFError:
            return
        process = os.fork()
        if process == 0:
            _do(job, answer)
        _, status = os.waitpid(process, 0)
        answer(Ended(os.waitstatus_to_exitcode(status), None))


def _do(job: Callable[[], object], answer: Callable[[object], None]) -> NoReturn:
    """Do a job and end this process, whatever happens."""
    code = 1
    try:
        answer(os.getpid())
        answer(job())
        code = 0
    except BaseException:  # noqa: BLE001 - told to whoever waits
        answer(traceback.format_exc())
    os._exit(code)


class Fault(NamedTuple):
    """How a change fails."""

    raised: int | None
    """Number of the system's error; None when success is reported."""
    kept: float | None = None
    """Which part of the bytes is written all the same."""


BROKEN = Fault(errno.EIO)


class Faults(WrapperStore[MemoryStore]):
    """Memory whose n-th change fails.

    Parameters
    ----------
    store : MemoryStore
        What is really there.
    at : int
        Which change fails, from 1; 0 for none.
    fault : Fault
        How it fails.
    """

    def __init__(self, store: MemoryStore, at: int = 0, fault: Fault = BROKEN) -> None:
        super().__init__(store)
        self.at = at
        self.fault = fault
        self.changes: list[list[str]] = []
        """The key of each change."""

    async def set(self, key: str, value: Buffer) -> None:
        """Put an object, unless that is what fails."""
        await self._change(key, partial(self._store.set, key), value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Put an object if none is there, unless that is what fails."""
        await self._change(key, partial(self._store.set_if_not_exists, key), value)

    async def delete(self, key: str) -> None:
        """Delete an object, unless that is what fails."""

        async def change(_: Buffer) -> None:
            await self._store.delete(key)

        await self._change(key, change, BUFFER.from_bytes(b""))

    async def _change(
        self, key: str, change: Callable[[Buffer], Awaitable[None]], value: Buffer
    ) -> None:
        self.changes.append([key])
        if len(self.changes) != self.at:
            await change(value)
            return
        if self.fault.kept is not None:
            await change(value[: int(len(value) * self.fault.kept)])
        if self.fault.raised is not None:
            raise OSError(self.fault.raised, os.strerror(self.fault.raised))


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
        run(whole)
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
        commits = any(
            path.count("/") == 0 or (path.endswith(f"/{ROOT}") and path.count("/") == 1)
            for path in paths
        )
        if every or commits or at <= FIRST or at > len(changes) - LAST or at % 20 == 0:
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


def running_time(source: Path, target: Path) -> float:
    """Run the command; return the time from its first finished shard to its end."""
    with subprocess.Popen(command(source, target)) as process:
        while not has_begun(target) and process.poll() is None:
            time.sleep(0.002)
        begun = time.monotonic()
        assert process.wait(120) == 0
        return time.monotonic() - begun
