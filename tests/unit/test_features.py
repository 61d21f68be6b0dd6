"""S3D's features, as far as that goes without torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from maskcube import MissingDependency
from maskcube.insilico import InvalidParameterError
from maskcube.insilico.features import S3DFeatures
from maskcube.insilico.s3d import N_FEATURES, kernels, state_faults


def test_without_torch_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        MissingDependency, match=r'S3D needs torch.*pip install "maskcube\[torch\]"'
    ):
        S3DFeatures.open(tmp_path / "s3d.pth")


def test_an_unknown_device_is_told_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InvalidParameterError, match="device='gpu'"):
        S3DFeatures.open(device="gpu")


def test_its_size_is_known_without_torch() -> None:
    assert N_FEATURES == S3DFeatures.n_features == 4_084_096
    assert len(kernels()) == 77
    (told,) = state_faults({})
    assert told.startswith("385 tensors are missing: 'features.0.0.0.weight', ")
    assert told.endswith("(385 in all)")
