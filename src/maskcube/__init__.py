"""The LAION-fMRI object masks as one lazy, labelled ``xarray.DataArray`` (mask, y, x).

>>> import maskcube
>>> masks = maskcube.open_masks("masks.zarr")
>>> hands = masks.sel(image="shared_12rep_LAION_cluster_1003_i0.jpg", noun=["hand", "fingers"])
>>> hands.any("mask").shape
(1000, 1000)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskcube.boundaries import masks_from_runs
    from maskcube.conversion import convert
    from maskcube.correction import update
    from maskcube.errors import (
        AccessDenied,
        BadMask,
        CorruptMask,
        CorruptStore,
        IncompleteStore,
        InvalidOption,
        LabelNotFound,
        MaskcubeError,
        MissingDependency,
        NotAMaskStore,
        RowNotFound,
        SourceError,
        SourceNotFound,
        StoreChanged,
        StoreExists,
        StoreNotFound,
        StoreUnreachable,
        VerificationError,
    )
    from maskcube.growth import append
    from maskcube.index import MaskIndex
    from maskcube.plot import contact_sheet, overlay
    from maskcube.reader import open_masks
    from maskcube.report import ConversionReport, UpdateReport, VerificationReport
    from maskcube.sample import sample_dataset
    from maskcube.scan import map_masks, runs
    from maskcube.segmentations import Segmentations
    from maskcube.summary import StoreInfo, info
    from maskcube.verification import verify
    from maskcube.virtualization import VirtualReport, virtualize

__all__ = [
    "AccessDenied",
    "BadMask",
    "ConversionReport",
    "CorruptMask",
    "CorruptStore",
    "IncompleteStore",
    "InvalidOption",
    "LabelNotFound",
    "MaskIndex",
    "MaskcubeError",
    "MissingDependency",
    "NotAMaskStore",
    "RowNotFound",
    "Segmentations",
    "SourceError",
    "SourceNotFound",
    "StoreChanged",
    "StoreExists",
    "StoreInfo",
    "StoreNotFound",
    "StoreUnreachable",
    "UpdateReport",
    "VerificationError",
    "VerificationReport",
    "VirtualReport",
    "append",
    "contact_sheet",
    "convert",
    "info",
    "map_masks",
    "masks_from_runs",
    "open_masks",
    "overlay",
    "runs",
    "sample_dataset",
    "update",
    "verify",
    "virtualize",
]

_HOMES = {
    "ConversionReport": "report",
    "MaskIndex": "index",
    "Segmentations": "segmentations",
    "StoreInfo": "summary",
    "UpdateReport": "report",
    "VerificationReport": "report",
    "VirtualReport": "virtualization",
    "append": "growth",
    "contact_sheet": "plot",
    "convert": "conversion",
    "info": "summary",
    "map_masks": "scan",
    "masks_from_runs": "boundaries",
    "open_masks": "reader",
    "overlay": "plot",
    "runs": "scan",
    "sample_dataset": "sample",
    "update": "correction",
    "verify": "verification",
    "virtualize": "virtualization",
}
"""Module of each public name; what is not here is in ``errors``."""


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: ``import maskcube`` alone imports nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'maskcube' has no attribute {name!r}")
    value = getattr(import_module(f"maskcube.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
