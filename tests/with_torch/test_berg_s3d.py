"""End to end with S3D: videos to responses, against BERG's pipeline with torchvision's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from berg_folder import write_berg_folder
from berg_reference import BergReference, Features, region_rows, s3d_features
from numpy.typing import NDArray

from benchmarks.encoding import MODEL, PEERS, measure, prepare, table
from maskcube.insilico import BERG, convert

N_FEATURES = 4_084_096


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return few components and voxels of all features of S3D."""
    return write_berg_folder(
        tmp_path_factory.mktemp("berg"),
        n_features=N_FEATURES,
        n_components=4,
        n_voxels=200,
        level=0.3,
        spread=0.5,
    ).root


@pytest.fixture(scope="module")
def features(state: dict[str, Any]) -> Features:
    return s3d_features(state)


@pytest.fixture(scope="module")
def reference(folder: Path, features: Features) -> BergReference:
    return BergReference(folder, features)


def videos(n_videos: int, n_frames: int, side: int) -> NDArray[np.uint8]:
    """Return noise of coarse and of fine grain, each video of its own brightness."""
    rng = np.random.default_rng([n_videos, n_frames, side])
    coarse = rng.integers(0, 256, (n_videos, n_frames, 3, 4, 4)).repeat(80, -1).repeat(80, -2)
    fine = rng.integers(0, 64, (n_videos, n_frames, 3, side, side))
    dark = rng.uniform(0.2, 0.8, (n_videos, 1, 1, 1, 1))
    return (dark * coarse[..., :side, :side] + fine / 2).astype(np.uint8)


def answers(place: Path, checkpoint: Path, stimulus: Any, **selection: Any) -> NDArray[Any]:
    model = BERG(place).get_encoding_model(
        MODEL, subject=1, selection=selection or None, device="cpu", backbone=checkpoint
    )
    return model.encode(stimulus)


def assert_equal(found: NDArray[Any], expected: NDArray[np.float32]) -> None:
    """Equal as far as BERG's answers are to those that it gives of other batches."""
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5 * expected.std())


@pytest.mark.parametrize(
    "size",
    [(1, 14, 256), (1, 15, 224), (1, 31, 256), (2, 90, 64), (1, 16, 200), (11, 14, 32)],
)
def test_the_whole_brain(
    size: tuple[int, int, int],
    folder: Path,
    checkpoint: Path,
    reference: BergReference,
) -> None:
    stimulus = videos(*size)
    assert_equal(answers(folder, checkpoint, stimulus), reference.encode(stimulus))


def test_each_kind_of_selection(folder: Path, checkpoint: Path, features: Features) -> None:
    stimulus = videos(2, 20, 268)
    whole = answers(folder, checkpoint, stimulus)
    rows = region_rows(folder, "lEBA")
    voxels = np.zeros(whole.shape[1], np.uint8)
    voxels[rows] = 1
    expected = BergReference(folder, features, voxels=voxels).encode(stimulus)
    for selection in ({"roi": "lEBA"}, {"voxels": voxels}, {"voxels": voxels.astype(bool)}):
        found = answers(folder, checkpoint, stimulus, **selection)
        assert_equal(found, expected)
        np.testing.assert_allclose(found, whole[:, rows], rtol=0, atol=1e-6 * whole.std())


def test_a_store_answers_the_same(
    folder: Path, checkpoint: Path, features: Features, tmp_path: Path
) -> None:
    store = tmp_path / "models.zarr"
    convert(folder, store, progress=False)
    stimulus = videos(2, 14, 64)
    expected = answers(folder, checkpoint, stimulus)
    np.testing.assert_array_equal(answers(store, checkpoint, stimulus), expected)
    model = BERG(store).get_encoding_model(MODEL, subject=1)
    # Features that torchvision's network has made will do instead of videos.
    assert_equal(model.encode(features(stimulus)), expected)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_real_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """4,084,096 features, 100 components, 108,219 voxels: 2 GB of weights, one region of them."""
    prepare(tmp_path)
    records = measure(tmp_path, repetitions=1)
    with capsys.disabled():
        print(f"\n{table(records)}")  # noqa: T201 - for whoever measures
    berg, *ours = records
    assert len(ours) == len(PEERS) - 1
    for record in ours:
        assert record["off"] < 5e-5
        assert record["load_bytes"] < berg["load_bytes"] / 5
