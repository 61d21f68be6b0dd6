"""Who wrote a store, and when, for its records."""

from __future__ import annotations

import datetime as dt
import os
import time
from importlib.metadata import version

from maskcube.errors import InvalidOption

__all__ = ["generator", "now"]


def generator() -> str:
    """Return name and version of what writes."""
    return f"maskcube {version('maskcube')}"


def now() -> str:
    """Return the time, UTC, ISO 8601, which SOURCE_DATE_EPOCH [1]_ can fix.

    Raises
    ------
    InvalidOption
        When SOURCE_DATE_EPOCH is no number of seconds.

    .. [1] https://reproducible-builds.org/specs/source-date-epoch/
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    if fixed and not fixed.isdecimal():
        raise InvalidOption(f"SOURCE_DATE_EPOCH={fixed!r} is no number of seconds")
    seconds = int(fixed) if fixed else time.time()
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
