"""Scale Nucleus: what does not fit, what is odd, and what somebody else has written."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nucleus_reference import lines_of, map_of, mask_array
from PIL import Image

import maskcube
from maskcube.errors import (
    InvalidOption,
    MissingDependency,
    SourceError,
    SourceNotFound,
    StoreExists,
)
from maskcube.formats.nucleus import to_nucleus
from maskcube.formats.nucleus_sdk import to_nucleus_sdk
from maskcube.formats.nucleus_shapes import polygon_payloads
from maskcube.formats.nucleus_source import from_nucleus, read_nucleus
from maskcube.formats.record import Record

AWKWARD = ["../x.jpg", "a/b", "A/B", "a.b.c.jpg", "CON", "$where", "crème\u2028brûlée", "日" * 300]


def single_pixels(n_masks: int) -> Any:
    """Return masks of a pixel each, none over another."""
    return mask_array(np.eye(n_masks, dtype=np.uint8).reshape(n_masks, -1, 20))


# --------------------------------------------------------------------------- what does not fit


def test_255_segments_fit_and_256_do_not(tmp_path: Path) -> None:
    report = to_nucleus(single_pixels(260)[:255], tmp_path / "out", progress=False)
    (line,) = lines_of(tmp_path / "out")
    assert not report.changed
    assert [segment["index"] for segment in line["annotations"]] == list(range(256))
    assert map_of(tmp_path / "out", line).max() == 255
    with pytest.raises(InvalidOption, match=r"image 'a\.jpg' has 256 segments.*geometry='polygon'"):
        to_nucleus(single_pixels(260)[:256], tmp_path / "more", progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_too_many_segments_go_as_classes_polygons_or_boxes(tmp_path: Path) -> None:
    masks = single_pixels(300)
    to_nucleus(masks, tmp_path / "classes", kind="semantic", progress=False)
    (line,) = lines_of(tmp_path / "classes")
    assert line["annotations"][1:] == [
        {"label": "hand", "index": 1, "metadata": {"n_masks": 300}},
    ]
    for geometry in ("polygon", "box"):
        to_nucleus(masks, tmp_path / geometry, geometry=geometry, progress=False)
        assert len(lines_of(tmp_path / geometry)) == 300


def test_more_classes_than_values_are_numbered_in_each_image(tmp_path: Path) -> None:
    masks = single_pixels(300).assign_coords(
        noun=("mask", [f"noun {row}" for row in range(300)]),
        image=("mask", [f"{row // 150}.jpg" for row in range(300)]),
    )
    to_nucleus(masks, tmp_path / "out", kind="semantic", progress=False)
    for line in lines_of(tmp_path / "out"):
        assert [segment["index"] for segment in line["annotations"]] == list(range(151))
    one = masks.assign_coords(image=("mask", ["a.jpg"] * 300))
    with pytest.raises(InvalidOption, match="has 300 segments"):
        to_nucleus(one, tmp_path / "one", kind="semantic", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": "layers"}, "an item of Nucleus has one; geometry='polygon'"),
        ({"overlap": "largest"}, "overlap='largest'"),
        ({"kind": "things"}, "kind='things': give one of"),
        ({"geometry": "line"}, "geometry='line'"),
        ({"geometry": "box", "mask_url": "s3://b/{file}"}, "a box has no mask"),
        ({"min_visible": float("nan")}, "min_visible=nan"),
        ({"min_visible": "1"}, "min_visible='1'"),
        ({"stuff": "sky"}, "give a list of nouns"),
        ({"mask_url": "s3://b/{bucket}"}, "has no field 'bucket'"),
        ({"mask_url": "s3://b/{image.__class__}"}, "has no field 'image.__class__'"),
        ({"mask_url": "s3://b/{image!r}"}, "has no field 'image!r'"),
        ({"mask_url": "s3://b/mask.png"}, "is the same for every image"),
        ({"mask_url": "s3://b/{image"}, "is no template"),
        ({"mask_url": "file:///b/{file}"}, "Nucleus fetches from 's3', 'gs', 'https', 'http'"),
        ({"mask_url": "/b/{image}.PNG"}, "end in '.png'"),
        ({"mask_url": 3}, "give a text"),
    ],
)
def test_what_has_no_meaning_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidOption) as error:
        to_nucleus(single_pixels(20), tmp_path / "out", progress=False, **options)
    assert message in str(error.value)
    assert not [*tmp_path.iterdir()]


def test_overlaps_can_be_refused(tmp_path: Path) -> None:
    masks = mask_array(np.ones((2, 2, 2)), noun=["hand", "arm"])
    with pytest.raises(InvalidOption, match=r"masks overlap.*hand 0.*arm 1"):
        to_nucleus(masks, tmp_path / "out", overlap="error", progress=False)
    # Those of one class do not hide each other.
    to_nucleus(masks[[0, 0]], tmp_path / "out", overlap="error", kind="semantic", progress=False)


# ------------------------------------------------------------------------------ what is written


def test_hidden_and_empty_masks_have_no_segment_and_are_reported(tmp_path: Path) -> None:
    pixels = np.zeros((4, 2, 4))
    pixels[0, :, :2] = pixels[1, 0, :2] = pixels[2, 1, :2] = 1
    masks = mask_array(pixels, noun=["whole", "part", "part", "nothing"])
    report = to_nucleus(masks, tmp_path / "out", progress=False)
    (line,) = lines_of(tmp_path / "out")
    assert [segment["label"] for segment in line["annotations"]] == ["background", "part", "part"]
    assert [(mask.noun, mask.visible, mask.dropped) for mask in report.masks] == [
        ("whole", 0, True),
        ("part", 2, False),
        ("part", 2, False),
        ("nothing", 0, True),
    ]
    assert "2 left out" in str(report)


def test_masks_of_which_little_is_seen_can_be_left_out(tmp_path: Path) -> None:
    pixels = np.zeros((2, 1, 4))
    pixels[0], pixels[1, 0, :3] = 1, 1
    masks = mask_array(pixels, noun=["whole", "part"])
    to_nucleus(masks, tmp_path / "all", progress=False)
    (line,) = lines_of(tmp_path / "all")
    assert line["annotations"][1]["metadata"]["visible_fraction"] == 0.25
    to_nucleus(masks, tmp_path / "most", min_visible=0.5, progress=False)
    (line,) = lines_of(tmp_path / "most")
    assert [segment["label"] for segment in line["annotations"]] == ["background", "part"]
    assert map_of(tmp_path / "most", line).tolist() == [[1, 1, 1, 0]]


def test_stuff_is_background_among_instances_and_says_so(tmp_path: Path) -> None:
    masks = mask_array(np.eye(3).reshape(3, 1, 3), noun=["sky", "bird", "sky"])
    report = to_nucleus(masks, tmp_path / "out", kind="instance", stuff=["sky"], progress=False)
    (line,) = lines_of(tmp_path / "out")
    assert map_of(tmp_path / "out", line).tolist() == [[0, 1, 0]]
    assert [mask.dropped for mask in report.masks] == [True, False, True]


def test_the_background_needs_no_segment(tmp_path: Path) -> None:
    to_nucleus(single_pixels(20)[:1], tmp_path / "out", background=False, progress=False)
    (line,) = lines_of(tmp_path / "out")
    assert [segment["index"] for segment in line["annotations"]] == [1]


def test_what_is_not_known_is_not_said(tmp_path: Path) -> None:
    masks = single_pixels(20)[:1].assign_coords(score=("mask", [np.nan]))
    to_nucleus(masks, tmp_path / "out", progress=False)
    text = (tmp_path / "out" / "annotations.jsonl").read_text()
    assert "NaN" not in text
    assert "null" not in text
    assert set(lines_of(tmp_path / "out")[0]["annotations"][1]["metadata"]) == {
        *("instance", "localized", "mask_row", "area", "visible_fraction"),
    }


@pytest.mark.parametrize("template", [None, "s3://bucket/{image}.png", "gs://b/{file}"])
def test_awkward_names_stay_in_their_folder_and_come_back(
    template: str | None, tmp_path: Path
) -> None:
    n_masks = len(AWKWARD)
    masks = mask_array(
        np.eye(n_masks, dtype=np.uint8)[:, None], image=AWKWARD, noun=[*reversed(AWKWARD)]
    )
    out = tmp_path / "out"
    to_nucleus(masks, out, mask_url=template, progress=False)
    files = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert len({name.lower() for name in files}) == n_masks
    assert all(name.startswith("masks/") and name.count("/") == 1 for name in files)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    urls = [line["mask_url"] for line in lines_of(out)]
    assert len(set(urls)) == n_masks
    if template is not None:
        assert all(url.count("/") == 3 and url.isascii() for url in urls)
    out.rename(tmp_path / "moved")
    found = read_nucleus(tmp_path / "moved")
    assert not found.faults
    for row, item in enumerate(found.items):
        assert (item.record.image, item.record.noun) == (AWKWARD[row], AWKWARD[-1 - row])
        np.testing.assert_array_equal(item.read(), masks.values[row])


def test_a_line_has_no_ends_of_lines_in_it(tmp_path: Path) -> None:
    masks = mask_array(np.ones((1, 1, 1)), noun=["a\x85b\u2028c\u2029d\ne\x0bf"])
    to_nucleus(masks, tmp_path / "out", progress=False)
    assert len((tmp_path / "out" / "annotations.jsonl").read_text("utf-8").splitlines()) == 1


def test_a_noun_called_background_is_a_mask(tmp_path: Path) -> None:
    masks = mask_array(np.eye(2).reshape(2, 1, 2), noun=["background", "Background"])
    to_nucleus(masks, tmp_path / "out", progress=False)
    assert [item.record.noun for item in read_nucleus(tmp_path / "out").items] == [
        *("background", "Background"),
    ]


def test_a_folder_of_an_export_is_replaced_and_no_other(tmp_path: Path) -> None:
    masks = single_pixels(20)[:2]
    to_nucleus(masks, tmp_path / "out", progress=False)
    with pytest.raises(StoreExists, match="overwrite=True"):
        to_nucleus(masks, tmp_path / "out", progress=False)
    to_nucleus(masks[:1], tmp_path / "out", overwrite=True, geometry="box", progress=False)
    assert [line["type"] for line in lines_of(tmp_path / "out")] == ["box"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(StoreExists, match="not replaced"):
        to_nucleus(masks, tmp_path / "mine", overwrite=True, progress=False)


def test_masks_without_pixels_are_polygons_only_here(tmp_path: Path) -> None:
    masks = mask_array([[[0, 1]], [[0, 0]]])
    report = to_nucleus(masks, tmp_path / "out", geometry="polygon", progress=False)
    assert not report.changed
    assert len(lines_of(tmp_path / "out")) == len(lines_of(tmp_path / "out", "empty.jsonl")) == 1
    found = read_nucleus(tmp_path / "out")
    np.testing.assert_array_equal([item.read() for item in found.items], masks.values)


@pytest.mark.parametrize("geometry", ["polygon", "box"])
def test_an_annotation_of_a_selection_is_called_as_among_all(geometry: str, tmp_path: Path) -> None:
    """An upload with update=True replaces by these names: they must not be those of others."""
    masks = single_pixels(20)
    to_nucleus(masks, tmp_path / "all", geometry=geometry, progress=False)
    to_nucleus(masks[[7, 3]], tmp_path / "some", geometry=geometry, progress=False)
    whole = lines_of(tmp_path / "all")
    assert lines_of(tmp_path / "some") == [whole[7], whole[3]]
    # Rows of two stores may be the same; then the order is all there is.
    twice = masks[:2].assign_coords(mask_row=("mask", [5, 5]))
    to_nucleus(twice, tmp_path / "twice", geometry=geometry, progress=False)
    names = {line["annotation_id"] for line in lines_of(tmp_path / "twice")}
    assert len(names) == 2


def test_a_mask_without_box_or_pixels_has_no_box_and_is_reported(tmp_path: Path) -> None:
    masks = mask_array([[[0, 1]], [[0, 0]]])
    report = to_nucleus(masks, tmp_path / "out", geometry="box", progress=False)
    assert [mask.dropped for mask in report.masks] == [False, True]
    (line,) = lines_of(tmp_path / "out")
    assert line["geometry"] == {"x": 1.0, "y": 0.0, "width": 1.0, "height": 1.0}


def test_the_client_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nucleus", None)
    with pytest.raises(MissingDependency, match=r'pip install "maskcube\[nucleus\]"'):
        to_nucleus_sdk(single_pixels(20), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------- what somebody else has written

PIXELS = np.array([[0, 1, 2], [3, 1, 0]], np.uint8)


def png(pixels: Any = PIXELS, mode: str | None = None, palette: list[int] | None = None) -> bytes:
    image = Image.fromarray(np.asarray(pixels))
    if palette is not None:
        image.putpalette(palette)
    elif mode is not None:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def payload(*segments: Any, **changes: Any) -> dict[str, Any]:
    found = {
        "type": "mask",
        "mask_url": "s3://b/a.png",
        "annotations": list(segments),
        "annotation_id": "a_mask",
        "reference_id": "a.jpg",
    }
    return {**found, **changes}


def segment(label: Any, index: Any, **metadata: Any) -> dict[str, Any]:
    return {"label": label, "index": index, **({"metadata": metadata} if metadata else {})}


ALL = (segment("one", 1), segment("two", 2), segment("three", 3))


def found_in(source: Any, data: Any = None, **options: Any) -> dict[str, Any]:
    """Return the pixels of each noun, all well."""
    found = read_nucleus(source, masks=lambda _: png() if data is None else data, **options)
    assert not found.faults
    return {item.record.noun: item.read() for item in found.items}


def check(found: dict[str, Any], **indices: int) -> None:
    assert set(found) == set(indices)
    for noun, index in indices.items():
        np.testing.assert_array_equal(found[noun], index == PIXELS)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(), id="L"),
        pytest.param(png(np.stack([PIXELS] * 3, axis=-1)), id="faux grey RGB"),
        pytest.param(png(np.stack([PIXELS] * 3, axis=-1), "RGBA"), id="RGBA"),
        pytest.param(png(palette=[9, 9, 9, *range(50, 60)]), id="P"),
        pytest.param(png(PIXELS.astype(np.uint16)), id="I;16"),
    ],
)
def test_a_map_of_any_mode_is_its_values(data: bytes) -> None:
    check(found_in(payload(*ALL), data), one=1, two=2, three=3)


def test_a_map_of_one_bit_is_0_and_1() -> None:
    found = found_in(payload(segment("on", 1)), png((PIXELS > 0) * np.uint8(255), "1"))
    np.testing.assert_array_equal(found["on"], PIXELS > 0)


def test_an_index_may_be_a_text_or_missing_and_the_type_segmentation() -> None:
    odd = payload(segment("one", "1"), segment("two", 2.0), segment("x", None), type="segmentation")
    with_lost = read_nucleus([odd], masks=lambda _: png())
    check({item.record.noun: item.read() for item in with_lost.items}, one=1, two=2)
    assert [text.partition(":")[0] for text in with_lost.lost] == [
        "segments without an index have no pixels",
        "values without a segment are not kept",
    ]


@pytest.mark.parametrize("label", ["background", "Background", "BACKGROUND"])
def test_the_background_is_no_mask_whatever_its_case(label: str) -> None:
    check(found_in(payload(segment(label, "0"), *ALL)), one=1, two=2, three=3)


def test_0_is_a_mask_when_it_is_something() -> None:
    check(found_in(payload(segment("car", np.uint8(0)), *ALL)), car=0, one=1, two=2, three=3)


def test_0_without_a_segment_is_nothing_to_tell() -> None:
    found = read_nucleus(payload(*ALL), masks=lambda _: png())
    assert not found.lost


def test_what_a_store_does_not_keep_is_told_and_warned_of(tmp_path: Path) -> None:
    line = {"type": "line", "label": "x", "geometry": {}, "reference_id": "a.jpg"}
    first = payload(segment("one", 1, pose="sitting"), segment("tree", 77))
    found = read_nucleus([first, line], masks=lambda _: png())
    assert found.lost == [
        "metadata 'pose' is not kept: in row 1",
        "annotations of type 'line' are no masks: in row 2",
        "segments without a pixel are no masks: in row 1",
        "values without a segment are not kept: in row 1, row 1",
    ]
    with pytest.warns(UserWarning, match="no masks|not kept") as warned:
        from_nucleus([first, line], tmp_path / "s.zarr", masks=lambda _: png(), progress=False)
    assert len(warned) == 4


def test_foreign_metadata_of_our_names_are_taken(tmp_path: Path) -> None:
    first = payload(segment("one", 1, score=0.25, box_x0=1), segment("two", 2))
    second = {
        "type": "polygon",
        "label": "one",
        "reference_id": "a.jpg",
        "confidence": 0.75,
        "geometry": {"vertices": [{"x": 0, "y": 0}, {"x": 3, "y": 0}, {"x": 0, "y": 2}]},
        "metadata": {"image_height": 2, "image_width": 3},
    }
    with pytest.warns(UserWarning, match="values without a segment"):
        from_nucleus([first, second], tmp_path / "s.zarr", masks=lambda _: png(), progress=False)
    masks = maskcube.open_masks(tmp_path / "s.zarr").sel(noun="one")
    # Whoever has the higher score is instance 0.
    assert masks.instance.values.tolist() == [1, 0]
    assert masks.score.values.tolist() == [0.25, 0.75]
    assert masks.box_x0.values.tolist()[0] == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (payload({"label": "a", "index": True}), "has an index that is no number"),
        (payload(segment("a", "1.5")), "has an index that is no number"),
        (payload(segment("a", "²")), "has an index that is no number"),
        (payload(segment("a", [1])), "has an index that is no number"),
        (payload(segment(None, 1)), "has no label"),
        (payload(segment("", 1)), "has no label"),
        (payload(segment("a\0", 1)), "must be a text"),
        (payload(segment("a", 1, score="high")), "score must be a finite number"),
        (payload(segment("a", 1, score=10**400)), "score must be a finite number"),
        (payload(segment("a", 1, mask_row=2**70)), "mask_row must be an integer"),
        (payload({"label": "a", "index": 1, "metadata": [1]}), "metadata that are no object"),
        (payload("a"), "is no object"),
        (payload(segment("a", 1), segment("b", "1")), "has two segments of index 1"),
        (payload(annotations={"a": 1}), "has no list of segments"),
        (payload(annotations=None), "has no list of segments"),
        (payload(mask_url=""), "has no mask_url"),
        (payload(mask_url=["x"]), "has no mask_url"),
        (payload(reference_id=7), "has no reference_id"),
        (payload(type=["mask"]), "has the type ['mask']"),
        ({"item": 3, "annotations": {}}, "has the item 3"),
        ({"item": {"reference_id": "a"}, "annotations": {"polygon": [3]}}, "is 3, where"),
        ({"data": [{"data": [{"data": [{"data": [{"data": [{}]}]}]}]}]}, "where an annotation"),
        ("text", "is 'text', where an annotation"),
        (None, "is None, where an annotation"),
        ({}, "has the type None"),
    ],
)
def test_what_is_wrong_is_told_by_its_row(wrong: Any, message: str) -> None:
    found = read_nucleus([wrong, payload(*ALL, reference_id="b.jpg")], masks=lambda _: png())
    assert len(found.faults) == 1
    assert found.faults[0].startswith("row 1: ")
    assert message in found.faults[0]


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (None, "has no list of vertices"),
        ({"vertices": "abc"}, "has no list of vertices"),
        ({"vertices": [{"x": 1, "y": 1}]}, "has 1 vertices"),
        ({"vertices": [{"x": 1}] * 3}, "has a y in its geometry"),
        ({"vertices": [{"x": "1", "y": 1}] * 3}, "has a x in its geometry"),
        ({"vertices": [{"x": float("nan"), "y": 1}] * 3}, "has a x in its geometry"),
        ({"vertices": [{"x": 10**400, "y": 1}] * 3}, "has a x in its geometry"),
        ({"vertices": [{"x": True, "y": 1}] * 3}, "has a x in its geometry"),
        ({"vertices": [[1, 2]] * 3}, "has a x in its geometry"),
    ],
)
def test_a_polygon_that_is_none_is_told(geometry: Any, message: str) -> None:
    wrong = {"type": "polygon", "label": "a", "reference_id": "a.jpg", "geometry": geometry}
    (fault,) = read_nucleus([wrong], size=(2, 2)).faults
    assert message in fault


TRIANGLE: dict[str, Any] = {
    "type": "polygon",
    "label": "a",
    "reference_id": "a.jpg",
    "geometry": {"vertices": [{"x": 0, "y": 0}, {"x": 4, "y": 0}, {"x": 0, "y": 4}]},
}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "give size=(height, width)"),
        ({"image_height": 2**20, "image_width": 2**20}, "pixels"),
        ({"image_height": -1, "image_width": 4}, "no number of pixels"),
        ({"image_height": "4", "image_width": 4}, "no number of pixels"),
        ({"image_height": True, "image_width": 4}, "no number of pixels"),
    ],
)
def test_the_size_of_an_image_is_known_and_possible(metadata: dict[str, Any], message: str) -> None:
    (fault,) = read_nucleus([{**TRIANGLE, "metadata": metadata}]).faults
    assert message in fault


def test_the_item_of_an_export_says_how_large_its_image_is() -> None:
    item = {"reference_id": "b.jpg", "height": 4, "width": 5}
    row = {"item": item, "segmentation": None, "polygon": [TRIANGLE], "box": []}
    (found,) = read_nucleus([row]).items
    assert (found.size, found.record.image) == ((4, 5), "a.jpg")
    triangle = [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    # A centre on the edge is in or out; the one rule is that it is not both.
    np.testing.assert_array_equal(found.read(), triangle)


def test_boxes_are_masks_when_that_is_asked() -> None:
    geometry = {"x": 0.6, "y": 0, "width": 2, "height": 1}
    box = {"type": "box", "label": "a", "reference_id": "a.jpg", "geometry": geometry}
    (fault,) = read_nucleus([box], size=(2, 4)).faults
    assert "no masks among its 1 annotations (annotations of type 'box' are left out" in fault
    (item,) = read_nucleus([box], size=(2, 4), types=["box"]).items
    assert item.read().tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]


def test_an_item_has_one_map_and_an_annotation_its_own_identity() -> None:
    twice = read_nucleus([payload(*ALL), payload(*ALL)], masks=lambda _: png())
    assert twice.faults == ["row 2: is a second map of 'a.jpg'; the first is in row 1"]
    polygons = [{**TRIANGLE, "annotation_id": "x"}] * 2
    (fault,) = read_nucleus(polygons, size=(4, 4)).faults
    assert fault == "row 2: has the annotation_id 'x' of another one, in row 1"


def test_parts_that_are_missing_are_told(tmp_path: Path) -> None:
    masks = mask_array([[[1, 0, 1, 0, 1]]])
    to_nucleus(masks, tmp_path / "out", geometry="polygon", progress=False)
    lines = lines_of(tmp_path / "out")
    assert [line["metadata"]["part"] for line in lines] == [0, 1, 2]
    (item,) = read_nucleus(lines).items
    np.testing.assert_array_equal(item.read(), masks.values[0])
    (fault,) = read_nucleus(lines[1:]).faults
    assert "is of a mask of 3 parts; there are 2" in fault


def test_maps_of_several_sizes_are_refused_or_fitted(tmp_path: Path) -> None:
    rows = [payload(*ALL), payload(*ALL, reference_id="b.jpg", mask_url="s3://b/b.png")]
    maps = {"s3://b/a.png": png(), "s3://b/b.png": png(np.pad(PIXELS, 1))}
    with pytest.raises(SourceError, match="several sizes"):
        from_nucleus(rows, tmp_path / "s.zarr", masks=maps.__getitem__, progress=False)
    assert not (tmp_path / "s.zarr").exists()
    from_nucleus(rows, tmp_path / "s.zarr", masks=maps.__getitem__, fit="pad", progress=False)
    masks = maskcube.open_masks(tmp_path / "s.zarr")
    np.testing.assert_array_equal(masks.sel(image="b.jpg", noun="two")[0], np.pad(PIXELS, 1) == 2)


# ------------------------------------------------------------------------------- where maps are


def test_a_resolver_gives_bytes_or_a_path_or_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    check(found_in(payload(*ALL), tmp_path / "a.png"), one=1, two=2, three=3)
    asked = []

    def get(url: str) -> bytes:
        asked.append(url)
        raise KeyError(url)

    (fault,) = read_nucleus(payload(*ALL), masks=get).faults
    assert "'s3://b/a.png', which was not given: KeyError: 's3://b/a.png'" in fault
    assert asked == ["s3://b/a.png"]


def test_without_a_place_nothing_is_read() -> None:
    (fault,) = read_nucleus(payload(*ALL, mask_url="/etc/hostname.png")).faults
    assert "give masks=" in fault


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("https://h/deep/er/a%20b.png?signature=x", "er/a b.png"),
        ("s3://bucket/train/a.png", "a.png"),
        ("gs://bucket/A.PNG", "A.PNG"),
        ("C:\\masks\\a.png", "masks/a.png"),
        ("/somebody/elses/masks/a.png", "masks/a.png"),
    ],
)
def test_a_map_is_found_by_the_end_of_its_url(url: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(png())
    found = read_nucleus(payload(*ALL, mask_url=url), masks=tmp_path)
    assert not found.faults
    assert len(found) == 3


def test_two_urls_are_not_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    rows = [
        payload(*ALL, mask_url="s3://b/train/a.png"),
        payload(*ALL, mask_url="s3://b/val/a.png", reference_id="b.jpg"),
    ]
    (fault,) = read_nucleus(rows, masks=tmp_path).faults
    assert fault.startswith("row 2: has its mask at 's3://b/val/a.png', which would be ")
    assert fault.endswith("a.png, as 's3://b/train/a.png' is")


@pytest.mark.parametrize("url", ["../a.png", "x/../../a.png", "s3://b/%2e%2e/a.png", "link.png"])
def test_nothing_outside_of_the_folder_is_read(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "a.png")
    (fault,) = read_nucleus(payload(*ALL, mask_url=url), masks=folder).faults
    assert f"is not in {folder}" in fault


@pytest.mark.parametrize(
    "data", [b"", b"no PNG", png()[:50], png(np.dstack([PIXELS, PIXELS * 2, PIXELS]))]
)
def test_a_map_that_is_none_is_told(data: bytes) -> None:
    (fault,) = read_nucleus(payload(*ALL), masks=lambda _: data).faults
    assert fault.startswith("row 1: has a map that ")


# ----------------------------------------------------------------------------------- the file


def write(path: Path, *lines: Any) -> Path:
    path.write_text(
        "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    )
    return path


def test_lines_and_documents_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    for file in (
        write(tmp_path / "a.jsonl", "\n", payload(*ALL), "\n"),
        write(tmp_path / "b.json", [payload(*ALL)]),
        write(tmp_path / "c.json", payload(*ALL)),
        write(tmp_path / "d.json", {"update": True, "segmentations": [payload(*ALL)]}),
        write(
            tmp_path / "e.ndjson",
            {"data": [{"item": {"reference_id": "a.jpg"}, "segmentation": payload(*ALL)}]},
        ),
    ):
        found = read_nucleus(file)
        assert not found.faults
        check({item.record.noun: item.read() for item in found.items}, one=1, two=2, three=3)


def test_every_bad_line_is_told_at_once(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        "{\n",
        "[" * 100_000 + "\n",
        "9" * 5000 + "\n",
        "\xff\n",
        payload(*ALL),
    )
    with pytest.raises(SourceError) as error:
        from_nucleus(file, tmp_path / "s.zarr", progress=False)
    assert [fault.partition(":")[0] for fault in error.value.faults] == [
        f"a.jsonl, line {number}" for number in (1, 2, 3, 4, 5)
    ]
    assert not (tmp_path / "s.zarr").exists()


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="no such file or folder"):
        read_nucleus(tmp_path / "nowhere.jsonl")
    with pytest.raises(SourceNotFound, match=r"there is no annotations\.jsonl"):
        read_nucleus(tmp_path)
    with pytest.raises(SourceNotFound, match="no such folder of masks"):
        read_nucleus([], masks=tmp_path / "nowhere")
    assert read_nucleus([]).faults == ["there are no masks among its 0 annotations"]


@pytest.mark.parametrize(
    "options",
    [
        {"types": "mask"},
        {"types": ["line"]},
        {"types": []},
        {"size": (0, 4)},
        {"size": (4,)},
        {"masks": 3},
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        read_nucleus([], **options)


def test_a_folder_with_a_broken_list_of_files_is_told(tmp_path: Path) -> None:
    masks = single_pixels(20)[:1]
    to_nucleus(masks, tmp_path / "out", mask_url="s3://b/{image}", progress=False)
    for broken in ("{", "[]", '{"a": 1}'):
        (tmp_path / "out" / "masks.json").write_text(broken)
        with pytest.raises(SourceError, match=r"masks\.json"):
            read_nucleus(tmp_path / "out")
    (tmp_path / "out" / "masks.json").write_text('{"s3://b/a.jpg": "../../x.png"}')
    (fault,) = read_nucleus(tmp_path / "out").faults
    assert "is not in" in fault


@pytest.mark.parametrize("kind", [float, str])
def test_parts_stay_one_mask_where_integers_have_become_something_else(kind: type) -> None:
    """Each part would be a mask of its own, where duplicates are allowed."""
    mask = np.zeros((4, 5), np.uint8)
    mask[0, 0] = mask[2:, 3] = 1
    payloads = polygon_payloads(Record(image="a.jpg", noun="hand", instance=0), 7, mask)
    for payload in payloads:
        for key in ("mask", "n_parts"):
            payload["metadata"][key] = kind(payload["metadata"][key])
    (item,) = read_nucleus(payloads).items
    np.testing.assert_array_equal(item.read(), mask)
