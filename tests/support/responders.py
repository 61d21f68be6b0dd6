"""Small models that answer to videos, and what they answer to objects, computed one by one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from maskcube.insilico.effects import object_effects

__all__ = ["Answers", "Deadly", "expected", "pictures_of", "write"]

N_VOXELS = 7
_PRIME = 251


class Answers:
    """A model whose answers are whole numbers, and so the same in any batch; it counts stimuli.

    Parameters
    ----------
    n_voxels : int
        How many answers there are to a video.
    seed : int
        Another one is another model.
    """

    def __init__(self, n_voxels: int = N_VOXELS, seed: int = 0) -> None:
        self.n_voxels = n_voxels
        self.seed = seed
        self.calls: list[int] = []
        """Stimuli of each call."""
        self.shapes: set[tuple[int, ...]] = set()
        self.at_once = 0
        """Most calls that were under way together."""
        self._inside: list[None] = []

    @property
    def n_encoded(self) -> int:
        return sum(self.calls)

    def encode(self, stimulus: Any) -> Any:
        self._inside.append(None)
        self.at_once = max(self.at_once, len(self._inside))
        assert stimulus.dtype == np.uint8
        assert not stimulus.flags.writeable
        # All frames are the same memory.
        assert stimulus.strides[1] == 0
        self.calls.append(len(stimulus))
        self.shapes.add(stimulus.shape[1:])
        time.sleep(0.0005)
        answers = np.stack([self.answer(video[-1]) for video in stimulus])
        self._inside.pop()
        return answers

    def answer(self, frame: Any) -> Any:
        """Return the answer to one still, (voxel,) float64."""
        weights = np.random.default_rng(self.seed).integers(0, _PRIME, (self.n_voxels, frame.size))
        return (weights @ frame.reshape(-1).astype(np.int64) % _PRIME).astype(np.float64)

    def __getstate__(self) -> dict[str, Any]:
        return {"n_voxels": self.n_voxels, "seed": self.seed}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class Deadly(Answers):
    """A model that kills its process after so many calls."""

    def __init__(self, n_calls: int) -> None:
        super().__init__()
        self._n_calls = n_calls

    def encode(self, stimulus: Any) -> Any:
        if len(self.calls) == self._n_calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(stimulus)


Deadly.__name__ = Answers.__name__
"""To be taken for the same model that lives."""


def pictures_of(names: Sequence[str], size: tuple[int, int]) -> dict[str, Any]:
    """Return an image of noise for each name."""
    rng = np.random.default_rng(3)
    return {name: rng.integers(0, 256, (*size, 3), np.uint8) for name in dict.fromkeys(names)}


def expected(
    images: Mapping[str, Any],
    names: Sequence[str],
    masks: Any,
    answer: Callable[[Any], Any],
    fill: Sequence[int] = (128, 128, 128),
) -> Any:
    """Return (mask, condition, voxel), pixel by pixel, of masks (mask, y, x) and their images."""
    found = []
    for name, mask in zip(names, masks, strict=True):
        intact = np.moveaxis(images[name], -1, 0)
        kept, removed = intact.copy(), intact.copy()
        for channel, level in enumerate(fill):
            for y, x in np.ndindex(mask.shape):
                (removed if mask[y, x] else kept)[channel, y, x] = level
        found.append([answer(intact), answer(kept), answer(removed)])
    return np.array(found, np.float32)


def masks_of(n_masks: int = 6) -> xr.DataArray:
    """Return masks of three images in memory."""
    rng = np.random.default_rng(5)
    masks = (rng.random((n_masks, 4, 5)) < 0.5).astype(np.uint8)
    labels = {
        "image": ("mask", [f"{row // 2}.png" for row in range(n_masks)]),
        "noun": ("mask", [["hand", "cup"][row % 2] for row in range(n_masks)]),
        "instance": ("mask", [0] * n_masks),
    }
    return xr.DataArray(masks, labels, ("mask", "y", "x"))


def write(target: Path, **options: Any) -> None:
    """Write the answers to a few objects to a store; for processes of their own."""
    masks = masks_of()
    images = pictures_of(masks["image"].values.tolist(), (4, 5))
    model = options.pop("model", None) or Answers()
    object_effects(images, masks, model, store=target, progress=False, batch_size=2, **options)
