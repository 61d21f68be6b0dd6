"""Fuzz every target for some minutes; ``scripts/fuzz`` calls this in an environment of its own.

Each target runs in a process of its own, which may crash, hang or take too much memory: the bytes
that made it do so are kept in a folder. Coverage leads the way where atheris is installed; good
bytes changed at random do where it is not.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from memory import peak_bytes

from fuzz.mutation import mutated
from fuzz.targets import TARGETS

MOST_BYTES = 2**30
_RESERVE_BYTES = 2**32
"""What a process may ask for at most, so that a fault does not take the machine with it."""


class Outcome(NamedTuple):
    """What happened to a target."""

    n_runs: int
    seconds: float
    """Of the longest run."""
    peak_bytes: int
    fault: str
    """Empty if there was none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, print a summary, and return 1 if there was a fault."""
    asked = _parser().parse_args(arguments)
    asked.kept.mkdir(parents=True, exist_ok=True)
    if asked.one:
        _run(asked.one, asked)
        return 0
    names = asked.target or list(TARGETS)
    guided = find_spec("atheris") is not None and not asked.unguided
    print(
        "led by coverage (atheris, which tells whole seconds)" if guided else "changed at random",
        flush=True,
    )
    print(f"{'target':>8} {'runs':>11} {'longest':>9} {'peak':>9}  fault")
    outcomes = []
    for name in names:
        outcome = (_guided if guided else _watched)(name, asked.minutes * 60 / len(names), asked)
        outcomes.append(outcome)
        print(f"{name:>8} {_told(outcome)}", flush=True)
    whole = Outcome(
        sum(outcome.n_runs for outcome in outcomes),
        max(outcome.seconds for outcome in outcomes),
        max(outcome.peak_bytes for outcome in outcomes),
        f"{sum(bool(outcome.fault) for outcome in outcomes)} of {len(outcomes)} targets",
    )
    print(f"{'all':>8} {_told(whole)}")
    return int(any(outcome.fault for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("minutes", nargs="?", type=float, default=10, help="for all targets")
    parser.add_argument("--target", action="append", choices=TARGETS, help="one of them only")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31)
    parser.add_argument("--longest", type=int, default=10, help="seconds that a run may take")
    parser.add_argument("--unguided", action="store_true", help="not led by coverage")
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir(), "maskcube-fuzz"))
    parser.add_argument("--one", choices=TARGETS, help=argparse.SUPPRESS)
    return parser


def _told(outcome: Outcome) -> str:
    peak = f"{outcome.peak_bytes / 2**20:,.0f} MiB"
    return f"{outcome.n_runs:>11,} {outcome.seconds:>7.2f} s {peak:>9}  {outcome.fault or 'none'}"


def _watched(name: str, seconds: float, asked: argparse.Namespace) -> Outcome:
    """Fuzz a target in a process of its own, by changes at random."""
    command = [sys.executable, "-m", "fuzz", str(seconds / 60), "--one", name]
    command += ["--seed", str(asked.seed), "--kept", str(asked.kept)]
    command += ["--longest", str(asked.longest)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    n_runs, longest, most = told[-1] if told else (0, 0.0, 0)
    fault = ""
    if done.returncode == -signal.SIGALRM:
        fault = f"more than {asked.longest} s"
    elif done.returncode < 0:
        fault = f"a crash, signal {-done.returncode}"
    elif done.returncode or not told:
        fault = (done.stderr.strip().splitlines() or ["no word"])[-1]
    elif most > MOST_BYTES:
        fault = "more than 1 GiB"
    if fault:
        fault = f"{fault}: see {asked.kept / name}"
    return Outcome(n_runs, longest, most, fault)


def _run(name: str, asked: argparse.Namespace) -> None:
    """Fuzz a target in this process, telling how it goes; the bytes tried are kept in a file."""
    chance = random.Random(asked.seed)  # noqa: S311 - no secret
    target = TARGETS[name]
    seeds = target.seeds()
    resource.setrlimit(resource.RLIMIT_DATA, (_RESERVE_BYTES, _RESERVE_BYTES))
    end = time.monotonic() + asked.minutes * 60
    longest, most, n_runs = 0.0, 0, 0
    with (asked.kept / name).open("wb", buffering=0) as file:
        while time.monotonic() < end and most <= MOST_BYTES:
            data = mutated(seeds, chance)
            file.seek(0)
            file.truncate()
            file.write(data)
            began = time.monotonic()
            # Not caught: a library in C that does not end is ended all the same.
            signal.alarm(asked.longest)
            try:
                target.check(data)
            finally:
                signal.alarm(0)
            longest = max(longest, time.monotonic() - began)
            most = peak_bytes()
            n_runs += 1
            if n_runs % 1000 == 0:
                print(json.dumps([n_runs, longest, most]), flush=True)
    print(json.dumps([n_runs, longest, most]))


_GUIDED = """
import sys
import atheris
with atheris.instrument_imports(include=["maskcube"], enable_loader_override=False):
    import maskcube.hdf5, maskcube.metadata, maskcube.store, maskcube.texts, maskcube.encoded
    import maskcube.insilico.berg_files
from pathlib import Path
from fuzz.targets import TARGETS

target = TARGETS[sys.argv.pop(1)]
for number, seed in enumerate(target.seeds()):
    Path(sys.argv[1], f"seed-{number}").write_bytes(seed)
atheris.Setup(sys.argv, target.check)
atheris.Fuzz()
"""


def _guided(name: str, seconds: float, asked: argparse.Namespace) -> Outcome:
    """Fuzz a target in a process of its own, led by coverage."""
    with tempfile.TemporaryDirectory() as corpus:
        command = [sys.executable, "-c", _GUIDED, name, corpus]
        command += [f"-max_total_time={max(1, int(seconds))}", f"-timeout={asked.longest}"]
        command += [f"-rss_limit_mb={MOST_BYTES // 2**20}", f"-seed={asked.seed}"]
        command += [
            "-print_final_stats=1",
            "-max_len=65536",
            f"-artifact_prefix={asked.kept}/{name}-",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, errors="replace"
        )
    found = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
    words = re.findall(r"(?:=+ |ERROR: |SUMMARY: )(.*)", done.stderr)
    fault = "" if done.returncode == 0 and found else f"{words or done.stderr[-200:]}"
    return Outcome(
        int(found.get("number_of_executed_units", 0)),
        float(found.get("slowest_unit_time_sec", 0)),
        int(found.get("peak_rss_mb", 0)) * 2**20,
        f"{fault}: see {asked.kept}/{name}-*" if fault else "",
    )


if __name__ == "__main__":
    sys.exit(main())
