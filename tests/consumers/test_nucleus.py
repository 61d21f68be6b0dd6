"""What the stock client of Scale Nucleus makes of an export, and what comes back from it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nucleus
import numpy as np
import pytest
from nucleus.annotation import AnnotationList
from nucleus.errors import DuplicateIDError
from nucleus.metrics.segmentation_loader import InMemoryLoader
from nucleus.metrics.segmentation_metrics import SegmentationIOU
from nucleus.prediction import PredictionList
from nucleus_reference import panoptic_map, semantic_map
from nucleus_server import NucleusServer
from PIL import Image
from reference import Masks, Source, write_source

import maskcube
from maskcube.errors import InvalidOption
from maskcube.formats.nucleus import to_nucleus
from maskcube.formats.nucleus_sdk import to_nucleus_sdk
from maskcube.formats.nucleus_source import from_nucleus, read_nucleus

STUFF = ["hand", "007"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return the masks of 24 images, more than the client sends in a request."""
    return write_source(tmp_path_factory.mktemp("source"), n_masks=220, shape=(14, 17))


@pytest.fixture(scope="module")
def masks(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("store") / "masks.zarr"
    maskcube.convert(source.folder, path, progress=False)
    return maskcube.open_masks(path)


@pytest.fixture
def server() -> Iterator[NucleusServer]:
    with NucleusServer() as running:
        yield running


@pytest.fixture
def dataset(server: NucleusServer) -> Any:
    return nucleus.NucleusClient(api_key="key", endpoint=server.endpoint).get_dataset("ds_1")


def images_of(source: Source) -> Iterator[tuple[str, Masks, Any]]:
    for image, table in source.by_row.groupby("image_name", sort=False):
        yield str(image), source.masks[table["mask_row"].to_numpy()], table


def told(segments: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {segment["index"]: segment for segment in segments}


def test_what_arrives_is_what_the_overlap_rule_leaves(
    source: Source, masks: Any, server: NucleusServer, dataset: Any, tmp_path: Path
) -> None:
    annotations = to_nucleus_sdk(masks, tmp_path / "out", progress=False)
    answer = dataset.annotate(annotations, update=True)
    assert answer["annotations_processed"] == len(annotations) == len(server.maps) == 24
    assert sorted(upload.n_annotations for upload in server.uploads) == [4, 10, 10]
    assert all(upload.is_multipart for upload in server.uploads)
    assert {upload.authorization for upload in server.uploads} == {"Basic a2V5Og=="}
    for image, pixels, table in images_of(source):
        owner = panoptic_map(pixels, table)
        segments = told(server.segmentations[image]["annotations"])
        assert segments.pop(0) == {"label": "background", "index": 0}
        sent = server.maps[image]
        assert sent is not None
        assert set(np.unique(sent)) - {0} == set(segments)
        seen = {}
        for index, segment in segments.items():
            row = segment["metadata"]["mask_row"]
            position = table["mask_row"].tolist().index(row)
            np.testing.assert_array_equal(sent == index, owner == position + 1)
            seen[position] = segment
        assert set(seen) == set(np.unique(owner) - 1) - {-1}
        for position, segment in seen.items():
            line, metadata = table.iloc[position], segment["metadata"]
            assert segment["label"] == line["noun"]
            assert metadata["instance"] == line["instance_id"]
            assert metadata.get("score") == (None if np.isnan(line["score"]) else line["score"])
            assert metadata["area"] == pixels[position].sum()
            shown = (owner == position + 1).sum()
            assert metadata["visible_fraction"] == pytest.approx(shown / pixels[position].sum())


@pytest.mark.parametrize("kind", ["semantic", "instance", "panoptic"])
def test_what_is_of_one_class_arrives_as_one_segment(
    kind: str, source: Source, masks: Any, server: NucleusServer, tmp_path: Path
) -> None:
    client = nucleus.NucleusClient(api_key="key", endpoint=server.endpoint)
    client.get_dataset("ds_1").annotate(
        to_nucleus_sdk(masks, tmp_path / "out", kind=kind, stuff=STUFF, progress=False)
    )
    indices = set()
    for image, pixels, table in images_of(source):
        nouns = semantic_map(pixels, table)
        segments = server.segmentations[image]["annotations"][1:]
        sent = server.maps[image]
        assert sent is not None
        shown = {name for name in np.unique(nouns) if name}
        if kind == "instance":
            shown -= set(STUFF)
        assert {segment["label"] for segment in segments} == shown
        for noun in shown:
            own = [segment for segment in segments if segment["label"] == noun]
            if kind == "semantic" or noun in STUFF:
                (segment,) = own
                indices.add((noun, segment["index"]))
                assert set(segment["metadata"]) == {"n_masks"}
            found = np.isin(sent, [segment["index"] for segment in own])
            np.testing.assert_array_equal(found, nouns == noun)
    if kind == "semantic":
        # A class has the same value in every image.
        assert len(indices) == len({noun for noun, _ in indices})


def test_update_replaces_and_without_it_an_item_keeps_its_map(
    masks: Any, server: NucleusServer, dataset: Any, tmp_path: Path
) -> None:
    first = to_nucleus_sdk(masks, tmp_path / "first", progress=False)
    dataset.annotate(first)
    before = dict(server.maps)
    second = to_nucleus_sdk(masks, tmp_path / "second", kind="semantic", progress=False)
    answer = dataset.annotate(second)
    assert (answer["annotations_processed"], answer["annotations_ignored"]) == (0, len(second))
    assert all(server.maps[image] is before[image] for image in before)
    answer = dataset.annotate(second, update=True)
    assert (answer["annotations_processed"], answer["annotations_ignored"]) == (len(second), 0)
    for annotation in second:
        with Image.open(annotation.mask_url) as image:
            np.testing.assert_array_equal(server.maps[annotation.reference_id], np.array(image))


def test_urls_go_in_batches_without_files(
    masks: Any, server: NucleusServer, dataset: Any, tmp_path: Path
) -> None:
    template = "s3://bucket/{file}"
    annotations = to_nucleus_sdk(masks, tmp_path / "out", mask_url=template, progress=False)
    dataset.annotate(annotations, update=True)
    assert [upload.n_annotations for upload in server.uploads] == [20, 4]
    assert not any(upload.is_multipart for upload in server.uploads)
    names = {path.name for path in (tmp_path / "out" / "masks").iterdir()}
    urls = {payload["mask_url"] for payload in server.segmentations.values()}
    assert urls == {f"s3://bucket/{name}" for name in names}


def test_an_asynchronous_upload_sends_the_lines_that_are_on_disk(
    masks: Any, server: NucleusServer, dataset: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    annotations = to_nucleus_sdk(masks, out, mask_url="https://h/{image}.png", progress=False)
    job = dataset.annotate(annotations, asynchronous=True, update=True)
    assert job.job_id == "job_1"
    lines = (out / "annotations.jsonl").read_text("utf-8").splitlines()
    assert [*server.segmentations.values()] == [json.loads(line) for line in lines]
    local = to_nucleus_sdk(masks, tmp_path / "local", progress=False)
    with pytest.raises(ValueError, match="remote"):
        dataset.annotate(local, asynchronous=True)


@pytest.mark.parametrize("geometry", [None, "polygon", "box"])
def test_predictions_are_taken(
    geometry: str | None, masks: Any, server: NucleusServer, dataset: Any, tmp_path: Path
) -> None:
    model = nucleus.Model("prj_1", "detector", "detector", None, dataset._client)  # noqa: SLF001 - as its own tests
    sent = to_nucleus_sdk(
        masks, tmp_path / "out", predictions=True, geometry=geometry, progress=False
    )
    answer = dataset.upload_predictions(model, sent, update=True)
    assert answer["predictions_processed"] == len(sent) > 0
    if geometry is None:
        assert len(server.predictions) == 24
        return
    for payload in server.shapes.values():
        assert payload.get("confidence") == payload["metadata"].get("score")


def inside(vertices: list[dict[str, float]], shape: tuple[int, int]) -> Any:
    """Return which centres of pixels are in a ring: each is asked, edge by edge."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    found = np.zeros(shape, bool)
    for start, end in zip(vertices, [*vertices[1:], vertices[0]], strict=True):
        crosses = (start["y"] > y) != (end["y"] > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = start["x"] + (y - start["y"]) * (end["x"] - start["x"]) / (end["y"] - start["y"])
        found ^= crosses & (x < at)
    return found


def test_polygons_that_arrive_are_the_masks_bit_by_bit(
    source: Source, masks: Any, server: NucleusServer, dataset: Any, tmp_path: Path
) -> None:
    sent = to_nucleus_sdk(masks, tmp_path / "out", geometry="polygon", progress=False)
    assert dataset.annotate(sent, update=True)["annotations_processed"] == len(sent)
    found = np.zeros_like(source.masks)
    for payload in server.shapes.values():
        row = payload["metadata"]["mask_row"]
        found[row] |= inside(payload["geometry"]["vertices"], source.masks.shape[1:])
    np.testing.assert_array_equal(found, source.masks)


def test_boxes_that_arrive_are_those_of_the_table(
    source: Source, masks: Any, server: NucleusServer, dataset: Any, tmp_path: Path
) -> None:
    dataset.annotate(to_nucleus_sdk(masks, tmp_path / "out", geometry="box", progress=False))
    rows = {payload["metadata"]["mask_row"]: payload for payload in server.shapes.values()}
    for line in source.by_row.to_dict("records"):
        edges = [line[f"box_{edge}"] for edge in ("x0", "y0", "x1", "y1")]
        is_box = not np.isnan(edges).any() and edges[0] < edges[2] and edges[1] < edges[3]
        lines, columns = source.masks[line["mask_row"]].nonzero()
        if not is_box and not len(lines):
            assert line["mask_row"] not in rows
            continue
        if not is_box:
            edges = [columns.min(), lines.min(), columns.max() + 1, lines.max() + 1]
        geometry = rows[line["mask_row"]]["geometry"]
        x, y = geometry["x"], geometry["y"]
        assert [x, y, x + geometry["width"], y + geometry["height"]] == pytest.approx(edges)


def check_equal(store: Path, masks: Any, pixels: Any) -> None:
    """Compare a store with masks, and their pixels with what they should be by now."""
    found = maskcube.open_masks(store)
    np.testing.assert_array_equal(found.values, pixels)
    for name in ("image", "noun", "instance", "score", "localized", "mask_file"):
        np.testing.assert_array_equal(found[name].values, masks[name].values)
    for name in ("box_x0", "box_y0", "box_x1", "box_y1"):
        np.testing.assert_array_equal(found[name].values, masks[name].values)


@pytest.mark.parametrize("way", ["refloc", "generator", "pages"])
def test_what_the_client_gets_back_makes_the_same_store_again(
    way: str, masks: Any, dataset: Any, tmp_path: Path
) -> None:
    areas = masks.sum(("y", "x")).values
    kept = masks[areas > 0]
    sent = to_nucleus_sdk(kept, tmp_path / "out", geometry="polygon", progress=False)
    dataset.annotate(sent)
    images = list(dict.fromkeys(kept.image.values.tolist()))
    if way == "refloc":
        rows: Any = [dataset.refloc(image) for image in images]
    elif way == "generator":
        rows = dataset.items_and_annotation_generator()
    else:
        route = "dataset/ds_1/exportForTrainingPage"
        client = dataset._client  # noqa: SLF001 - what the server says, as it says it
        rows = [
            client.make_request({"pageToken": token}, route) for token in (None, "7", "14", "21")
        ]
    from_nucleus(rows, tmp_path / "again.zarr", progress=False)
    check_equal(tmp_path / "again.zarr", kept, kept.values)


@pytest.mark.parametrize("way", ["refloc", "generator"])
def test_maps_that_the_client_gets_back_make_a_store(
    way: str, source: Source, masks: Any, dataset: Any, tmp_path: Path
) -> None:
    dataset.annotate(to_nucleus_sdk(masks, tmp_path / "out", progress=False))
    images = [image for image, _, _ in images_of(source)]
    rows: Any = map(dataset.refloc, images)
    if way == "generator":
        rows = dataset.items_and_annotation_generator()
    store = tmp_path / "again.zarr"
    from_nucleus(rows, store, masks=tmp_path / "out", progress=False)
    expected, shown = np.zeros_like(source.masks), []
    for _, pixels, table in images_of(source):
        owner = panoptic_map(pixels, table)
        for position, row in enumerate(table["mask_row"]):
            expected[row] = owner == position + 1
            shown += [row] if expected[row].any() else []
    shown.sort()
    check_equal(store, masks[shown], expected[shown])


def test_the_clients_objects_are_read_as_they_are(masks: Any, tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [{}, {"geometry": "polygon"}, {"predictions": True}]
    for number, options in enumerate(ways):
        out = tmp_path / f"out-{number}"
        objects = to_nucleus_sdk(masks[:20], out, progress=False, **options)
        found = read_nucleus(objects, masks=out)
        on_disk = read_nucleus(out)
        assert not found.faults
        empty = [item for item in on_disk.items if not item.read().any()]
        kept = [item for item in on_disk.items if item not in empty]
        assert [item.record for item in found.items] == [item.record for item in kept]


@pytest.mark.parametrize("kind", ["panoptic", "instance", "semantic"])
def test_the_vendors_own_metric_finds_no_difference(kind: str, masks: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    truth = to_nucleus_sdk(masks, out, kind=kind, stuff=STUFF, progress=False)
    guess = to_nucleus_sdk(out, predictions=True)
    files = {path.name: path for path in (out / "masks").iterdir()}
    metric = SegmentationIOU()
    metric.loader = InMemoryLoader(
        {each.mask_url: np.array(Image.open(files[Path(each.mask_url).name])) for each in truth}
    )
    for annotation, prediction in zip(truth, guess, strict=True):
        pair = copy.deepcopy((annotation, prediction))
        found = metric(
            AnnotationList(segmentation_annotations=[pair[0]]),
            PredictionList(segmentation_predictions=[pair[1]]),
        )
        assert found.value == 1.0


@pytest.mark.parametrize("geometry", [None, "polygon", "box"])
def test_the_client_understands_every_line(
    geometry: str | None, masks: Any, tmp_path: Path
) -> None:
    """Its own text of each is what stands on disk, but for what is null there."""
    out = tmp_path / "out"
    to_nucleus(masks, out, geometry=geometry, progress=False)
    lines = [
        json.loads(line) for line in (out / "annotations.jsonl").read_text("utf-8").splitlines()
    ]
    objects = to_nucleus_sdk(out)
    for line, made in zip(lines, objects, strict=True):
        text = json.loads(made.to_json())
        assert {key: value for key, value in text.items() if value is not None} == line
        again = nucleus.annotation.Annotation.from_json(copy.deepcopy(line))
        assert type(again) is type(made)
        assert again == made


def test_a_folder_that_was_moved_still_uploads(
    masks: Any, server: NucleusServer, dataset: Any, tmp_path: Path
) -> None:
    to_nucleus(masks, tmp_path / "here", progress=False)
    shutil.move(tmp_path / "here", tmp_path / "there")
    dataset.annotate(to_nucleus_sdk(tmp_path / "there"))
    assert len(server.maps) == 24


def test_one_map_an_item_and_no_identity_twice(masks: Any, dataset: Any, tmp_path: Path) -> None:
    annotations = to_nucleus_sdk(masks, tmp_path / "out", progress=False)
    with pytest.raises(DuplicateIDError):
        dataset.annotate([annotations[0], annotations[0]])
    identities = {(each.reference_id, each.annotation_id) for each in annotations}
    assert len(identities) == len(annotations)


def test_an_array_needs_a_folder_and_a_folder_no_options(masks: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="the client uploads files"):
        to_nucleus_sdk(masks)
    to_nucleus(masks[:3], tmp_path / "out", progress=False)
    with pytest.raises(InvalidOption, match="is written already"):
        to_nucleus_sdk(tmp_path / "out", kind="semantic")
