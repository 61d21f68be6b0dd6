"""Operations in processes of their own, struck just before their n-th change to the disk."""

from __future__ import annotations

import enum
import errno
import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, Self

import maskcube

EPOCH = "1700000000"
"""SOURCE_DATE_EPOCH of every run here: same source, same bytes."""

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
_USED = [
    "dask.array",
    "encodings.utf_8_sig",
    "importlib.metadata",
    "email.policy",
    "maskcube.conversion",
    "maskcube.correction",
    "maskcube.growth",
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
            [sys.executable, "-c", "import forks; forks.serve()"],
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
