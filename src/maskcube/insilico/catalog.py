"""What is known of a model before its files are read: names, subjects, regions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from maskcube.errors import listed
from maskcube.insilico.errors import ModelNotFoundError

__all__ = ["CATALOG", "MODEL_ID", "REGIONS", "SUBJECTS", "check_model_id", "description", "hint"]

MODEL_ID = "fmri-bmd-s3d"

_MOST_NEAR = 6

CATALOG = {"fMRI": ["BOLD Moments Dataset (BMD) (MNI152 volume space)"]}
"""Training datasets by modality, as BERG lists them."""

SUBJECTS = tuple(range(1, 11))

_BILATERAL = {
    "V1v": "visual area 1, ventral",
    "V1d": "visual area 1, dorsal",
    "V2v": "visual area 2, ventral",
    "V2d": "visual area 2, dorsal",
    "V3v": "visual area 3, ventral",
    "V3d": "visual area 3, dorsal",
    "V3ab": "visual areas 3a and 3b",
    "hV4": "human V4 complex",
    "FFA": "fusiform face area",
    "OFA": "occipital face area",
    "EBA": "extrastriate body area",
    "LOC": "lateral occipital complex",
    "PPA": "parahippocampal place area",
    "RSC": "retrosplenial cortex",
    "STS": "superior temporal sulcus",
    "TOS": "transverse occipital sulcus",
    "MT": "middle temporal area",
    "7AL": "dorsal intraparietal area 7AL",
    "IPS0": "intraparietal area IPS0",
    "IPS1-2-3": "intraparietal areas IPS1, IPS2 and IPS3",
    "PFt": "inferior parietal area PFt",
    "BA2": "inferior parietal area BA2",
    "PFop": "inferior parietal area PFop",
}

REGIONS = {
    **{
        f"{side[0]}{name}": f"{meaning} ({side} hemisphere)"
        for name, meaning in _BILATERAL.items()
        for side in ("left", "right")
    },
    "BMDgeneral": "visual cortex of the BOLD Moments Dataset",
}
"""The regions of interest and what they are."""


def check_model_id(model_id: object) -> None:
    """Raise `ModelNotFoundError` unless there is a model of this name."""
    if model_id != MODEL_ID:
        raise ModelNotFoundError(f"there is no model {model_id!r}; there is {MODEL_ID!r}")


def hint(asked: object, names: Iterable[str]) -> str:
    """Return the end of a message about a name that there is not: near ones, or all.

    Examples
    --------
    >>> hint("lV1V", REGIONS)
    "; did you mean 'lV1v'?"
    >>> hint("V1", REGIONS)
    "; did you mean 'lV1v', 'rV1v', 'lV1d' or 'rV1d'?"
    """
    spellings = list(names)
    folded = {name.casefold(): name for name in reversed(spellings)}
    wanted = str(asked).casefold()
    # All parts of an area, as it is known without its side: none is nearer than the others.
    near = [name for name in reversed(folded) if len(wanted) > 1 and wanted in name]
    if not 0 < len(near) <= _MOST_NEAR:
        near = difflib.get_close_matches(wanted, folded, n=2)
    if near:
        *others, last = (repr(folded[name]) for name in near)
        return f"; did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
    return f"; there are {listed(spellings, limit=60)}"


def description() -> dict[str, Any]:
    """Return what is said of the model, under the names that BERG gives to it."""
    selection = {
        "type": "dict",
        "required": False,
        "description": "Which voxels to give responses of; all without it.",
        "properties": {
            "roi": {
                "type": "str",
                "description": "A region of interest.",
                "valid_values": list(REGIONS),
            },
            "voxels": {
                "type": "numpy.ndarray",
                "description": "(voxel,) of 0 and 1 or bool: 1 for each voxel of the subject that"
                " is wanted. Used where there is no roi.",
            },
        },
    }
    subject = {
        "type": "int",
        "required": True,
        "valid_values": list(SUBJECTS),
        "description": "Number of a subject of the BOLD Moments Dataset.",
        "example": 1,
    }
    model_id = {"type": "str", "required": True, "valid_values": [MODEL_ID], "example": MODEL_ID}
    stimulus = {
        "type": "numpy.ndarray",
        "required": True,
        "description": "(video, frame, 3, height, width) of integers in 0..255, square, at least"
        " 14 frames.",
    }
    device = {"type": "str", "required": False, "valid_values": ["cpu", "cuda", "auto"]}
    flag = {"type": "bool", "required": False}
    parameters = {
        "get_encoding_model": {
            "model_id": model_id,
            "subject": subject,
            "selection": selection,
            "device": device,
        },
        "encode": {
            "model": {"type": "EncodingModel", "required": True},
            "stimulus": stimulus,
            "return_metadata": flag,
            "show_progress": flag,
        },
        "get_model_metadata": {"model_id": model_id, "subject": subject},
    }
    return {
        "model_id": MODEL_ID,
        "model_info": {
            "modality": "fMRI",
            "training_dataset": CATALOG["fMRI"][0],
            "species": "Human",
            "stimuli": "3 second videos",
            "model_type": "3D CNN model (s3d)",
            "creator": "Alessandro Gifford",
        },
        "description": "A linear regression for each voxel from 100 principal components of the"
        " features of S3D, fitted to the responses of one subject to 1,000 videos. Responses are"
        " z-scored, as those that it was fitted to.",
        "input": {
            "type": "numpy.ndarray",
            "shape": ["batch_size", "video_frames", "3 RGB channels", "height", "width"],
            "description": stimulus["description"],
        },
        "output": {
            "type": "numpy.ndarray",
            "shape": ["batch_size", "n_voxels"],
            "description": "float32, in standard deviations of a session's responses.",
        },
        "parameters": {name: value for part in parameters.values() for name, value in part.items()},
        "parameters_by_function": parameters,
        "performance": "noise ceilings and accuracies of each voxel are in the model's metadata",
        "example_usage": (
            "from maskcube.insilico import BERG\n"
            'berg = BERG("path/to/brain-encoding-response-generator")\n'
            f'model = berg.get_encoding_model("{MODEL_ID}", subject=1)\n'
            "responses = berg.encode(model, stimulus)"
        ),
    }
