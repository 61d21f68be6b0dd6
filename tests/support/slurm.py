"""A real Slurm of one node, for a test: controller, node daemon and munge, on loopback only."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

__all__ = ["Slurm", "SlurmMissing", "slurm"]

_DAEMONS = ["munged", "slurmctld", "slurmd"]
_COMMANDS = ["sbatch", "scancel", "scontrol", "sinfo", "squeue", "setpriv"]
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_DEADLINE_SECONDS = 60

_CONFIGURATION = """
ClusterName=maskcube
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
# Without these two both daemons listen on every address.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# Neither cgroups nor systemd: a container has none to give.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# As many jobs as the tests want, whatever this machine has.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={n_cpus} RealMemory={memory_mib}
PartitionName=main Nodes=node Default=YES MaxTime=INFINITE State=UP
"""


class SlurmMissing(RuntimeError):
    """Slurm is not installed."""


class Slurm:
    """A running Slurm; its commands find it by the environment variable ``SLURM_CONF``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"

    def ask(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(self.configuration)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def jobs(self) -> list[str]:
        """Return the numbers of the jobs that run or wait."""
        return self.ask("squeue", "--noheader", "--format=%A").split()

    def wait_for_end(self, job: str | None = None) -> None:
        """Wait until a job has ended, or every job."""
        until = time.monotonic() + _DEADLINE_SECONDS
        while (jobs := self.jobs()) and (job is None or job in jobs):
            if time.monotonic() > until:
                raise RuntimeError(f"jobs do not end: {', '.join(jobs)}")
            time.sleep(0.1)

    def cancel(self, job: str) -> None:
        """End a job as Slurm does: SIGTERM, and SIGKILL a little later."""
        self.ask("scancel", job)

    def kill(self, job: str) -> None:
        """End a job as if its node had lost power: SIGKILL to everything in it."""
        self.ask("scancel", "--full", "--signal=KILL", job)


@contextmanager
def slurm(*, n_cpus: int = 2, memory_mib: int = 4096) -> Iterator[Slurm]:
    """Start a Slurm of one node; end its jobs and what was started, and nothing else.

    Raises
    ------
    SlurmMissing
        When Slurm is not installed.
    """
    missing = [name for name in (*_DAEMONS, *_COMMANDS) if shutil.which(name, path=_PATH) is None]
    if missing:
        raise SlurmMissing(
            f"not installed: {', '.join(missing)}. `scripts/slurm` installs what this test needs"
        )
    with ExitStack() as stack:
        # Not pytest's own folder: munge wants a socket that others may reach, in a short path.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        folder.chmod(0o755)
        running = Slurm(folder)
        _configure(running, n_cpus, memory_mib)
        _start(
            stack,
            folder,
            ["munged", "--foreground", "--num-threads=2"]
            + [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed")]
            + [f"--socket={folder}/munge.socket"],
            (folder / "munge.socket").exists,
        )
        _start(
            stack,
            folder,
            ["slurmctld", "-D", "-f", str(running.configuration)],
            lambda: "is UP" in running.ask("scontrol", "ping"),
        )
        _start(
            stack,
            folder,
            ["slurmd", "-D", "-N", "node", "-f", str(running.configuration)],
            lambda: running.ask("sinfo", "--noheader", "--format=%T").strip() == "idle",
        )
        stack.callback(_end_jobs, running)
        yield running


def _configure(running: Slurm, n_cpus: int, memory_mib: int) -> None:
    folder = running.folder
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    controller_port, node_port = _free_ports(2)
    running.configuration.write_text(
        _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            folder=folder,
            controller_port=controller_port,
            node_port=node_port,
            n_cpus=n_cpus,
            memory_mib=memory_mib,
        )
    )


def _start(
    stack: ExitStack, folder: Path, command: Sequence[str], is_ready: Callable[[], bool]
) -> None:
    """Start a daemon that ends with the stack, or with this process; wait until it is ready."""
    log = folder / f"{command[0]}.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            ["/usr/bin/env", "setpriv", "--pdeathsig=KILL", *command],
            env={**os.environ, "PATH": _PATH},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is for the test
        )
    stack.callback(_end, daemon)
    until = time.monotonic() + _DEADLINE_SECONDS
    while daemon.poll() is None and time.monotonic() < until:
        try:
            if is_ready():
                return
        except subprocess.SubprocessError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{command[0]} did not become ready:\n{log.read_text()[-2000:]}")


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(timeout=10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _end_jobs(running: Slurm) -> None:
    """End every job: it outlives the daemon that has started it."""
    for job in running.jobs():
        running.kill(job)
    running.wait_for_end()


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
