"""Where the images of an experiment come from: arrays by name, a function, or a folder of files."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import InvalidOption, listed, missing
from maskcube.insilico.errors import StimulusError
from maskcube.paths import folder_path

__all__ = ["Images", "Pictures"]

Images = Mapping[str, Any] | Callable[[str], Any] | str | os.PathLike[str]
"""Arrays (y, x, 3) uint8 by the names of the images, what gives one for a name, or a folder."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Nothing that draws, runs other programs, or has pages."""

_PLAIN = {"1", "L", "P", "RGB"}
_CLEAR = {"LA", "PA", "RGBA"}
_ORIENTATION = 0x0112
_OPAQUE = 255
_COLOURS = 3
_MOST_FAULTS = 32

_DAMAGES = (OSError, ValueError, SyntaxError, LookupError, TypeError, struct.error, MemoryError)
"""What Pillow raises of pictures that are damaged, here or there."""


class _Place(Protocol):
    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of an image where that is cheap; `ValueError` where it has a fault."""

    def read(self, name: str, size: tuple[int, int]) -> Any:  # noqa: ANN401 - whatever somebody has
        """Return an image of that height and width; `ValueError` where it has a fault."""


class Pictures:
    """Images by their names; each is read when it is asked for, and not kept.

    Parameters
    ----------
    images : mapping, callable or path
        Arrays (y, x, 3) uint8 by name, of which those that are not in a dict may be read when they
        are asked for; a function that gives such an array for a name; or a folder that has files
        of these names: JPEG, PNG, WebP or BMP.
    size : tuple of int
        Height and width that each must have.

    Raises
    ------
    InvalidOption
        When `images` is none of these, or no folder is there.
    MissingDependency
        When it is a folder and Pillow is not installed.
    """

    def __init__(self, images: Images, size: tuple[int, int]) -> None:
        self.size = size
        self._place = _place_of(images)

    def check(self, names: Iterable[str]) -> None:
        """Look for images without reading their pixels.

        Raises
        ------
        StimulusError
            With every image that is missing, or whose header or array is not as it must be. What
            a function gives, or another mapping than a dict, is looked at when it is read.
        """
        faults = []
        for name in names:
            try:
                shape = self._place.shape_of(name)
                if shape is not None:
                    self._check_shape(shape)
            except ValueError as error:
                faults.append(f"image {name!r} {error}")
        if faults:
            more = f"\n  - ... ({len(faults):,} in all)" if len(faults) > _MOST_FAULTS else ""
            lines = "".join(f"\n  - {fault}" for fault in faults[:_MOST_FAULTS])
            count = "1 image" if len(faults) == 1 else f"{len(faults):,} images"
            raise StimulusError(f"{count} cannot be shown:{lines}{more}")

    def __getitem__(self, name: str) -> NDArray[np.uint8]:
        """Return an image, (y, x, 3) uint8.

        Raises
        ------
        StimulusError
            When it is missing, damaged, no colours of 8 bits, or of another size.
        """
        try:
            found = np.asarray(self._place.read(name, self.size))
            _check_dtype(found.dtype)
            self._check_shape(found.shape)
        except ValueError as error:
            raise StimulusError(f"image {name!r} {error}") from error
        return found

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != (*self.size, _COLOURS):
            advice = ""
            if shape[:2] != self.size:
                advice = ": resize it, in a function of its name for example"
            raise ValueError(
                f"is {shape}, where its masks want {(*self.size, _COLOURS)} (y, x, colour){advice}"
            )


def _place_of(images: object) -> _Place:
    if isinstance(images, Mapping):
        return _Named(images)
    if isinstance(images, str | os.PathLike):
        return _Folder(os.fspath(images))
    if callable(images):
        return _Made(images)
    raise InvalidOption(
        f"images is a {type(images).__name__}; give a mapping of names to arrays, a function of a"
        " name, or a folder"
    )


class _Named:
    """Arrays by name."""

    def __init__(self, images: Mapping[str, Any]) -> None:
        self._images = images
        # Looking up whether a name is there may read what it names.
        self._names = frozenset(images)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        self._check(name)
        if not isinstance(self._images, dict):
            return None
        image = self._images[name]
        if not hasattr(image, "shape") or not hasattr(image, "dtype"):
            return None
        _check_dtype(image.dtype)
        return tuple(image.shape)

    def read(self, name: str, size: tuple[int, int]) -> Any:  # noqa: ANN401, ARG002 - as any place
        self._check(name)
        return self._images[name]

    def _check(self, name: str) -> None:
        if name not in self._names:
            raise ValueError("is not there: images has no such name")


class _Made:
    """What a function gives."""

    def __init__(self, function: Callable[[str], Any]) -> None:
        self._function = function

    def shape_of(self, name: str) -> None:  # noqa: ARG002 - as any place
        return

    def read(self, name: str, size: tuple[int, int]) -> Any:  # noqa: ANN401, ARG002 - as any place
        return self._function(name)


class _Folder:
    """Files in a folder."""

    def __init__(self, path: str) -> None:
        found = folder_path(path)
        if found is None or not found.is_dir():
            raise InvalidOption(f"images={path!r} is no folder on this machine")
        self._folder = found
        _pillow()

    def shape_of(self, name: str) -> tuple[int, ...]:
        with self._opened(name) as image:
            # Grey ones and those with a palette become colours.
            return image.height, image.width, _COLOURS

    def read(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        with self._opened(name) as image:
            if (image.height, image.width) != size:
                # Before it is decoded: it takes as much memory as its header says.
                return np.broadcast_to(np.uint8(0), (image.height, image.width, _COLOURS))
            try:
                return _colours(image)
            except _DAMAGES as error:
                if type(error) is ValueError:
                    raise
                raise ValueError(f"is damaged: {error}") from None

    def _opened(self, name: str) -> Any:  # noqa: ANN401 - Pillow is an optional library
        path = self._path(name)
        pillow = _pillow()
        try:
            # No pipe: it would be waited for.
            if not path.is_file():
                raise ValueError(f"is not there: no file {str(path)!r}")
            return pillow.open(path, formats=_FORMATS)
        except (pillow.DecompressionBombError, pillow.DecompressionBombWarning):
            raise ValueError("has more pixels than anybody can see") from None
        except pillow.UnidentifiedImageError:
            raise ValueError(f"is in no format of {listed(_FORMATS)}") from None
        except _DAMAGES as error:
            if type(error) is ValueError:
                raise
            raise ValueError(f"cannot be read: {error}") from None

    def _path(self, name: str) -> Path:
        """Return the path of an image; its name is from data, and must not lead elsewhere."""
        is_plain = all(
            len(path.parts) == 1 and path.name == name
            for path in (PurePosixPath(name), PureWindowsPath(name))
        )
        if not is_plain or name == ".." or "\0" in name:
            raise ValueError("has a name that is no name of a file: give a mapping or a function")
        return self._folder / name


def _colours(image: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - Pillow is an optional library
    """Return the pixels of an opened picture, (y, x, 3) uint8."""
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError("has several frames: give one")
    if image.mode not in _PLAIN | _CLEAR:
        raise ValueError(f"is of mode {image.mode}, which is no colours of 8 bits: save it as RGB")
    image.load()
    turn = image.getexif().get(_ORIENTATION, 1)
    if turn != 1:
        raise ValueError(
            f"is to be turned or mirrored (EXIF orientation {turn!r}), and its masks may be or may"
            " not be: save it as it is shown"
        )
    if image.mode in _CLEAR or "transparency" in image.info:
        seen = np.array(image.convert("RGBA"))
        if (seen[..., _COLOURS] != _OPAQUE).any():
            raise ValueError("has transparent pixels: save it on the background that was shown")
        return np.ascontiguousarray(seen[..., :_COLOURS])
    return np.array(image.convert("RGB"))


def _check_dtype(dtype: Any) -> None:  # noqa: ANN401 - of whoever's array
    if dtype != np.uint8:
        raise ValueError(f"has dtype {dtype}, where uint8 from 0 to 255 is shown: convert it")


def _pillow() -> Any:  # noqa: ANN401 - Pillow is an optional library
    try:
        from PIL import Image
    except ImportError:
        raise missing("Pillow", "formats", "a folder of images") from None
    return Image
