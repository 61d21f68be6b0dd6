"""Any encoding model, asked for responses to stills: what it is given, and what it answers."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import InvalidOption
from maskcube.insilico.model import EncodingModel, check_model
from maskcube.insilico.responses import turn_of
from maskcube.insilico.stills import as_videos
from maskcube.insilico.voxels import DIM

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Encoder", "Encodes", "check_count"]


class Encodes(Protocol):
    """An encoding model, as far as anybody must know it."""

    def encode(self, stimulus: NDArray[np.uint8], /) -> Any:  # noqa: ANN401 - tensors, lists
        """Return the responses to videos: (n, n_frames, 3, y, x) uint8 to (n, voxel)."""


class Encoder:
    """A model that is asked by one thread at a time, and whose answers are checked.

    Parameters
    ----------
    model : Encodes
        The model. What else it may have: ``n_voxels``; ``coords``, xarray coordinates along
        ``voxel``; ``attributes``, a mapping that says units, model, subject.
    n_frames : int
        Frames of a video.
    size : tuple of int
        Height and width of the stills.

    Attributes
    ----------
    n_voxels : int
        How many responses there are to a video.

    Raises
    ------
    InvalidOption, InvalidParameterError
        When it is no model.
    StimulusError
        When it is one of BERG's, and takes no videos of that shape.
    """

    def __init__(self, model: Encodes, n_frames: int, size: tuple[int, int]) -> None:
        if not callable(getattr(model, "encode", None)):
            raise InvalidOption(f"model is a {type(model).__name__}, which has no encode(stimulus)")
        if hasattr(model, "get_encoding_model"):
            # `BERG` has an encode too, which wants a model.
            check_model(model)
        self.model = model
        self.n_frames = check_count("n_frames", n_frames)
        self._turn = turn_of(model)
        self._size = size
        if isinstance(model, EncodingModel):
            # It says at once, of no pixels, whether it takes videos of this shape.
            model.check(np.broadcast_to(np.uint8(0), (1, self.n_frames, 3, *size)))
        self.n_voxels = self._count()

    @property
    def name(self) -> str:
        """What the model is called, for messages."""
        return str(self.attributes["model"])

    @property
    def attributes(self) -> dict[str, Any]:
        """What is said of the responses: "units" and "model" at least, and what the model says."""
        said = getattr(self.model, "attributes", None)
        known = {str(name): value for name, value in said.items()} if _is_mapping(said) else {}
        return {"units": "1", "model": type(self.model).__name__, **known}

    def coordinates(self) -> xr.Coordinates:
        """Return the coordinates along ``voxel``, with their indexes; numbers if there are none.

        Raises
        ------
        InvalidOption
            When those of the model are along something else.
        """
        import xarray as xr

        given = getattr(self.model, "coords", None)
        if given is None:
            return xr.Dataset(coords={DIM: np.arange(self.n_voxels)}).coords
        try:
            found = xr.Dataset(coords=given).coords
        except (ValueError, TypeError) as error:
            raise InvalidOption(f"model.coords are no coordinates of xarray: {error}") from error
        sizes = dict(found.sizes)
        if sizes and sizes != {DIM: self.n_voxels}:
            raise InvalidOption(
                f"model.coords have sizes {sizes}, not {DIM!r} of {self.n_voxels:,} voxels"
            )
        return found

    def __call__(self, stills: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the responses to stills, (still, voxel) float32.

        Parameters
        ----------
        stills : sequence of numpy.ndarray
            (3, y, x) uint8 each.

        Raises
        ------
        InvalidOption
            When the model does not answer with one row of numbers for each.
        """
        answers = self._ask(stills)
        if answers.shape != (len(stills), self.n_voxels):
            raise InvalidOption(
                f"model {self.name!r} answers {answers.shape} to {len(stills)} videos, where"
                f" {(len(stills), self.n_voxels)} (video, {DIM}) was expected"
            )
        return answers

    def _ask(self, stills: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        videos = as_videos(stills, self.n_frames)
        with self._turn:
            answers = self.model.encode(videos)
            if hasattr(answers, "detach"):
                answers = answers.detach().cpu()
            try:
                found = np.asarray(answers)
            except (ValueError, TypeError) as error:
                raise self._no_numbers(f"a {type(answers).__name__}: {error}") from error
            if found.dtype.kind not in "fiub":
                raise self._no_numbers(f"a {type(answers).__name__} of {found.dtype}")
            # A copy: models may use their memory again.
            return np.array(found, np.float32)

    def _no_numbers(self, found: str) -> InvalidOption:
        return InvalidOption(f"model {self.name!r} answers no array of numbers, but {found}")

    def _count(self) -> int:
        """Return how many voxels there are; a model that does not say so answers to one grey."""
        given = getattr(self.model, "n_voxels", None)
        if given is not None:
            return check_count("model.n_voxels", given)
        coordinates = getattr(self.model, "coords", None)
        known = getattr(coordinates, "sizes", {}).get(DIM)
        if known is not None:
            return check_count("model.coords.sizes['voxel']", known)
        answers = self._ask([np.full((3, *self._size), 128, np.uint8)])
        if answers.ndim != 2 or len(answers) != 1:  # noqa: PLR2004 - video and voxel
            raise InvalidOption(
                f"model {self.name!r} answers {answers.shape} to 1 video, where (1, {DIM}) was"
                " expected"
            )
        return len(answers[0])


def _is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def check_count(name: str, value: object) -> int:
    """Return a count of at least one; raises `InvalidOption` if it is none."""
    try:
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        found = 0
    if found < 1 or isinstance(value, bool):
        raise InvalidOption(f"{name}={value!r}: give a number of at least 1")
    return found
