"""torch and what judges by it must all be here, in an environment of their own."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

JUDGES = ("nibabel", "sklearn", "torch", "torchvision")


def pytest_configure() -> None:
    """Stop when one is missing: a test that cannot judge must not pass."""
    missing = [name for name in JUDGES if find_spec(name) is None]
    if missing:
        raise pytest.UsageError(
            f"tests/with_torch needs {', '.join(missing)}, not installed here: run"
            " scripts/test --torch, which makes the environment that has them"
        )
