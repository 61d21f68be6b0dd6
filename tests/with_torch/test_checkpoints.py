"""Files of weights: the right one, and all others, which are refused."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maskcube import MaskcubeError
from maskcube.insilico import CorruptWeights, InvalidParameterError, ModelLoadError, ResourceError
from maskcube.insilico.features import S3DFeatures

State = dict[str, Any]


def refusal(state: object, folder: Path) -> str:
    path = folder / "spoilt.pth"
    torch.save(state, path)
    with pytest.raises(CorruptWeights) as told:
        S3DFeatures.open(path)
    found = str(told.value)
    assert str(path) in found
    assert "s3d-d76dad2f.pth" in found
    return found


def test_weights_are_found_where_torchvision_keeps_them(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    wanted = tmp_path / "hub" / "checkpoints" / "s3d-d76dad2f.pth"
    with pytest.raises(ModelLoadError, match=re.escape(str(wanted))) as told:
        S3DFeatures.open()
    assert "S3D_Weights.KINETICS400_V1" in str(told.value)
    assert "://" not in str(told.value)
    assert not list(tmp_path.iterdir())
    wanted.parent.mkdir(parents=True)
    shutil.copy(checkpoint, wanted)
    assert S3DFeatures.open().n_features == 4_084_096


def test_there_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(ModelLoadError, match="no weights of S3D at"):
            S3DFeatures.open(path)


def test_weights_without_what_names_actions_will_do(state: State, tmp_path: Path) -> None:
    bare = {
        name: value
        for name, value in state.items()
        if not name.startswith("classifier.") and not name.endswith("num_batches_tracked")
    }
    torch.save(bare, tmp_path / "bare.pth")
    S3DFeatures.open(tmp_path / "bare.pth")


def test_every_fault_is_named(state: State, tmp_path: Path) -> None:
    spoilt = dict(state)
    del spoilt["features.0.0.0.weight"], spoilt["features.2.1.bias"]
    spoilt["stem.weight"] = torch.zeros(1)
    spoilt["features.5.branch0.0.weight"] = torch.zeros(64, 192, 1, 3, 3)
    told = refusal(spoilt, tmp_path).splitlines()
    assert "2 tensors are missing: 'features.0.0.0.weight', 'features.2.1.bias'" in told[1]
    assert "1 tensors are not known: 'stem.weight'" in told[2]
    assert "'features.5.branch0.0.weight' is (64, 192, 1, 3, 3), not (64, 192, 1, 1, 1)" in told[3]


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("features.0.0.0.weight", lambda tensor: tensor * float("nan")),
        ("features.2.1.bias", lambda tensor: tensor + float("inf")),
        ("features.2.1.running_var", lambda tensor: -tensor),
        ("features.2.1.weight", lambda tensor: tensor.to(torch.int64)),
    ],
)
def test_values_that_cannot_be_are_named(
    name: str, spoil: Callable[[Any], Any], state: State, tmp_path: Path
) -> None:
    assert f"1 tensors have values that are not finite, or variances below 0: {name!r}" in refusal(
        {**state, name: spoil(state[name])}, tmp_path
    )


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"features.2.0.weight": 3},
        {"state_dict": {}},
        torch.zeros(3),
        {"features.2.1.bias": torch.zeros(64).to_sparse()},
        {"features.2.1.bias": torch.zeros(64, device="meta")},
    ],
    ids=["list", "number", "nested", "tensor", "sparse", "meta"],
)
def test_what_are_no_tensors_by_their_names(content: object, tmp_path: Path) -> None:
    assert "and not tensors by their names" in refusal(content, tmp_path)


class Canary:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_it_is_run(state: State, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    told = refusal({**state, "extra": Canary(canary)}, tmp_path)
    assert "without running what it holds" in told
    assert "weights_only" not in told
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(CorruptWeights, match=r"no file of torch\.save"):
        S3DFeatures.open(tmp_path / "plain.pth")
    assert not canary.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_one_that_is_cut_off(share: float, checkpoint: Path, tmp_path: Path) -> None:
    data = checkpoint.read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CorruptWeights, match=r"cut off, or no file of torch\.save"):
        S3DFeatures.open(path)


def test_a_flipped_bit_is_seen(checkpoint: Path, tmp_path: Path) -> None:
    """Torch itself would read it."""
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "flipped.pth"
    path.write_bytes(data)
    with pytest.raises(CorruptWeights, match="is damaged: get it again"):
        S3DFeatures.open(path)


def test_one_that_would_grow_in_memory(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(2**24))
    path = tmp_path / "packed.pth"
    path.write_bytes(packed.getvalue())
    with pytest.raises(CorruptWeights, match="it is packed"):
        S3DFeatures.open(path)


def test_one_that_is_far_too_long(tmp_path: Path) -> None:
    path = tmp_path / "long.pth"
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(CorruptWeights, match="1,073,741,824 bytes"):
        S3DFeatures.open(path)


@pytest.mark.parametrize("device", ["banana", "CPU", "cuda:", "cuda:x", "", "mps", None, 0])
def test_an_unknown_device_is_named(device: Any, checkpoint: Path) -> None:
    with pytest.raises(InvalidParameterError, match=re.escape(repr(device))):
        S3DFeatures.open(checkpoint, device)


def test_a_gpu_that_is_not_there(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(ResourceError, match=rf"device='{device}': torch finds no GPU here"):
            S3DFeatures.open(checkpoint, device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ResourceError, match="torch finds 2 GPU here"):
        S3DFeatures.open(checkpoint, "cuda:2")


def test_the_errors_are_of_the_tree() -> None:
    assert issubclass(CorruptWeights, ModelLoadError)
    assert issubclass(ModelLoadError, MaskcubeError)
