"""What can go wrong with an encoding model, as one branch of the tree in `maskcube.errors`.

The names are BERG's, so that what caught its errors catches these; each is also the builtin
exception that BERG, or Python, would have raised::

    MaskcubeError
    └── BERGError
        ├── ModelNotFoundError          (LookupError)   there is no model of that name
        ├── ModelLoadError              (RuntimeError)  files are not there, or not usable
        │   └── CorruptWeights          (ValueError)    ... or damaged, or would run code
        ├── InvalidParameterError       (InvalidOption) no such subject, region or voxel
        │   └── ValidationError
        ├── StimulusError               (ValueError)    no videos that the model can see
        └── ResourceError               (RuntimeError)  no such device, or not enough memory
"""

from __future__ import annotations

from maskcube.errors import InvalidOption, MaskcubeError

__all__ = [
    "BERGError",
    "CorruptWeights",
    "InvalidParameterError",
    "ModelLoadError",
    "ModelNotFoundError",
    "ResourceError",
    "StimulusError",
    "ValidationError",
]


class BERGError(MaskcubeError):
    """Base of every error of `maskcube.insilico`."""


class ModelNotFoundError(BERGError, LookupError):
    """There is no encoding model of that name."""


class ModelLoadError(BERGError, RuntimeError):
    """The files of an encoding model are not there, or cannot be used."""


class CorruptWeights(ModelLoadError, ValueError):
    """A file of weights is damaged, is not what it should be, or would run code."""


class InvalidParameterError(BERGError, InvalidOption):
    """A parameter names what there is not: a subject, a region of interest, a voxel.

    An `InvalidOption` too, which is what all of maskcube raises for an argument without a meaning:
    nobody must know of which of them BERG has a name.
    """


class ValidationError(InvalidParameterError):
    """The values of a selection cannot be used."""


class StimulusError(BERGError, ValueError):
    """These are no videos that the encoding model can see."""


class ResourceError(BERGError, RuntimeError):
    """There is no such device here, or not enough memory."""
