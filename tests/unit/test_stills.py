"""What of an image is shown, and what a model may answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import xarray as xr
from responders import Answers

from maskcube.errors import InvalidOption
from maskcube.insilico.encoder import Encoder
from maskcube.insilico.stills import CONDITIONS, Stills, as_videos, fill_of

SIZE = (4, 5)


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_stills_show_what_they_say(rng: np.random.Generator, dtype: type) -> None:
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    mask: Any = (rng.random(SIZE) < 0.5).astype(dtype)
    stills = Stills(image, (1, 2, 3))
    intact, kept, removed = (stills.of(each, mask) for each in range(len(CONDITIONS)))
    inside = mask.astype(bool)
    np.testing.assert_array_equal(np.moveaxis(intact, 0, -1), image)
    for still, shown in ((kept, inside), (removed, ~inside)):
        pixels = np.moveaxis(still, 0, -1)
        np.testing.assert_array_equal(pixels[shown], image[shown])
        assert (pixels[~shown] == [1, 2, 3]).all()
        assert still.dtype == np.uint8


def test_a_video_is_one_still_in_memory() -> None:
    videos = as_videos([np.zeros((3, 1000, 1000), np.uint8)] * 2, 90)
    assert videos.shape == (2, 90, 3, 1000, 1000)
    assert videos.base is not None
    assert videos.strides[1] == 0
    with pytest.raises(ValueError, match="read-only"):
        videos[0, 0] = 1


@pytest.mark.parametrize(
    ("fill", "found"),
    [
        (0, (0, 0, 0)),
        (np.uint8(255), (255, 255, 255)),
        ((1, 2, 3), (1, 2, 3)),
        (np.array([4, 5, 6]), (4, 5, 6)),
    ],
)
def test_a_fill(fill: Any, found: tuple[int, ...]) -> None:
    assert fill_of(fill) == found


@pytest.mark.parametrize(
    "fill", [-1, 256, 0.5, True, None, "128", (1, 2), (1, 2, 3, 4), (1, 2, 300)]
)
def test_no_fill(fill: Any) -> None:
    with pytest.raises(InvalidOption, match=r"fill=.*: give a grey from 0 to 255"):
        fill_of(fill)


class Odd(Answers):
    """A model that answers with whatever it is told to."""

    def __init__(self, answers: Any) -> None:
        super().__init__()
        self._answers = answers

    def encode(self, stimulus: Any) -> Any:
        super().encode(stimulus)
        return self._answers


class Tensor:
    """What torch answers with while gradients are wanted: numpy cannot have it."""

    def __init__(self, values: Any) -> None:
        self._values, self._is_free = values, False

    def detach(self) -> Tensor:
        free = Tensor(self._values)
        free._is_free = True
        return free

    def cpu(self) -> Tensor:
        return self

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if not self._is_free:
            raise RuntimeError("it requires grad")
        return np.array(self._values, dtype)


@pytest.mark.parametrize("kind", [list, Tensor, np.array, lambda it: np.array(it, np.float64)])
def test_an_answer_of_any_kind(kind: Any) -> None:
    answer = Encoder(Odd(kind([[1, 2, 3, 4, 5, 6, 7]])), 3, SIZE)([np.zeros((3, *SIZE), np.uint8)])
    assert answer.dtype == np.float32
    assert answer.tolist() == [[1, 2, 3, 4, 5, 6, 7]]


def test_an_answer_is_kept_though_the_model_uses_its_memory_again() -> None:
    answers = np.ones((1, 7), np.float32)
    found = Encoder(Odd(answers), 3, SIZE)([np.zeros((3, *SIZE), np.uint8)])
    answers[:] = 9
    assert (found == 1).all()


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (np.zeros((2, 7)), r"answers \(2, 7\) to 1 videos, where \(1, 7\)"),
        (np.zeros((1, 8)), r"answers \(1, 8\)"),
        (np.zeros(7), r"answers \(7,\)"),
        (None, r"no array of numbers, but a NoneType"),
        ([["a"] * 7], "no array of numbers, but a list of <U1"),
        ([[1], [2, 3]], "no array of numbers, but a list"),
        (np.zeros((1, 7), complex), "complex128"),
    ],
)
def test_an_answer_that_is_none(answers: Any, told: str) -> None:
    with pytest.raises(InvalidOption, match=f"model 'Odd' .*{told}"):
        Encoder(Odd(answers), 3, SIZE)([np.zeros((3, *SIZE), np.uint8)])


class Silent:
    """A model that says nothing of itself."""

    def __init__(self) -> None:
        self.n_encoded = 0

    def encode(self, stimulus: Any) -> Any:
        self.n_encoded += len(stimulus)
        return stimulus[:, 0].reshape(len(stimulus), -1)[:, :4]


def test_a_model_that_says_nothing_is_asked_once() -> None:
    model = Silent()
    encoder = Encoder(model, 3, SIZE)
    assert (encoder.n_voxels, model.n_encoded) == (4, 1)
    assert encoder.coordinates()["voxel"].values.tolist() == [0, 1, 2, 3]
    assert encoder.attributes == {"units": "1", "model": "Silent"}


def test_a_model_that_says_much() -> None:
    model: Any = Silent()
    model.coords = xr.Coordinates({"voxel": [5, 6], "depth": ("voxel", [0.1, 0.2])})
    model.attributes = {"units": "K", "subject": 3}
    encoder = Encoder(model, 3, SIZE)
    assert (encoder.n_voxels, model.n_encoded) == (2, 0)
    assert encoder.coordinates()["depth"].values.tolist() == [0.1, 0.2]
    assert encoder.attributes == {"units": "K", "model": "Silent", "subject": 3}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"n_voxels": 0}, r"model.n_voxels=0: give a number of at least 1"),
        ({"n_voxels": "7"}, r"model.n_voxels='7'"),
        ({"n_voxels": 3, "coords": xr.Coordinates({"voxel": [1, 2]})}, "not 'voxel' of 3 voxels"),
        ({"n_voxels": 3, "coords": {"place": [1, 2]}}, r"sizes \{'place': 2\}"),
        ({"n_voxels": 3, "coords": 5}, "are no coordinates of xarray"),
    ],
)
def test_a_model_that_says_what_cannot_be(changes: dict[str, Any], told: str) -> None:
    model = Silent()
    vars(model).update(changes)
    with pytest.raises(InvalidOption, match=told):
        Encoder(model, 3, SIZE).coordinates()


@pytest.mark.parametrize("answers", [np.zeros(4), np.zeros((2, 4)), 5])
def test_a_silent_model_that_answers_strangely(answers: Any) -> None:
    model: Any = Silent()
    model.encode = lambda _: answers
    with pytest.raises(InvalidOption, match=r"answers .* to 1 video, where \(1, voxel\)"):
        Encoder(model, 3, SIZE)


@pytest.mark.parametrize("model", [None, object(), 3])
def test_no_model(model: Any) -> None:
    with pytest.raises(InvalidOption, match=r"which has no encode\(stimulus\)"):
        Encoder(model, 3, SIZE)


@pytest.mark.parametrize("n_frames", [0, -1, 2.5, None, True])
def test_no_frames(n_frames: Any) -> None:
    with pytest.raises(InvalidOption, match="n_frames="):
        Encoder(Answers(), n_frames, SIZE)


def test_threads_wait_for_each_other() -> None:
    """Of one model, though it is asked through several encoders."""
    model = Answers()
    encoders = [Encoder(model, 3, SIZE) for _ in range(2)]
    start = threading.Barrier(4)

    def ask(number: int) -> None:
        start.wait()
        for _ in range(20):
            encoders[number % 2]([np.zeros((3, *SIZE), np.uint8)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    assert (model.n_encoded, model.at_once) == (80, 1)
