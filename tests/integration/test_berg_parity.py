"""The same answers as BERG's pipeline, from BERG's files: models whose features need no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from berg_folder import REGIONS, write_berg_folder
from berg_reference import BergReference, mean_colours, region_rows
from numpy.typing import NDArray

from maskcube.insilico import BERG

MODEL = "fmri-bmd-s3d"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_berg_folder(tmp_path_factory.mktemp("berg"), subjects=(1, 4)).root


def videos(n_videos: int, n_frames: int = 20, side: int = 24) -> NDArray[np.uint8]:
    rng = np.random.default_rng([n_videos, n_frames, side])
    return rng.integers(0, 256, (n_videos, n_frames, 3, side, side), np.uint8)


def answers(folder: Path, stimulus: Any, subject: int = 1, **selection: Any) -> NDArray[Any]:
    berg = BERG(folder)
    model = berg.get_encoding_model(MODEL, subject=subject, selection=selection or None)
    found = berg.encode(model, stimulus, show_progress=False)
    assert isinstance(found, np.ndarray)
    return found


def assert_equal(found: NDArray[Any], expected: NDArray[np.float32]) -> None:
    """Equal as far as BERG's answers are to those that it gives of other batches."""
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5 * expected.std())


@pytest.mark.parametrize("n_frames", [14, 15, 31, 90])
@pytest.mark.parametrize("side", [16, 21])
def test_the_whole_brain(folder: Path, n_frames: int, side: int) -> None:
    stimulus = videos(3, n_frames, side)
    expected = BergReference(folder, mean_colours).encode(stimulus)
    assert_equal(answers(folder, stimulus), expected)


@pytest.mark.parametrize("n_videos", [1, 9, 10, 11, 25])
def test_any_number_of_videos(folder: Path, n_videos: int) -> None:
    stimulus = videos(n_videos)
    expected = BergReference(folder, mean_colours).encode(stimulus)
    assert_equal(answers(folder, stimulus), expected)


@pytest.mark.parametrize("subject", [1, 4])
def test_every_region(folder: Path, subject: int) -> None:
    """Its voxels are those of BERG's whole brain in the rows of its places."""
    stimulus = videos(2)
    whole = BergReference(folder, mean_colours, subject).encode(stimulus)
    for region in REGIONS:
        rows = region_rows(folder, region, subject)
        assert len(rows) > 1
        assert_equal(answers(folder, stimulus, subject, roi=region), whole[:, rows])


def test_chosen_voxels(folder: Path) -> None:
    stimulus = videos(2)
    n_voxels = BERG(folder).get_encoding_model(MODEL, subject=1).n_voxels
    chosen = np.random.default_rng(0).random(n_voxels) < 0.1
    expected = BergReference(folder, mean_colours, voxels=chosen).encode(stimulus)
    for voxels in (chosen, chosen.astype(int), chosen.tolist(), chosen.astype(float)):
        assert_equal(answers(folder, stimulus, voxels=voxels), expected)


def test_a_part_is_the_slice_of_the_whole(folder: Path) -> None:
    stimulus = videos(4)
    whole = answers(folder, stimulus)
    for region in ("lV1v", "rBA2", "BMDgeneral"):
        part = answers(folder, stimulus, roi=region)
        np.testing.assert_allclose(part, whole[:, region_rows(folder, region)], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int64", "int16", ">i2", "uint16", ">u8", "int32"])
def test_integers_of_any_width_are_bytes(folder: Path, dtype: str) -> None:
    """BERG divides them by the largest value of their type, and answers the same for all."""
    stimulus = videos(2)
    np.testing.assert_array_equal(
        answers(folder, stimulus.astype(dtype)), answers(folder, stimulus)
    )


def test_no_videos_have_no_responses(folder: Path) -> None:
    whole = answers(folder, videos(1))
    none = answers(folder, videos(1)[:0])
    assert none.shape == (0, whole.shape[1])
    assert none.dtype == np.float32


@pytest.mark.parametrize(
    "write",
    [
        {"dtype": "float64"},
        {"order": "F"},
        {"layout": "old"},
        {"dtype": "float64", "order": "F", "n_components": 7, "n_voxels": 301},
    ],
    ids=str,
)
def test_however_they_were_written(write: dict[str, Any], tmp_path: Path) -> None:
    folder = write_berg_folder(tmp_path, **write).root
    stimulus = videos(3)
    assert_equal(answers(folder, stimulus), BergReference(folder, mean_colours).encode(stimulus))
