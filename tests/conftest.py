"""Datasets and stores that tests share; each is made once for each test process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from reference import Source, write_source
from servers import Azurite, Moto, Nginx, SeaweedFS

import maskcube

# Machines are shared and noisy: a slow example is no failure. What fails once must fail again.
settings.register_profile("maskcube", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("maskcube")


@pytest.fixture(autouse=True)
def _no_outside_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a test may ask a cloud for credentials."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the dataset of the documentation: 24 images of 1000 x 1000 pixels."""
    return maskcube.sample_dataset(tmp_path_factory.mktemp("sample") / "laion-fmri")


@pytest.fixture(scope="session")
def store(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of `dataset`."""
    path = tmp_path_factory.mktemp("store") / "masks.zarr"
    maskcube.convert(dataset, path, progress=False)
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return 150 small masks, no multiple of a shard, with an unsorted CSV."""
    return write_source(tmp_path_factory.mktemp("small"), n_masks=150, sorted_rows=False)


@pytest.fixture(scope="session")
def small_store(small: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of `small`."""
    path = tmp_path_factory.mktemp("small-store") / "masks.zarr"
    maskcube.convert(small.folder, path, progress=False)
    return path


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedFS]:
    """Run a server of S3 that checks keys; a test makes itself a bucket with `new_bucket`."""
    with SeaweedFS() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """Run another server of S3."""
    with Moto() as server:
        yield server


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Run a server of Azure's blobs."""
    with Azurite() as server:
        yield server


@pytest.fixture(scope="session")
def nginx() -> Iterator[Nginx]:
    """Run a server of files over https."""
    with Nginx() as server:
        yield server


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261121)
