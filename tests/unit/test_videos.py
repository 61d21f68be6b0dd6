"""What a stimulus must be, and which of its frames are seen."""

from __future__ import annotations

import re
import tracemalloc

import dask.array as da
import numpy as np
import pytest
import zarr

from maskcube.insilico import StimulusError
from maskcube.insilico.videos import check_videos, frames_of

GOOD = (2, 20, 3, 8, 8)


def fault(stimulus: object) -> str:
    with pytest.raises(
        StimulusError, match=r"no videos \(video, frame, 3, height, width\)"
    ) as told:
        check_videos(stimulus)
    return str(told.value)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", ">i2", "u2", "i4", ">u4", "i8", "u8", ">u8"])
def test_whole_numbers_of_any_width_are_taken(dtype: str) -> None:
    videos = np.zeros(GOOD, dtype)
    videos[-1, -1] = 100
    assert check_videos(videos) is videos
    seen = frames_of(videos)
    assert seen.dtype == np.uint8
    assert seen.shape == (2, 14, 3, 8, 8)
    assert (seen[-1, -1] == 100).all()


def test_arrays_like_those_of_numpy_are_taken() -> None:
    for videos in (da.zeros(GOOD, dtype=np.uint8), zarr.zeros(GOOD, dtype=np.uint8, store={})):
        assert check_videos(videos) is videos


@pytest.mark.parametrize(
    ("stimulus", "advice"),
    [
        ([np.zeros((20, 3, 8, 8), np.uint8)], "this is a list: np.stack(stimulus)"),
        ("a.mp4", "this is a str: no files are read here"),
        (None, "NoneType"),
        (np.uint8(3), "numpy.uint8"),
        (np.ma.masked_equal(np.zeros(GOOD, np.uint8), 0), "stimulus.filled(0)"),
    ],
    ids=["list", "str", "None", "scalar", "masked"],
)
def test_what_is_no_array_is_named(stimulus: object, advice: str) -> None:
    told = fault(stimulus)
    assert "a numpy array is wanted" in told
    assert advice in told


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        ("f4", "(stimulus * 255).round().astype('uint8')"),
        ("f8", "stimulus.round().astype('uint8')"),
        ("f2", "float16"),
        ("?", "stimulus * np.uint8(255)"),
        ("c8", "complex64"),
        ("O", "np.stack"),
        ("M8[s]", "datetime64[s]"),
        ("U3", "uint8"),
    ],
)
def test_what_are_no_whole_numbers_is_refused(dtype: str, advice: str) -> None:
    assert advice in fault(np.zeros(GOOD, dtype))


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((20, 3, 8, 8), "4 dimensions (20, 3, 8, 8), not 5: stimulus[None]"),
        ((3, 8, 8), "3 dimensions"),
        ((1, 2, 20, 3, 8, 8), "6 dimensions"),
        ((2, 20, 8, 8, 3), "colours last: np.moveaxis(stimulus, -1, 2)"),
        ((2, 3, 20, 8, 8), "colours before frames: np.moveaxis(stimulus, 1, 2)"),
        ((2, 20, 1, 8, 8), "1 channels in (2, 20, 1, 8, 8), not red, green and blue: grey"),
        ((2, 20, 4, 8, 8), "with opacity? stimulus[:, :, :3]"),
        ((2, 20, 5, 8, 8), "5 channels"),
        (
            (2, 13, 3, 8, 8),
            "13 frames, at least 14 are wanted: repeat the last one until there are 14",
        ),
        ((2, 0, 3, 8, 8), "0 frames"),
        ((2, 20, 3, 8, 9), "8 high and 9 wide"),
        ((2, 20, 3, 0, 0), "no pixels"),
    ],
    ids=str,
)
def test_a_wrong_shape_is_named_with_what_to_do(shape: tuple[int, ...], advice: str) -> None:
    told = fault(np.zeros(shape, np.uint8))
    assert advice in told
    assert "\n" not in told


def test_all_faults_are_named_at_once() -> None:
    told = fault(np.zeros((2, 10, 6, 8, 3), np.float32)).splitlines()
    assert len(told) == 5
    for line, what in zip(
        told[1:], ["float32", "colours last", "10 frames", "6 high"], strict=True
    ):
        assert line.startswith("  - ")
        assert what in line


@pytest.mark.parametrize(
    "advice",
    [
        "np.moveaxis(stimulus, -1, 2)",
        "np.moveaxis(stimulus, 1, 2)",
        "np.repeat(stimulus, 3, axis=2)",
        "stimulus[:, :, :3]",
        "stimulus[None]",
        "np.concatenate([stimulus, np.repeat(stimulus[:, -1:], 4, axis=1)], axis=1)",
    ],
)
def test_the_advice_helps(advice: str) -> None:
    shapes: list[tuple[int, ...]] = [
        (2, 20, 8, 8, 3),
        (2, 3, 20, 8, 8),
        (2, 20, 1, 8, 8),
        (2, 20, 4, 8, 8),
    ]
    shapes += [(20, 3, 8, 8), (2, 10, 3, 8, 8)]
    (told,) = [shape for shape in shapes if advice in fault(np.zeros(shape, np.uint8))]
    stimulus = np.zeros(told, np.uint8)
    check_videos(eval(advice, {"np": np, "stimulus": stimulus}))  # noqa: S307 - our own words


@pytest.mark.parametrize("n_frames", range(14, 40))
def test_the_frames_are_evenly_spaced(n_frames: int) -> None:
    videos = np.broadcast_to(np.arange(n_frames).reshape(1, -1, 1, 1, 1), (1, n_frames, 3, 2, 2))
    seen = frames_of(videos)[0, :, 0, 0, 0].tolist()
    # In whole numbers, where the fraction of `np.linspace` is cut off.
    assert seen == [(n_frames - 1) * k // 13 for k in range(14)]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("i2", 256), ("i2", -1), ("i1", -128), (">i8", 2**62), ("u8", 2**64 - 1), ("i4", 1000)],
)
@pytest.mark.parametrize("frame", [0, 7, 1, 19])
def test_other_values_are_refused_wherever_they_are(dtype: str, value: int, frame: int) -> None:
    """Also in frames that are not seen."""
    videos = np.full(GOOD, 7, dtype)
    videos[1, frame, 2, 7, 7] = value
    least, most = sorted([7, value])
    with pytest.raises(StimulusError, match=re.escape(f"go from {least} to {most};")):
        frames_of(videos)


def test_no_videos_have_no_frames() -> None:
    for dtype in (np.uint8, np.int64):
        assert frames_of(check_videos(np.zeros((0, *GOOD[1:]), dtype))).shape == (0, 14, 3, 8, 8)


def test_of_read_only_and_repeated_arrays_no_more_is_copied_than_is_seen() -> None:
    """A picture shown for three seconds, a thousand times: 17 GB, were it copied."""
    picture = np.arange(3 * 8 * 8, dtype=np.int64).reshape(3, 8, 8)
    videos = np.broadcast_to(picture, (1000, 11_000, 3, 8, 8))
    tracemalloc.start()
    seen = frames_of(check_videos(videos))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(seen[999, 13], picture)
    assert peak < 2 * seen.nbytes
    with pytest.raises(StimulusError, match="go from 0 to 382;"):
        frames_of(np.broadcast_to(2 * picture, videos.shape))
