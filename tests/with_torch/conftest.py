"""torch and what judges by it must all be here, in an environment of their own."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def state() -> dict[str, Any]:
    """Return random weights of S3D, by torchvision's names."""
    from torchvision_shim import random_state

    return random_state()


@pytest.fixture(scope="session")
def checkpoint(state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of `state`, as torch saves it."""
    import torch

    path = tmp_path_factory.mktemp("s3d") / "weights.pth"
    torch.save(state, path)
    return path
