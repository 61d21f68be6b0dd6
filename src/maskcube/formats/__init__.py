"""Exchange with other tools: masks out of a store as their files, and their files into a store.

``to_...`` writes a selection and returns an `ExportReport`; ``from_...`` converts what another tool
has written and returns a `ConversionReport`.

>>> from maskcube import open_masks
>>> from maskcube.formats import to_coco
>>> hands = open_masks("masks.zarr").sel(noun="hand")
>>> to_coco(hands, "hands.json", progress=False).n_masks == hands.sizes["mask"]
True
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskcube.formats.clearml import from_clearml, mask_labels, to_clearml
    from maskcube.formats.clearml_alpha import from_clearml_alpha, to_clearml_alpha
    from maskcube.formats.clearml_sdk import to_clearml_sdk
    from maskcube.formats.coco import to_coco
    from maskcube.formats.coco_results import to_coco_results
    from maskcube.formats.coco_source import from_coco
    from maskcube.formats.nucleus import to_nucleus
    from maskcube.formats.nucleus_sdk import to_nucleus_sdk
    from maskcube.formats.nucleus_source import from_nucleus
    from maskcube.formats.ome import to_ome_zarr
    from maskcube.formats.panoptic import from_panoptic, to_panoptic
    from maskcube.formats.report import ExportedMask, ExportReport

__all__ = [
    "ExportReport",
    "ExportedMask",
    "from_clearml",
    "from_clearml_alpha",
    "from_coco",
    "from_nucleus",
    "from_panoptic",
    "mask_labels",
    "to_clearml",
    "to_clearml_alpha",
    "to_clearml_sdk",
    "to_coco",
    "to_coco_results",
    "to_nucleus",
    "to_nucleus_sdk",
    "to_ome_zarr",
    "to_panoptic",
]

_HOMES = {
    "ExportReport": "report",
    "ExportedMask": "report",
    "from_clearml": "clearml",
    "from_clearml_alpha": "clearml_alpha",
    "from_coco": "coco_source",
    "from_nucleus": "nucleus_source",
    "from_panoptic": "panoptic",
    "mask_labels": "clearml",
    "to_clearml": "clearml",
    "to_clearml_alpha": "clearml_alpha",
    "to_clearml_sdk": "clearml_sdk",
    "to_coco": "coco",
    "to_coco_results": "coco_results",
    "to_nucleus": "nucleus",
    "to_nucleus_sdk": "nucleus_sdk",
    "to_ome_zarr": "ome",
    "to_panoptic": "panoptic",
}
"""Module of each public name."""


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'maskcube.formats' has no attribute {name!r}")
    value = getattr(import_module(f"maskcube.formats.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
