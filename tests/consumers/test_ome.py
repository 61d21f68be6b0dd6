"""OME-Zarr labels, read by ome-zarr-py as napari does, and checked by the models of the format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Label, Multiscales, Node, Reader
from ome_zarr_models.v05.image import Image
from panoptics import seen

import maskcube
from maskcube.formats.ome import to_ome_zarr


def _nodes(place: Path) -> tuple[Node, list[Node]]:
    """Return what a viewer shows of an image: itself, and its labels."""
    nodes = list(Reader(parse_url(place))())
    pictures = [node for node in nodes if node.load(Multiscales) and not node.load(Label)]
    assert len(pictures) == 1
    return pictures[0], [node for node in nodes if node.load(Label)]


def _paths(folder: Path) -> dict[str, Path]:
    said = json.loads((folder / "zarr.json").read_text())["attributes"]["maskcube"]["images"]
    return {name: folder / path for name, path in said.items()}


@pytest.mark.parametrize("overlap", ["smallest", "score", "order"])
def test_a_viewer_shows_what_is_seen(overlap: str, small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store)
    to_ome_zarr(masks, tmp_path / "out", overlap=overlap, levels=2, progress=False)
    paths = _paths(tmp_path / "out")
    assert [*paths] == list(dict.fromkeys(masks.image.values))
    for name, path in paths.items():
        of = masks[masks.image.values == name]
        picture, [labels] = _nodes(path)
        np.testing.assert_array_equal(picture.data[0].compute(), of.values.sum(axis=0))
        assert [level.shape for level in labels.data] == [level.shape for level in picture.data]
        shown = seen(list(of.values.astype(bool)), of.score.values, overlap)
        pixels = labels.data[0].compute()
        for k, mask in enumerate(shown):
            np.testing.assert_array_equal(pixels == k + 1, mask)
        visible = {k + 1 for k, mask in enumerate(shown) if mask.any()}
        assert labels.metadata["color"].keys() == labels.metadata["properties"].keys() == visible
        assert [axis["name"] for axis in labels.metadata["axes"]] == ["y", "x"]
        for number, said in labels.metadata["properties"].items():
            assert said["noun"] == of.noun.values[number - 1]
            assert said["instance"] == of.instance.values[number - 1]


def test_a_viewer_shows_all_layers(store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(store).sel(noun=["hand", "fingers", "ring", "person"])
    to_ome_zarr(masks, tmp_path / "out", overlap="layers", progress=False)
    n_layers = set()
    for name, path in _paths(tmp_path / "out").items():
        of = masks[masks.image.values == name]
        _, layers = _nodes(path)
        n_layers.add(len(layers))
        found = {
            number: node.data[0].compute() == number
            for node in layers
            for number in node.metadata["properties"]
        }
        assert sum(len(node.metadata["properties"]) for node in layers) == len(found)
        assert found.keys() == {k + 1 for k, area in enumerate(of.area.values) if area}
        for number, mask in found.items():
            np.testing.assert_array_equal(mask, of.values[number - 1])
    assert max(n_layers) > 1


@pytest.mark.parametrize("overlap", ["smallest", "layers"])
def test_the_models_of_the_format_accept_it(
    overlap: str, small_store: Path, tmp_path: Path
) -> None:
    masks = maskcube.open_masks(small_store)
    to_ome_zarr(masks, tmp_path / "out", overlap=overlap, levels=3, progress=False)
    for path in _paths(tmp_path / "out").values():
        image = Image.from_zarr(zarr.open_group(path, mode="r"))
        assert image.labels is not None
        for name in image.labels.label_paths:
            label = image.labels.get_image_labels_group(name)
            assert len(label.attributes.ome.multiscales[0].datasets) == 3
            assert label.attributes.ome.image_label.colors
