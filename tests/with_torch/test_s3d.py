"""Our S3D against torchvision's, with the same random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision_shim import NODES, network, preset, taps

from maskcube.insilico.backbones import backbone_of
from maskcube.insilico.features import S3DFeatures
from maskcube.insilico.s3d import N_FEATURES, S3D, TAPS, kernels, state_faults


def pictures(n_videos: int, height: int, width: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([n_videos, height, width])
    return rng.integers(0, 256, (n_videos, 14, 3, height, width), np.uint8)


@pytest.fixture(scope="module")
def features(checkpoint: Path) -> S3DFeatures:
    return S3DFeatures.open(checkpoint, "cpu")


@pytest.fixture(scope="module")
def answers(state: dict[str, Any]) -> Any:
    """Return what gives the answers of torchvision's network."""
    return taps(network(state))


def assert_close(found: Any, expected: Any) -> None:
    """Equal as far as float32 goes: sums in another order, layer after layer."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    difference = np.abs(found - expected)
    assert np.linalg.norm(difference) < 5e-6 * np.linalg.norm(expected)
    assert difference.max() < 5e-6 * np.abs(expected).max()


def test_the_names_and_shapes_are_those_of_torchvision(state: dict[str, Any]) -> None:
    assert state_faults(state) == []
    wanted = {name: tuple(state[f"{name}.0.weight"].shape) for name in kernels()}
    assert wanted == kernels()
    used = {name.rsplit(".", 2)[0] for name in state if not name.startswith("classifier.")}
    assert used == set(kernels())


def test_the_features_are_those_of_torchvision(answers: Any) -> None:
    assert (*TAPS,) == NODES
    found = answers(torch.zeros(1, 3, 14, 224, 224))
    assert {name: tuple(each.shape[1:]) for name, each in found.items()} == TAPS
    assert N_FEATURES == sum(each.numel() for each in found.values()) == 4_084_096


def test_every_node_answers_as_torchvision_does(state: dict[str, Any], answers: Any) -> None:
    videos = torch.randn((2, 3, 14, 224, 224), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = answers(videos)
        found = list(S3D(state)(videos.permute(0, 2, 3, 4, 1)))
    assert len(found) == len(NODES)
    for ours, (name, theirs) in zip(found, expected.items(), strict=True):
        assert tuple(ours.shape[1:]) == TAPS[name]
        # Not equal by being zero.
        assert float((theirs > 0).float().mean()) > 0.05
        assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("height", "width"),
    [*((side, side) for side in (1, 64, 224, 255, 256, 268, 300, 480)), (240, 320), (256, 255)],
)
def test_videos_are_made_ready_bit_by_bit_as_by_torchvision(
    height: int, width: int, features: S3DFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = pictures(2, height, width)
    shown: list[Any] = []
    monkeypatch.setattr(features, "_fill", lambda _, seen: shown.append(seen))
    features(videos)
    assert torch.equal(torch.cat(shown).permute(0, 4, 1, 2, 3), preset()(torch.from_numpy(videos)))


@pytest.mark.parametrize("side", [256, 100])
def test_features_are_those_of_torchvision(side: int, features: S3DFeatures, answers: Any) -> None:
    videos = pictures(2, side, side)
    with torch.inference_mode():
        nodes = answers(preset()(torch.from_numpy(videos))).values()
        expected = torch.cat([node.flatten(1) for node in nodes], 1).numpy()
    found = features(videos)
    assert found.dtype == np.float32
    assert found.shape == (2, features.n_features)
    assert_close(found, expected)


def test_a_video_has_the_same_features_whatever_is_beside_it(features: S3DFeatures) -> None:
    videos = pictures(3, 64, 64)
    together = features(videos)
    np.testing.assert_array_equal(features(videos[2:])[0], together[2])
    np.testing.assert_array_equal(features(videos[::-2]), together[::-2])
    assert features(videos[:0]).shape == (0, N_FEATURES)


def test_odd_arrays_are_taken(features: S3DFeatures) -> None:
    """Read-only, repeated without being copied, or backwards: torch takes none of these."""
    still = np.broadcast_to(pictures(1, 32, 32)[:, :1, ::-1], (1, 14, 3, 32, 32))
    np.testing.assert_array_equal(features(still), features(still.copy()))


def test_what_torch_does_for_others_is_not_changed(features: S3DFeatures) -> None:
    def settings() -> tuple[Any, ...]:
        return (
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.get_rng_state().tolist(),
            torch.backends.cudnn.allow_tf32,
            torch.are_deterministic_algorithms_enabled(),
        )

    before = settings()
    features(pictures(1, 16, 16))
    assert settings() == before
    torch.set_default_dtype(torch.float64)
    try:
        assert features(pictures(1, 16, 16)).dtype == np.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_it_is_a_backbone_by_its_name(checkpoint: Path, features: S3DFeatures) -> None:
    named = backbone_of("s3d", "cpu", checkpoint)()
    assert named.n_features == N_FEATURES
    videos = pictures(1, 40, 40)
    np.testing.assert_array_equal(named(videos), features(videos))
