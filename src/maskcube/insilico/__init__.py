"""In-silico fMRI: what the brain would answer to videos, by BERG's ``fmri-bmd-s3d``.

The encoding model of the Brain Encoding Response Generator [1]_, trained on the BOLD Moments
Dataset [2]_: S3D features of a 3-second video [3]_, 100 principal components, a linear regression
for each voxel.

>>> from maskcube.insilico import BERG, encode, sample_model
>>> berg = BERG(sample_model("models.zarr"))
>>> model = berg.get_encoding_model("fmri-bmd-s3d", subject=1)
>>> import numpy as np
>>> videos = np.random.default_rng(0).integers(0, 256, (2, 90, 3, 32, 32))
>>> encode(model, videos).sel(roi="lV1v").dims
('stimulus', 'voxel')

References
----------
.. [1] https://github.com/gifale95/BERG
.. [2] https://doi.org/10.1038/s41467-024-50310-3
.. [3] https://doi.org/10.48550/arXiv.1712.04851
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskcube.insilico.accuracy import (
        correlation,
        explained_variance,
        ncsnr,
        noise_ceiling,
        r2,
    )
    from maskcube.insilico.berg import BERG
    from maskcube.insilico.brain import Brain, Region, Volume
    from maskcube.insilico.conversion import ModelReport, convert
    from maskcube.insilico.effects import object_effects
    from maskcube.insilico.errors import (
        BERGError,
        CorruptWeights,
        InvalidParameterError,
        ModelLoadError,
        ModelNotFoundError,
        ResourceError,
        StimulusError,
        ValidationError,
    )
    from maskcube.insilico.fit_report import FitReport
    from maskcube.insilico.fitting import fit
    from maskcube.insilico.model import EncodingModel
    from maskcube.insilico.nifti import to_nifti
    from maskcube.insilico.responses import encode
    from maskcube.insilico.sample import sample_model
    from maskcube.insilico.voxels import RegionIndex

__all__ = [
    "BERG",
    "BERGError",
    "Brain",
    "CorruptWeights",
    "EncodingModel",
    "FitReport",
    "InvalidParameterError",
    "ModelLoadError",
    "ModelNotFoundError",
    "ModelReport",
    "Region",
    "RegionIndex",
    "ResourceError",
    "StimulusError",
    "ValidationError",
    "Volume",
    "convert",
    "correlation",
    "encode",
    "explained_variance",
    "fit",
    "ncsnr",
    "noise_ceiling",
    "object_effects",
    "r2",
    "sample_model",
    "to_nifti",
]

_HOMES = {
    "BERG": "berg",
    "Brain": "brain",
    "EncodingModel": "model",
    "FitReport": "fit_report",
    "ModelReport": "conversion",
    "Region": "brain",
    "RegionIndex": "voxels",
    "Volume": "brain",
    "convert": "conversion",
    "correlation": "accuracy",
    "encode": "responses",
    "explained_variance": "accuracy",
    "fit": "fitting",
    "ncsnr": "accuracy",
    "noise_ceiling": "accuracy",
    "object_effects": "effects",
    "r2": "accuracy",
    "sample_model": "sample",
    "to_nifti": "nifti",
}
"""Module of each public name; what is not here is in ``errors``."""


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'maskcube.insilico' has no attribute {name!r}")
    value = getattr(import_module(f"maskcube.insilico.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
