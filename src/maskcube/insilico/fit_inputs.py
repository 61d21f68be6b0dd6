"""What is given to fit a model, checked as far as can be without reading it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from maskcube.errors import MaskcubeError, listed
from maskcube.insilico.backbones import BACKBONES, Backbone, Pixels, backbone_of
from maskcube.insilico.brain import Brain
from maskcube.insilico.columns import Columns
from maskcube.insilico.errors import InvalidParameterError, ModelLoadError
from maskcube.insilico.footage import Footage

__all__ = ["Inputs", "refuse"]

_RESPONSES = ("video, voxel", "video, repeat, voxel")
_VIDEO_DIMS = 5
_NEEDED = ("features", "responses")

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is given to fit a model; nothing of it is read yet."""

    features: Columns | Footage
    responses: Columns
    test_features: Columns | Footage | None
    test_responses: Columns | None
    n_components: int
    subject: int
    backbone_name: str
    """What the store says that makes features."""
    backbone: Backbone | None
    """What makes features, where there are videos."""

    @classmethod
    def checked(
        cls,
        arrays: dict[str, Any],
        *,
        n_components: object,
        subject: object,
        brain: object,
        backbone: str | Path | Backbone,
        device: str,
    ) -> Inputs:
        """Return what is given, if it fits together.

        Parameters
        ----------
        arrays : dict
            ``features``, ``responses``, ``test_features``, ``test_responses``; the last two may be
            None.
        n_components, subject, brain, backbone, device
            As `maskcube.insilico.fitting.fit` takes them.

        Raises
        ------
        InvalidParameterError
            Says everything that does not fit.
        ModelLoadError
            When there are videos, and no backbone to see them.
        """
        faults: list[str] = []
        found: dict[str, Any] = {
            name: _attempt(faults, _opened, array, name)
            if array is not None or name in _NEEDED
            else None
            for name, array in arrays.items()
        }
        made = _attempt(faults, _backbone, backbone, device)
        if not faults:
            faults += _pair_faults(found) + _test_faults(found)
        faults += _subject_faults(subject) + _brain_faults(brain, found.get("responses"))
        if faults:
            refuse([*faults, *_component_faults(n_components, found["features"], None)])
        name, make = made if made is not None else ("", None)
        has_videos = any(isinstance(array, Footage) for array in found.values())
        seeing = make() if has_videos and make is not None else None
        faults += _width_faults(found, seeing) + _component_faults(
            n_components, found["features"], seeing
        )
        refuse(faults)
        return cls(
            **found,
            n_components=int(n_components),  # type: ignore[call-overload]
            subject=int(subject),  # type: ignore[call-overload]
            backbone_name=name,
            backbone=seeing,
        )


def refuse(faults: Sequence[str]) -> None:
    """Raise for faults, if there are any.

    Raises
    ------
    InvalidParameterError
        With all of them.
    """
    if len(faults) == 1:
        raise InvalidParameterError(faults[0])
    if faults:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        raise InvalidParameterError(f"no model can be fitted: {len(faults):,} faults{lines}")


def _attempt(faults: list[str], function: Callable[..., _T], *given: object) -> _T | None:
    """Return what a function does; None if it raises, which is a fault then."""
    try:
        return function(*given)
    except ModelLoadError:
        # A file that is missing is no fault of what was given beside it.
        raise
    except MaskcubeError as error:
        faults.append(str(error))
        return None


def _opened(array: Any, name: str) -> Columns | Footage:  # noqa: ANN401 - of any library
    if any(size != size for size in getattr(array, "shape", ())):  # noqa: PLR0124 - NaN
        raise InvalidParameterError(
            f"{name}: dask does not know yet how many there are; {name}.compute_chunk_sizes() finds"
            " out"
        )
    if name.endswith("responses"):
        return Columns(array, name, _RESPONSES)
    if len(getattr(array, "shape", ())) == _VIDEO_DIMS:
        return Footage(array, name)
    return Columns(array, name, ("video, feature",))


def _backbone(given: str | Path | Backbone, device: str) -> tuple[str, Callable[[], Backbone]]:
    """Return the name of a backbone, and what makes it."""
    if callable(given):
        name = "pixels" if isinstance(given, Pixels) else _spoken(type(given).__name__)
        return name, lambda: given
    if not isinstance(given, str | Path):
        raise InvalidParameterError(
            f"backbone={given!r}: give a name of {listed(BACKBONES)}, a path, or a callable"
        )
    if isinstance(given, Path) or "/" in given or "." in given:
        return "s3d", backbone_of("s3d", device, given)
    if given not in BACKBONES:
        raise InvalidParameterError(f"backbone={given!r}: there are {listed(BACKBONES)}")
    return given, backbone_of(given, device)


def _spoken(name: str) -> str:
    """Return the name of a class as that of a backbone: ``S3DFeatures`` is "s3d"."""
    return name.lower().removesuffix("features") or name.lower()


def _pair_faults(found: dict[str, Any]) -> list[str]:
    """Return which features and responses are not of the same videos."""
    faults = []
    for prefix in ("", "test_"):
        features, responses = found[f"{prefix}features"], found[f"{prefix}responses"]
        if (features is None) != (responses is None):
            missing, there = ("features", "responses")[:: 1 if features is None else -1]
            faults.append(f"{prefix}{there} are given without {prefix}{missing}: give both")
        elif features is not None and len(features) != len(responses):
            faults.append(
                f"{prefix}features are of {len(features):,} videos, {prefix}responses of"
                f" {len(responses):,}: give the same videos in the same order"
            )
    return faults


def _test_faults(found: dict[str, Any]) -> list[str]:
    responses, test = found["responses"], found["test_responses"]
    faults = [
        f"{array.name} {array.shape} are empty"
        for array in (responses, test)
        if array is not None and 0 in array.shape
    ]
    if test is not None and test.width != responses.width:
        faults.append(
            f"responses are of {responses.width:,} voxels, test_responses of {test.width:,}"
        )
    return faults


def _width_faults(found: dict[str, Any], backbone: Backbone | None) -> list[str]:
    own, test = (
        None if array is None else _width(array, backbone)
        for array in (found["features"], found["test_features"])
    )
    if test in (None, own):
        return []
    return [f"there are {own:,} features of a video, and {test:,} of a test video"]


def _width(features: Columns | Footage, backbone: Backbone | None) -> int:
    if isinstance(features, Columns):
        return features.width
    return 0 if backbone is None else int(backbone.n_features)


def _component_faults(
    n_components: object, features: Columns | Footage | None, backbone: Backbone | None
) -> list[str]:
    """Return what can be said against a number of components before features are read."""
    if isinstance(n_components, bool) or not isinstance(n_components, int | np.integer):
        return [f"n_components={n_components!r} is no whole number"]
    if features is None:
        return []
    n_features = _width(features, backbone)
    limits = [len(features) - 1, *([n_features] if n_features else [])]
    most = min(limits)
    if most < 1:
        return [f"{features.name} {features.shape} have no component: give 2 videos or more"]
    if not 1 <= n_components <= most:
        limit = f"{len(features):,} videos have 1 to {most:,}, as centring takes one"
        return [f"n_components={n_components!r}: {limit}"]
    return []


def _subject_faults(subject: object) -> list[str]:
    is_number = isinstance(subject, int | np.integer) and not isinstance(subject, bool)
    if is_number and subject >= 1:  # type: ignore[operator]
        return []
    return [f"subject={subject!r}: give its number, 1 or more"]


def _brain_faults(brain: object, responses: Columns | None) -> list[str]:
    if brain is None:
        return []
    if not isinstance(brain, Brain):
        return [f"brain is a {type(brain).__name__}; give a maskcube.insilico.Brain, or none"]
    if brain.faults:
        return brain.faults
    if responses is not None and brain.n_voxels != responses.width:
        found = f"brain has {brain.n_voxels:,} voxels, responses are of {responses.width:,}"
        return [f"{found}: give those of its mask, in C order"]
    return []
