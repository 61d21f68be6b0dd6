"""How much memory a process took."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["peak_bytes", "peak_of"]


def peak_bytes(pid: int | str = "self") -> int:
    """Return the most memory that a process has taken; only Linux knows that of another one."""
    # What Linux gives by getrusage is not less than what the parent had taken.
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        (found,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(found) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_of(code: str) -> int:
    """Return the most memory that a Python process takes, in bytes, seen from outside."""
    peak = 0
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            peak = int(found[1]) * 1024 if found else peak
            time.sleep(0.005)
    assert process.returncode == 0
    return peak
