"""The machine: what the figures were measured on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["describe"]

LIBRARIES = (
    "maskcube",
    "numpy",
    "pandas",
    "xarray",
    "dask",
    "zarr",
    "numcodecs",
    "h5py",
    "tensorstore",
    "zarrs",
    "obstore",
    "s3fs",
    "distributed",
    "pycocotools",
    "rechunker",
)


def describe() -> dict[str, Any]:
    """Return cores, memory, processor, versions and the date."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "n_cores": n_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
    }


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
