"""S3D, the network whose features a model is made of.

Inception's blocks of four branches [2]_, where each convolution over space and time is one over
space, then one over time [1]_. Parameters have the names that torchvision gives them, and features
are those that BERG takes: what seven of its layers answer to 14 frames of 224 x 224 pixels.

Everything is computed on frames as on pictures, which is three times as fast on a processor as
convolutions in three dimensions are: pixels are rows, and colours, or what becomes of them, lie
side by side, (video, frame, y, x, channel). Batch normalisation is part of the convolution before
it. The answers differ from torchvision's by some 1e-7 of their size.

.. [1] Xie et al., "Rethinking spatiotemporal feature learning", https://arxiv.org/abs/1712.04851
.. [2] Szegedy et al., "Going deeper with convolutions", https://arxiv.org/abs/1409.4842
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from maskcube.errors import listed

__all__ = ["N_FEATURES", "S3D", "SIDE", "TAPS", "kernels", "state_faults"]

SIDE = 224
"""Height and width of the frames that it sees."""

TAPS = {
    "features.2": (64, 7, 56, 56),
    "features.5.cat": (256, 7, 28, 28),
    "features.7": (480, 4, 14, 14),
    "features.9.cat": (512, 4, 14, 14),
    "features.11.cat": (528, 4, 14, 14),
    "features.13": (832, 2, 7, 7),
    "avgpool": (1024, 1, 1, 1),
}
"""What is taken as features, in this order, by torchvision's names: (channel, frame, y, x) each."""

N_FEATURES = sum(map(math.prod, TAPS.values()))
"""Features of a video: 4,084,096."""

_BLOCKS = {
    5: (64, 96, 128, 16, 32, 32),
    6: (128, 128, 192, 32, 96, 64),
    8: (192, 96, 208, 16, 48, 64),
    9: (160, 112, 224, 24, 64, 64),
    10: (128, 128, 256, 24, 64, 64),
    11: (112, 144, 288, 32, 64, 64),
    12: (256, 160, 320, 32, 128, 128),
    14: (256, 160, 320, 32, 128, 128),
    15: (384, 192, 384, 48, 128, 128),
}
"""Channels in the blocks of Inception: "1x1", "3x3 reduce", "3x3", "5x5 reduce", "5x5" (which S3D
has 3 wide as well), and "pool proj", as the columns are called in the table of [2]_."""

_STEM_CHANNELS = 192
"""Before the first block."""

_EPSILON = 1e-3
"""Added to the variance by batch normalisation."""

_NORMALISED = ("weight", "bias", "running_mean", "running_var")

_LISTED_NAMES = 32


def kernels() -> dict[str, tuple[int, ...]]:
    """Return the convolutions and the shapes of their weights: (to, from, frames, height, width).

    Examples
    --------
    >>> len(kernels()), kernels()["features.0.0"]
    (77, (64, 3, 1, 7, 7))
    """
    found: dict[str, tuple[int, ...]] = {
        "features.0.0": (64, 3, 1, 7, 7),
        "features.0.1": (64, 64, 7, 1, 1),
        "features.2": (64, 64, 1, 1, 1),
        "features.3.0": (_STEM_CHANNELS, 64, 1, 3, 3),
        "features.3.1": (_STEM_CHANNELS, _STEM_CHANNELS, 3, 1, 1),
    }
    given = _STEM_CHANNELS
    for number, (one, reduced, three, reduced_too, three_too, pooled) in _BLOCKS.items():
        block = f"features.{number}"
        found[f"{block}.branch0"] = (one, given, 1, 1, 1)
        for branch, less, more in ((1, reduced, three), (2, reduced_too, three_too)):
            found[f"{block}.branch{branch}.0"] = (less, given, 1, 1, 1)
            found[f"{block}.branch{branch}.1.0"] = (more, less, 1, 3, 3)
            found[f"{block}.branch{branch}.1.1"] = (more, more, 3, 1, 1)
        found[f"{block}.branch3.1"] = (pooled, given, 1, 1, 1)
        given = one + three + three_too + pooled
    return found


def _shapes() -> dict[str, tuple[int, ...]]:
    """Return the parameters that features depend on, and their shapes."""
    found = {}
    for name, shape in kernels().items():
        found[f"{name}.0.weight"] = shape
        found |= {f"{name}.1.{what}": shape[:1] for what in _NORMALISED}
    return found


def _is_unused(name: str) -> bool:
    """Whether features do not depend on it: what names actions, and what training counts."""
    return name.startswith("classifier.") or name.endswith(".num_batches_tracked")


def state_faults(state: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a checkpoint: one sentence for what is missing, and so on.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        Parameters by their names, as ``state_dict`` gives them.
    """
    wanted = _shapes()
    given = {name: tuple(value.shape) for name, value in state.items() if name in wanted}
    kinds = {
        "are missing": [name for name in wanted if name not in state],
        "are not known": [name for name in state if name not in wanted and not _is_unused(name)],
    }
    faults = [
        f"{len(names)} tensors {what}: {listed(names, limit=_LISTED_NAMES)}"
        for what, names in kinds.items()
        if names
    ]
    faults += [
        f"{name!r} is {shape}, not {wanted[name]}"
        for name, shape in given.items()
        if shape != wanted[name]
    ]
    odd = [name for name in given if not _is_sound(name, state[name])]
    if odd:
        faults.append(
            f"{len(odd)} tensors have values that are not finite, or variances below 0:"
            f" {listed(odd, limit=_LISTED_NAMES)}"
        )
    return faults


def _is_sound(name: str, value: Any) -> bool:  # noqa: ANN401 - torch has no types here
    if not value.is_floating_point() or not bool(value.isfinite().all()):
        return False
    return not name.endswith(".running_var") or bool((value >= 0).all())


class S3D:
    """The network, up to its last features.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        A checkpoint without faults: see `state_faults`.
    device : str
        Where to compute, as torch calls it.
    """

    def __init__(self, state: Mapping[str, Any], device: str = "cpu") -> None:
        self._layers = {
            name: _layer(state, name, is_temporal=shape[2] > 1, device=device)
            for name, shape in kernels().items()
        }

    def __call__(self, frames: Any) -> Iterator[Any]:  # noqa: ANN401
        """Yield the features of each of `TAPS`, in order.

        Parameters
        ----------
        frames : torch.Tensor
            (video, 14, 224, 224, 3) float32, normalised. One video is quickest, and its features
            do not depend on others.

        Yields
        ------
        torch.Tensor
            (video, channel, frame, y, x) float32, in no particular order in memory.
        """
        for tapped in self._tapped(frames):
            yield tapped.permute(0, 4, 1, 2, 3)

    def _tapped(self, x: Any) -> Iterator[Any]:  # noqa: ANN401
        x = _pooled(self._separable(x, "features.0", stride=2), stride=2)
        x = self._convolved(x, "features.2")
        yield x
        x = _pooled(self._separable(x, "features.3"), stride=2)
        x = self._block(x, 5)
        yield x
        x = _pooled_in_time(_pooled(self._block(x, 6), stride=2), stride=2)
        yield x
        x = self._block(self._block(x, 8), 9)
        yield x
        x = self._block(self._block(x, 10), 11)
        yield x
        x = _pooled(self._block(x, 12), side=2, stride=2)
        x = x[:, ::2].maximum(x[:, 1::2])
        yield x
        x = self._block(self._block(x, 14), 15)
        yield x.mean((1, 2, 3), keepdim=True)

    def _block(self, x: Any, number: int) -> Any:  # noqa: ANN401
        """Return the answers of a block's four branches, side by side."""
        import torch

        name = f"features.{number}"
        branches = [self._convolved(x, f"{name}.branch0")]
        for branch in (1, 2):
            reduced = self._convolved(x, f"{name}.branch{branch}.0")
            branches.append(self._separable(reduced, f"{name}.branch{branch}.1"))
        pooled = _pooled_in_time(_pooled(x, stride=1), stride=1)
        branches.append(self._convolved(pooled, f"{name}.branch3.1"))
        return torch.cat(branches, -1)

    def _separable(self, x: Any, name: str, stride: int = 1) -> Any:  # noqa: ANN401
        """Return a convolution over space, then over time."""
        return self._convolved(self._convolved(x, f"{name}.0", stride), f"{name}.1", stride)

    def _convolved(self, x: Any, name: str, stride: int = 1) -> Any:  # noqa: ANN401
        from torch.nn.functional import conv2d

        weight, bias, is_temporal = self._layers[name]
        n_videos, n_frames, height, width, channels = x.shape
        if is_temporal:
            # All pixels of a frame in one row, one frame below the other.
            rows = x.reshape(n_videos, n_frames, height * width, channels)
            steps, margins = (stride, 1), (weight.shape[2] // 2, 0)
        else:
            rows = x.reshape(n_videos * n_frames, height, width, channels)
            steps, margins = (stride, stride), (weight.shape[2] // 2, weight.shape[3] // 2)
        found = conv2d(rows.permute(0, 3, 1, 2), weight, bias, steps, margins).relu_()
        found = found.permute(0, 2, 3, 1)
        if is_temporal:
            return found.reshape(n_videos, -1, height, width, found.shape[-1])
        return found.reshape(n_videos, n_frames, *found.shape[1:])


def _layer(
    state: Mapping[str, Any], name: str, *, is_temporal: bool, device: str
) -> tuple[Any, Any, bool]:
    """Return weights and bias of a convolution and the normalisation after it, as of pictures."""
    import torch

    weight = state[f"{name}.0.weight"].double()
    gain, shift, mean, variance = (state[f"{name}.1.{what}"].double() for what in _NORMALISED)
    factor = gain / (variance + _EPSILON).sqrt()
    # Over time a picture is as wide as a frame has pixels, and as high as there are frames.
    flat = weight[..., 0] if is_temporal else weight[:, :, 0]
    flat = (flat * factor[:, None, None, None]).to(device, torch.float32)
    bias = (shift - mean * factor).to(device, torch.float32)
    return flat.contiguous(memory_format=torch.channels_last), bias, is_temporal


def _pooled(x: Any, side: int = 3, stride: int = 1) -> Any:  # noqa: ANN401
    """Return the largest of 3 x 3 or 2 x 2 pixels, frame by frame."""
    from torch.nn.functional import max_pool2d

    pictures = x.flatten(0, 1).permute(0, 3, 1, 2)
    found = max_pool2d(pictures, side, stride, side // 2 if side > stride else 0)
    return found.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def _pooled_in_time(x: Any, stride: int) -> Any:  # noqa: ANN401
    """Return the largest of each frame and its two neighbours."""
    import torch

    found = x[:, ::stride].clone()
    for others, own in _neighbours(x.shape[1], stride):
        torch.maximum(found[:, own], x[:, others], out=found[:, own])
    return found


def _neighbours(n_frames: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Yield where the frames before, then those after, are, and those that they are next to."""
    n_found = -(-n_frames // stride)
    yield slice(stride - 1, (n_found - 1) * stride, stride), slice(1, n_found)
    n_after = len(range(1, n_frames, stride))
    yield slice(1, n_frames, stride), slice(0, n_after)
