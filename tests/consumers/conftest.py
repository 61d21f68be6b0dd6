"""The libraries that read what is exported must all be here, in an environment of their own."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

CONSUMERS = (
    "clearml",
    "datumaro",
    "faster_coco_eval",
    "lvis",
    "nucleus",
    "ome_zarr",
    "ome_zarr_models",
    "scipy",
)


def pytest_configure(config: pytest.Config) -> None:
    """Stop when one is missing: a test that cannot judge must not pass."""
    missing = [name for name in CONSUMERS if find_spec(name) is None]
    if missing:
        raise pytest.UsageError(
            f"tests/consumers needs {', '.join(missing)}, not installed here: run"
            " scripts/test tests/consumers, which makes the environment that has them"
        )
    # What they do that will be forbidden one day is theirs to mend.
    ours = "maskcube|tests|conftest|test_"
    for category in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"):
        config.addinivalue_line("filterwarnings", rf"ignore::{category}:(?!{ours})")
