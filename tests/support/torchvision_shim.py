"""torchvision beside torch's build for processors.

Its own build is for CUDA: its library of operators cannot be loaded without, and then it cannot be
imported, as it names two of them. What is used of it here needs none.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

__all__ = ["NODES", "network", "preset", "random_state", "taps"]

NODES = (
    "features.2",
    "features.5.cat",
    "features.7",
    "features.9.cat",
    "features.11.cat",
    "features.13",
    "avgpool",
)
"""Whose answers are BERG's features, in this order."""

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def _video() -> Any:
    """Return torchvision's networks of videos."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torchvision.models import video
        except RuntimeError:
            operators = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                operators.define(
                    f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
            _kept.append(operators)
            from torchvision.models import video
    return video


_kept: list[Any] = []
"""What torch forgets with the object that declared it."""


def network(state: dict[str, Any] | None = None) -> Any:
    """Return torchvision's S3D, ready to answer, with these weights or random ones."""
    made = _video().s3d(weights=None)
    if state is not None:
        made.load_state_dict(state, strict=True)
    return made.eval()


def random_state(seed: int = 0) -> dict[str, Any]:
    """Return random weights of S3D, such that brightness neither fades nor explodes on its way."""
    import torch

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        made = _video().s3d(weights=None)
        for module in made.modules():
            if isinstance(module, torch.nn.Conv3d):
                torch.nn.init.kaiming_normal_(module.weight)
            if isinstance(module, torch.nn.BatchNorm3d):
                torch.nn.init.normal_(module.running_mean, 0.0, 0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0.0, 0.2)
    return dict(made.state_dict())


def taps(of: Any) -> Any:
    """Return what gives the answers of a network's `NODES`."""
    from torchvision.models.feature_extraction import create_feature_extractor

    return create_feature_extractor(of, return_nodes=list(NODES))


def preset() -> Any:
    """Return what makes videos ready for the network."""
    return _video().S3D_Weights.KINETICS400_V1.transforms()
