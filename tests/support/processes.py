"""Programs that run beside the tests, and end with them, however those end."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import psutil

__all__ = ["Program", "find_program", "free_ports", "new_folder", "remove_folder"]

ROOT = Path(__file__).parents[2]

_PORTS = range(20_000, 32_000)
"""Below what systems give to the near end of a connection: no client takes a port of ours."""
_START_S = 90
_GRACE_S = 1

_GUARD = """
import os, shutil, signal, sys
kept = set()
for line in sys.stdin:
    if line == "end\\n":
        break
    change, what = line[0], line[1:].rstrip("\\n")
    (kept.add if change == "+" else kept.discard)(what)
for what in kept:
    try:
        os.killpg(int(what), signal.SIGKILL) if what.isdigit() else shutil.rmtree(what)
    except OSError:
        pass
"""
_REASONS = {
    "azurite-blob": "run scripts/services",
    "nginx": "run scripts/services",
    "moto_server": "run pip install --group test",
    "weed": "run pip install --group test",
}

_reserved = ExitStack()
atexit.register(_reserved.close)


def find_program(name: str) -> str:
    """Return the path of a program: of this environment, of the project, or of the system.

    Raises
    ------
    RuntimeError
        It is not installed. A test that needs it must fail, not be left out.
    """
    places = [Path(sys.executable).parent, ROOT / ".servers" / "node_modules" / ".bin"]
    path = os.pathsep.join([*map(str, places), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    if found := shutil.which(name, path=path):
        return found
    raise RuntimeError(f"the tests need {name!r}, which is not installed: {_REASONS[name]}")


def free_ports(n_ports: int) -> list[int]:
    """Return ports of loopback that nobody else gets as long as this process lives."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if len(ports) == n_ports:
            break
        if _reserve(port):
            ports.append(port)
    return ports


def _reserve(port: int) -> bool:
    # The port of the same number for datagrams tells other test processes that it is taken.
    sign = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sign.bind(("127.0.0.1", port))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError:
        sign.close()
        return False
    _reserved.enter_context(sign)
    return True


@cache
def _guard() -> IO[bytes]:
    """Return a pipe to a process that ends what we have started, should we be killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _GUARD], stdin=subprocess.PIPE, start_new_session=True, bufsize=0
    )
    pipe = process.stdin
    assert pipe is not None
    owner = os.getpid()

    def end() -> None:
        # What forks from here ends too, and may keep the pipe open.
        if os.getpid() == owner:
            pipe.write(b"end\n")
            pipe.close()
            process.wait()

    atexit.register(end)
    return pipe


def _keep(what: int | Path) -> None:
    _guard().write(f"+{what}\n".encode())


def _forget(what: int | Path) -> None:
    _guard().write(f"-{what}\n".encode())


def new_folder(name: str) -> Path:
    """Return a temporary folder, whose name is short: sockets may lie in it."""
    path = Path(tempfile.mkdtemp(prefix=f"maskcube-{name}-"))
    _keep(path)
    return path


def remove_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    _forget(path)


class Program:
    """A program that runs until it is stopped or killed, and can be started again.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    folder : Path
        Where it runs; its output is appended to ``log`` there.
    environment : mapping, optional
        What it sees besides ``PATH``, and `folder` as its home and for what is temporary; nothing
        of ours.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command, self._folder = [*command], folder
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "TMPDIR": str(folder),
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """The end of what it said."""
        path = self._folder / "log"
        return path.read_text(errors="replace")[-2_000:] if path.exists() else ""

    @property
    def pid(self) -> int:
        """Its number, while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.runs
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # An interrupt of the tests is not for it: what uses it ends first.
                start_new_session=True,
            )
        _keep(self._process.pid)

    def wait_for(self, port: int) -> None:
        """Wait until it takes connections."""
        for _ in self.attempts():
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return

    def attempts(self) -> Attempts:
        """Return moments at which to look whether it is ready; an error once it cannot be."""
        return Attempts(self)

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self._process is not None and self.runs:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
        self.kill()

    def kill(self) -> None:
        """End it with -9, and what it has started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        _forget(self._process.pid)
        self._process = None

    def listens(self) -> set[tuple[str, int]]:
        """Return the addresses and ports on which it takes connections."""
        return {link.laddr for link in self._links() if link.status == psutil.CONN_LISTEN}

    def peers(self) -> set[str]:
        """Return the addresses that it is connected to."""
        return {link.raddr.ip for link in self._links() if link.raddr}

    def _links(self) -> list[Any]:
        process = psutil.Process(self.pid)
        family = [process, *process.children(recursive=True)]
        return [link for one in family for link in one.net_connections("inet")]


class Attempts:
    """Moments at which to look whether a program is ready."""

    def __init__(self, program: Program) -> None:
        self._program, self._end = program, time.monotonic() + _START_S
        self._first = True

    def __iter__(self) -> Attempts:
        return self

    def __next__(self) -> None:
        if not self._first:
            time.sleep(0.05)
        self._first = False
        if not self._program.runs or time.monotonic() > self._end:
            self._program.kill()
            raise RuntimeError(f"a server of the tests did not start:\n{self._program.log}")
