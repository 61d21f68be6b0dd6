"""How much memory a process took."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

__all__ = ["peak_bytes"]

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the most memory that this process has taken."""
    # What Linux gives by getrusage is not less than what the parent had taken.
    if _STATUS.exists():
        (found,) = re.findall(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        return int(found) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
