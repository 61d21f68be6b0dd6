"""S3D's features of videos, by torch, from weights that the user has."""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import missing
from maskcube.insilico.errors import (
    CorruptWeights,
    InvalidParameterError,
    ModelLoadError,
    ResourceError,
)
from maskcube.insilico.s3d import N_FEATURES, S3D, SIDE, TAPS, state_faults

__all__ = ["S3DFeatures", "check_device", "no_weights"]

_FILE = "s3d-d76dad2f.pth"
_RESIZED = 256
_MEAN = (0.43216, 0.394666, 0.37645)
_DEVIATION = (0.22803, 0.22145, 0.216989)
"""Of the red, green and blue of Kinetics-400, where 1 is white."""

_MOST_FILE_BYTES = 2**28
"""S3D's weights are 33 MB."""


class S3DFeatures:
    """A backbone: what seven layers of S3D answer to videos.

    Frames are made ready as torchvision's preset for these weights does it, and BERG with it:
    resized to 256 x 256 pixels where they are not, the middle 224 x 224 of that, brightness 0 to 1,
    less the mean of Kinetics-400 and divided by its deviation. One video is computed at a time, so
    that it has the same features whatever is beside it, and memory for one is enough.

    Parameters
    ----------
    network : S3D
        The network.
    device : str
        Where it is, as torch calls it.
    """

    n_features = N_FEATURES

    def __init__(self, network: S3D, device: str) -> None:
        self._network, self._device = network, device

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None, device: str = "auto") -> S3DFeatures:
        """Return the backbone with weights from a file; nothing is downloaded, nor run from it.

        Parameters
        ----------
        path : path-like, optional
            torchvision's ``S3D_Weights.KINETICS400_V1``, ``s3d-d76dad2f.pth``; by default from
            where torchvision keeps it.
        device : "auto", "cpu", "cuda" or "cuda:0", "cuda:1", ...
            Where to compute; ``"auto"`` is a GPU where there is one.

        Raises
        ------
        ModelLoadError
            When there is no such file.
        CorruptWeights
            When it is damaged, or not of S3D.
        InvalidParameterError
            When there is no device of that name.
        ResourceError
            When that device is not in this machine.
        MissingDependency
            When torch is not installed.
        """
        place = _device_of(device)
        found = _default_path() if path is None else Path(path)
        state = _read(found)
        faults = state_faults(state)
        if faults:
            raise CorruptWeights(_told(found, faults))
        return cls(S3D(state, place), place)

    def __call__(self, videos: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features: (video, 14, 3, height, width) uint8 to (video, 4084096) float32.

        Raises
        ------
        ResourceError
            When the memory of the GPU does not suffice.
        """
        import torch

        features = np.empty((len(videos), N_FEATURES), np.float32)
        with torch.inference_mode(), _exact(self._device):
            for video, row in zip(videos, torch.from_numpy(features), strict=True):
                # A copy: torch warns of arrays that cannot be written, and refuses odd strides.
                seen = self._seen(torch.from_numpy(np.array(video, np.uint8, order="C")))
                self._fill(row, seen)
        return features

    def _seen(self, video: Any) -> Any:  # noqa: ANN401 - torch has no types here
        """Return a video as the network sees it: (1, 14, 224, 224, 3) float32."""
        import torch
        from torch.nn.functional import interpolate

        frames = video.to(self._device).to(torch.float32)
        if frames.shape[-2:] != (_RESIZED, _RESIZED):
            # torchvision makes whole numbers of what it has resized.
            size = (_RESIZED, _RESIZED)
            frames = interpolate(frames, size, mode="bilinear", align_corners=False).round_()
        edge = (_RESIZED - SIDE) // 2
        frames = frames[..., edge : edge + SIDE, edge : edge + SIDE].permute(0, 2, 3, 1)
        mean, deviation = (frames.new_tensor(values) for values in (_MEAN, _DEVIATION))
        return frames.contiguous().div_(255).sub_(mean).div_(deviation)[None]

    def _fill(self, row: Any, seen: Any) -> None:  # noqa: ANN401
        start = 0
        for (name, shape), answers in zip(TAPS.items(), self._network(seen), strict=True):
            stop = start + math.prod(shape)
            if answers.shape[1:] != shape:
                raise RuntimeError(f"{name} is {tuple(answers.shape[1:])}, not {shape}")
            row[start:stop].view(shape).copy_(answers[0])
            start = stop


def check_device(name: object) -> None:
    """Raise unless a device has a name of torch's; whether it is in this machine shows later.

    Raises
    ------
    InvalidParameterError
        When it has none.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", str(name)):
        raise InvalidParameterError(
            f"device={name!r}: there are 'auto', 'cpu', 'cuda', and 'cuda:0' and so on"
        )


def _device_of(name: str) -> str:
    check_device(name)
    torch = _torch()
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if n_gpus else "cpu"
    if name != "cpu" and int(str(name).partition(":")[2] or 0) >= n_gpus:
        raise ResourceError(
            f"device={name!r}: torch finds {n_gpus or 'no'} GPU here; use device='cpu', or a build"
            " of torch for it"
        )
    return str(name)


def _torch() -> Any:  # noqa: ANN401
    try:
        import torch
    except ImportError:
        raise missing("torch", "torch", "S3D") from None
    return torch


def _default_path() -> Path:
    return Path(_torch().hub.get_dir()) / "checkpoints" / _FILE


def no_weights(path: str | os.PathLike[str]) -> str:
    """Return what is said where S3D's file is missing: what it is, and who gets it."""
    return (
        f"no weights of S3D at {str(path)!r}: torchvision's S3D_Weights.KINETICS400_V1 is wanted, a"
        f" file called {_FILE!r}. torchvision.models.video.s3d(weights='KINETICS400_V1') puts it"
        " where it is looked for by default; nothing is downloaded here"
    )


def _read(path: Path) -> Mapping[str, Any]:
    """Return the tensors in a file, by their names."""
    if not path.is_file():
        raise ModelLoadError(no_weights(path))
    torch = _torch()
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelLoadError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except CorruptWeights:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a spoilt pickle makes of it
        # Not torch's own words, which say how to run what is in the file.
        told = f"torch cannot read it without running what it holds ({type(error).__name__})"
        raise CorruptWeights(_told(path, [told])) from None
    if not isinstance(state, Mapping) or not all(map(_is_plain, state.values())):
        told = f"it holds a {type(state).__name__}, and not tensors by their names"
        raise CorruptWeights(_told(path, [told]))
    return state


def _check_archive(path: Path) -> None:
    """Raise unless a file is whole, and takes no more memory than it is long."""
    n_bytes = path.stat().st_size
    if n_bytes > _MOST_FILE_BYTES:
        raise CorruptWeights(_told(path, [f"it has {n_bytes:,} bytes, and S3D 33 million"]))
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
            if packed or sum(member.file_size for member in members) > n_bytes:
                raise CorruptWeights(_told(path, ["torch.save packs nothing, and it is packed"]))
            # torch would not notice.
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, CorruptWeights):
            raise
        told = "it is cut off, or no file of torch.save: get it again"
        raise CorruptWeights(_told(path, [told])) from error
    if damaged is not None:
        raise CorruptWeights(_told(path, [f"{damaged!r} in it is damaged: get it again"]))


def _is_plain(value: object) -> bool:
    """Whether it is a tensor with all its values in memory."""
    torch = _torch()
    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _told(path: Path, faults: list[str]) -> str:
    told = f"{str(path)!r} has no weights of S3D, torchvision's {_FILE!r}"
    if len(faults) == 1:
        return f"{told}: {faults[0]}"
    return told + ":" + "".join(f"\n  - {fault}" for fault in faults)


@contextmanager
def _exact(device: str) -> Iterator[None]:
    """Let a GPU compute in full precision, and in the same way each time."""
    import torch

    if device == "cpu":
        yield
        return
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    except torch.cuda.OutOfMemoryError as error:
        raise ResourceError(
            f"the memory of {device!r} does not suffice for a video: free it, or device='cpu'"
        ) from error
