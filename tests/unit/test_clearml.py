"""ClearML's values, labels, ids and frames, also of those who wrote them by the older page."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskcube.errors import InvalidOption, MissingDependency, SourceError, SourceNotFound
from maskcube.formats.clearml import read_clearml
from maskcube.formats.clearml_alpha import read_clearml_alpha
from maskcube.formats.clearml_frames import (
    FrameWriter,
    MaskFile,
    Places,
    check_template,
    masks_source,
    new_frame,
    object_ids,
)
from maskcube.formats.clearml_palette import Palette
from maskcube.formats.clearml_sdk import to_clearml_sdk
from maskcube.formats.clearml_values import Value, value_of, version_labels
from maskcube.formats.collection import Collection
from maskcube.formats.png import encode
from maskcube.formats.record import Record

Frame = dict[str, Any]

CLASSES = np.zeros((6, 8), np.uint8)
CLASSES[1:3, 1:4], CLASSES[3:5, 2:6], CLASSES[5, 7] = 1, 2, 3


def png(pixels: np.ndarray[Any, Any], mode: str | None = None) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(file, "PNG")
    return file.getvalue()


def palette_png(pixels: np.ndarray[Any, Any], colours: list[int]) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    picture.putpalette(colours)
    picture.save(file, "PNG")
    return file.getvalue()


def frame(*rois: Frame, masks: Any = "seg", **more: Any) -> Frame:
    entries = [{"id": masks, "uri": f"s3://b/{masks}.png"}] if isinstance(masks, str) else masks
    source = {"id": "front", "uri": "https://h/car_1/front.jpg", "masks": entries}
    return {"context_id": "car_1", "sources": [source], "rois": list(rois), **more}


def roi(labels: Any, mask_id: Any, value: Any, **more: Any) -> Frame:
    about = {"label": labels, "mask": {"id": mask_id, "value": value}, "sources": ["front"]}
    return about | more


def read(*frames: Any, data: bytes | Mapping[str, bytes] = b"", **options: Any) -> Collection:
    known = png(CLASSES) if data == b"" else data
    masks = known.__getitem__ if isinstance(known, Mapping) else lambda _: known
    return read_clearml(list(frames), masks=masks, **options)


def told(found: Collection) -> list[tuple[str, str, int | None]]:
    return [(each.record.image, each.record.noun, each.record.instance) for each in found.items]


def pixels_of(found: Collection) -> list[list[list[int]]]:
    return [item.read().tolist() for item in found.items]


def where(*values: int) -> list[list[int]]:
    chosen: list[list[int]] = np.isin(CLASSES, values).astype(np.uint8).tolist()
    return chosen


# -- values and labels ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "number", "bits"),
    [
        ([1, 2, 3], 0x030201, 0xFFFFFF),
        (["1", "2", "3"], 0x030201, 0xFFFFFF),
        ([7], 0x070707, 0xFFFFFF),
        ("7", 0x070707, 0xFFFFFF),
        (7, 0x070707, 0xFFFFFF),
        ([-1, 1, 255], 0xFF0100, 0xFFFF00),
        ((0, 0, 0), 0, 0xFFFFFF),
    ],
)
def test_a_value_is_read(given: object, number: int, bits: int) -> None:
    assert value_of(given) == Value(number, bits)


@pytest.mark.parametrize(
    "given",
    [
        [],
        [1, 2],
        [1, 2, 3, 4],
        [256, 0, 0],
        [-1, -1, -1],
        [1.5, 0, 0],
        [True, 0, 0],
        [None, 0, 0],
        ["red", 0, 0],
        [10**400, 0, 0],
        ["9" * 5000, 0, 0],
        {"r": 1},
        None,
        "",
        [[1], [2], [3]],
    ],
)
def test_what_is_no_value_is_told(given: object) -> None:
    with pytest.raises(ValueError, match="value must"):
        value_of(given)


ENTRIES = [
    {"value": [0, 0, 0], "labels": ["background"]},
    {"value": [1, 1, 1], "labels": ["person", "sitting"]},
]


@pytest.mark.parametrize(
    "given",
    [
        ENTRIES,
        {"_all_": ENTRIES},
        {"mask_labels": ENTRIES},
        {"mask_labels": {"_all_": ENTRIES}},
        {(0, 0, 0): ["background"], (1, 1, 1): ["person", "sitting"]},
        [{"value": ["0", "0", "0"], "labels": "background"}, ENTRIES[1]],
    ],
)
def test_every_form_of_labels_is_read(given: object) -> None:
    (labels,) = version_labels(given).values()
    assert [(str(each.value), each.labels) for each in labels] == [
        ("(0, 0, 0)", ("background",)),
        ("(1, 1, 1)", ("person", "sitting")),
    ]


def test_a_legend_is_read() -> None:
    legend = {"background": [0, 0, 0], "mask_labels": [5, 5, 5], "_all_": [6, 6, 6]}
    (labels,) = version_labels(legend).values()
    assert [each.labels for each in labels] == [("background",), ("mask_labels",), ("_all_",)]


@pytest.mark.parametrize(
    "given", [3, "x", [3], [{"labels": ["a"]}], {"a": 3.5}, {"_all_": [{"value": [1, 1, 1, 1]}]}]
)
def test_labels_that_are_none_are_a_fault(given: object) -> None:
    found = read(frame(), labels=given)
    assert len(found.faults) == 1
    assert "value" in found.faults[0] or "mask_labels" in found.faults[0]


def test_a_palette_is_grey_while_it_can_be() -> None:
    nouns = [f"noun {number}" for number in range(256)]
    grey = Palette.of(nouns[:255])
    assert grey.labels()[255, 255, 255] == ["noun 254"]
    colour = Palette.of(nouns)
    assert not colour.is_grey
    assert colour.labels()[0, 1, 0] == ["noun 255"]
    painted = colour.paint(np.array([[0, 1, 2]], np.uint16), [256, 255])
    assert painted.tolist() == [[[0, 0, 0], [0, 1, 0], [255, 0, 0]]]
    assert len({tuple(value) for value in colour.legend().values()}) == 257


def test_a_noun_called_background_has_its_name_alone() -> None:
    palette = Palette.of(["background", "hand"])
    assert palette.labels() == {(1, 1, 1): ["background"], (2, 2, 2): ["hand"]}
    assert Palette.of(["hand"], background=None).labels() == {(1, 1, 1): ["hand"]}


def test_nouns_that_were_first_keep_their_values() -> None:
    first = Palette.of(["hand", "person"])
    later = Palette.of(["arm", "hand"], first.nouns)
    assert later.labels() == first.labels() | {(3, 3, 3): ["arm"]}
    with pytest.raises(InvalidOption, match="nouns and background must be texts, found 3"):
        Palette.of([], ["hand", 3])  # type: ignore[list-item]


def test_keys_of_the_metadata_are_such_as_the_sdk_takes() -> None:
    """Its own may have neither a dot nor a dollar; nouns may."""
    metadata = Palette.of(["a.b", "$c", "d/e", "ä ö"]).metadata()

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    assert keys(metadata) == {"mask_labels", "_all_", "value", "labels"}


# -- ids and templates ---------------------------------------------------------------------------


def test_ids_are_unique_whatever_nouns_look_like() -> None:
    pairs = [("a", 1), ("a-1", None), ("a", -1), ("a-", 1), ("a-1 (2)", None), ("a", 1), ("a", 1)]
    ids = object_ids(Record(image="x", noun=noun, instance=n) for noun, n in pairs)
    assert len(set(ids)) == len(pairs)
    assert ids[0] == "a-1"


@pytest.mark.parametrize(
    "template",
    ["s3://b/{file", "{0}", "{}", "{file.__class__}", "{file!r}", "{file:>9}", "{name}", "a.png"],
)
def test_a_template_that_would_not_do_is_refused(template: str) -> None:
    with pytest.raises(InvalidOption, match="mask_uri="):
        check_template("mask_uri", template, {"file"}, [{"file"}])


def test_names_are_percent_encoded_in_a_uri() -> None:
    places = Places("s3://b/{image}/{id}.png", "s3://b/{image}")
    assert places.of_image("a b#1?.jpg") == "s3://b/a%20b%231%3F.jpg"
    assert places.of_mask("a/b", MaskFile("x/0", "f.png")) == "s3://b/a%2Fb/x%2F0.png"


def test_two_masks_never_have_one_uri(tmp_path: Path) -> None:
    """As {image}-{id} gives them to the images a and a-b."""
    places = Places("s3://b/{image}-{id}.png", None)
    frames = [
        new_frame("a-b", (1, 1), [MaskFile("c", "0.png")], places),
        new_frame("a", (1, 1), [MaskFile("b-c", "1.png")], places),
    ]
    with FrameWriter(tmp_path / "frames.json") as writer:
        writer.write(frames[0])
        with pytest.raises(InvalidOption, match=r"two masks the URI 's3://b/a-b-c\.png'"):
            writer.write(frames[1])


# -- frames by the documentation -----------------------------------------------------------------


def test_the_first_example_of_2023_names_the_mask_as_label() -> None:
    masks = [{"id": "seg", "uri": "front_seg.mp4"}, {"id": "seg_instance", "uri": "inst.mp4"}]
    rois = [roi(["seg"], name, [n, n, n]) for n, name in enumerate(["car", "person", "road"], 1)]
    found = read(frame(*rois, masks=masks, timestamp=1234567889))
    assert told(found) == [("car_1", name, None) for name in ("car", "person", "road")]
    assert pixels_of(found) == [where(1), where(2), where(3)]
    assert found.faults == []
    (lost,) = found.lost
    assert lost.startswith(
        "masks without a label are left out; see labels= or from_clearml_alpha: in "
    )
    assert lost.endswith("frame 0 ('car_1'), mask 'seg_instance'")


def test_the_second_example_of_2023_has_a_mask_for_each_class() -> None:
    masks = [{"id": "car", "uri": "front_seg.mp4"}, {"id": "road", "uri": "inst.mp4"}]
    rois = [roi(["right_lane"], "car", [1, 1, 1]), roi(["right_lane"], "road", [2, 2, 2])]
    found = read(frame(*rois, masks=masks))
    assert told(found) == [("car_1", "right_lane", None)] * 2
    assert pixels_of(found) == [where(1), where(2)]


def test_the_third_example_has_the_mask_as_mask() -> None:
    found = read(frame(roi(["car"], "seg", [1, 1, 1], confidence=0.5)))
    assert told(found) == [("car_1", "car", None)]
    assert found.items[0].record.score == 0.5
    assert found.items[0].size == (6, 8)


def test_ids_may_be_integers_and_labels_misspelt() -> None:
    region = {"labels": "car", "mask": {"id": "1", "value": ["1", 1, 1]}}
    found = read(frame(region, masks=[{"id": 1, "uri": "a.png"}]))
    assert told(found) == [("car_1", "car", None)]
    assert pixels_of(found) == [where(1)]


def test_a_region_of_no_mask_is_read_in_the_only_one_and_told() -> None:
    found = read(frame(roi(["car"], "other", [1, 1, 1])))
    assert pixels_of(found) == [where(1)]
    assert "'other', which is not there" in found.lost[0]
    masks = [{"id": "a", "uri": "a.png"}, {"id": "b", "uri": "b.png"}]
    found = read(frame(roi(["car"], "other", [1, 1, 1]), masks=masks))
    assert found.faults == [
        "frame 0, region 0: mask.id is 'other', which is none of its masks: ['a', 'b']"
    ]


def test_a_negative_part_stands_for_any() -> None:
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[CLASSES == 1] = [9, 1, 255]
    colours[CLASSES == 2] = [200, 1, 255]
    colours[CLASSES == 3] = [9, 2, 255]
    found = read(frame(roi(["car"], "seg", [-1, 1, 255])), data=png(colours))
    assert pixels_of(found) == [where(1, 2)]
    (lost,) = found.lost
    assert lost.startswith("pixels of value (9, 2, 255), which has no label, are left out: in ")
    assert lost.endswith("frame 0 ('car_1'), mask 'seg'")


@pytest.mark.parametrize("labels", [[ENTRIES[1]], {"_all_": ENTRIES}, {"seg": ENTRIES}])
def test_the_newer_page_has_labels_for_the_version(labels: object) -> None:
    """And no regions: each label is one mask, with all its values."""
    one = frame()
    del one["rois"]
    found = read(one, labels=labels)
    assert told(found) == [("car_1", "person", None), ("car_1", "sitting", None)]
    assert pixels_of(found) == [where(1), where(1)]
    assert [each for each in found.lost if "value (2, 2, 2)" in each]


def test_a_label_of_several_values_is_one_mask() -> None:
    labels = {(1, 1, 1): ["cat"], (2, 2, 2): ["cat", "dog"], (9, 9, 9): ["bird"]}
    found = read(frame(), labels=labels)
    assert told(found) == [("car_1", "cat", None), ("car_1", "dog", None)]
    assert pixels_of(found) == [where(1, 2), where(2)]


def test_value_zero_may_be_an_object() -> None:
    """As in the page's own example, add_annotation(mask_rgb=[0, 0, 0], labels=["cat"])."""
    found = read(frame(roi(["cat"], "seg", [0, 0, 0]), roi(["background"], "seg", [0, 0, 0])))
    assert told(found) == [("car_1", "cat", None)]
    assert pixels_of(found) == [where(0)]
    assert told(read(frame(), labels=ENTRIES, background=None))[0][1] == "background"


def test_regions_of_one_value_come_in_as_one() -> None:
    metas = [{"instance": 1, "box_x0": 3.0, "mask_file": "b"}, {"instance": 0, "mask_file": "a"}]
    rois = [roi(["hand"], "seg", [1, 1, 1], meta=meta) for meta in metas]
    found = read(frame(*rois))
    assert told(found) == [("car_1", "hand", 0)]
    assert found.items[0].record.mask_file == "a"
    assert "come in as one mask" in found.lost[0]


def test_regions_without_labels_or_masks_are_told() -> None:
    polygon = {"label": ["car"], "poly": [0, 0, 1, 1, 2, 0], "sources": ["front"]}
    found = read(frame(roi([], "seg", [1, 1, 1]), polygon))
    assert len(found.items) == 0
    assert [each.partition(":")[0] for each in found.lost][:2] == [
        "regions without a mask (polygons, boxes) are left out",
        "regions without a label are left out",
    ]


def test_sources_of_one_frame_are_images_of_their_own() -> None:
    """The SDK gives the first mask of each source the id "00"."""
    one = frame(roi(["car"], "00", [1, 1, 1]), roi(["cat"], "00", [2, 2, 2], sources=["rear"]))
    masks = [{"id": "00", "uri": "a.png"}]
    one["sources"] = [{"id": name, "uri": "u", "masks": masks} for name in ("front", "rear")]
    assert told(read(one)) == [("car_1/front", "car", None), ("car_1/rear", "cat", None)]


@pytest.mark.parametrize(
    ("image", "name"), [("context_id", "car_1"), ("id", "f7"), ("uri", "front.jpg")]
)
def test_the_name_of_an_image_is_what_was_asked_for(image: str, name: str) -> None:
    one = frame(roi(["car"], "seg", [1, 1, 1]), id="f7")
    assert told(read(one, image=image))[0][0] == name
    with pytest.raises(InvalidOption, match="image='name': give one of"):
        read(one, image="name")


# -- kinds of pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        png(CLASSES),
        png(CLASSES, "RGB"),
        png(CLASSES, "RGBA"),
        png(CLASSES, "LA"),
        png(CLASSES.astype(np.uint16)),
        palette_png(CLASSES, [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]),
    ],
    ids=["L", "RGB", "RGBA", "LA", "I;16", "P"],
)
def test_a_picture_of_any_kind_has_its_values(data: bytes) -> None:
    found = read(frame(roi(["a"], "seg", [1, 1, 1]), roi(["b"], "seg", [2, 2, 2])), data=data)
    assert found.faults == []
    assert pixels_of(found) == [where(1), where(2)]


def test_a_palette_gives_its_colours() -> None:
    data = palette_png(CLASSES, [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    found = read(frame(roi(["a"], "seg", [128, 0, 0]), roi(["b"], "seg", [0, 128, 0])), data=data)
    assert pixels_of(found) == [where(1), where(2)]


@pytest.mark.parametrize("value", [1, 255])
def test_black_and_white_is_0_and_1_or_255(value: int) -> None:
    data = png((CLASSES == 1).astype(np.uint8) * 255, "1")
    found = read(frame(roi(["a"], "seg", [value] * 3)), data=data)
    assert pixels_of(found) == [where(1)]
    assert found.lost == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no picture", "is no PNG"),
        (png(CLASSES)[:60], "is damaged"),
        (png(CLASSES.astype(np.uint16) * 300), "16 bits a pixel, and values above 255"),
    ],
)
def test_a_picture_that_is_none_is_a_fault(data: bytes, message: str) -> None:
    found = read(frame(roi(["a"], "seg", [1, 1, 1])), data=data)
    assert len(found.faults) == 1
    assert message in found.faults[0]
    assert "frame 0 ('car_1'), mask 'seg': 's3://b/seg.png'" in found.faults[0]


# -- hostile frames ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        "frame",
        None,
        [],
        {"sources": "front"},
        {"sources": [3]},
        {"sources": {"id": "a"}},
        frame(masks=[3]),
        frame(masks={"id": "a"}),
        frame(masks=[{"id": "a"}]),
        frame(masks=[{"id": None, "uri": "a.png"}]),
        frame(masks=[{"id": True, "uri": "a.png"}]),
        frame(masks=[{"id": "a", "uri": 7}]),
        frame(masks=[{"id": "a", "uri": "a.png"}, {"id": "a", "uri": "b.png"}]),
        frame(roi(["a"], "seg", [1, 1, 1]), context_id=["x"]),
        frame(roi(["a"], "seg", [1, 1, 1]), meta={"image_name": "a\0b"}),
        frame(roi(["a"], "seg", "red")),
        frame(roi([7], "seg", [1, 1, 1])),
        frame(roi(["\ud800"], "seg", [1, 1, 1])),
        frame(roi(["a"], "seg", [1, 1, 1], meta=[])),
        frame(roi(["a"], "seg", [1, 1, 1], meta={"instance": 10**30})),
        frame(roi(["a"], "seg", [1, 1, 1], meta={"instance": "one"})),
        frame(roi(["a"], "seg", [1, 1, 1], confidence="high")),
        frame(roi(["a"], "seg", [1, 1, 1], confidence=1e400)),
        frame(roi(["a"], "seg", [1, 1, 1], sources="front")),
        frame({"label": ["a"], "mask": 3}),
        {**frame(), "rois": [3]},
        {**frame(), "rois": 3},
    ],
    ids=lambda wrong: repr(wrong)[-60:],
)
def test_whatever_is_wrong_is_one_fault_and_the_rest_is_read(wrong: object) -> None:
    right = frame(roi(["hand"], "seg", [1, 1, 1]), context_id="right")
    found = read(wrong, right)
    assert len(found.faults) == 1
    assert found.faults[0].startswith("frame 0")
    assert ("right", "hand", None) in told(found)
    assert len(found.faults[0]) < 500


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, "[" + "9" * 5000 + "]", "\x00", '{"a": 1}\nno\n'],
    ids=["empty", "cut", "deep", "long", "nul", "lines"],
)
def test_what_is_no_json_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "frames.json").write_text(text)
    with pytest.raises(SourceError, match=r"frames\.json: .*is no JSON"):
        read_clearml(tmp_path)
    (tmp_path / "frames.json").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match=r"frames\.json: .*utf-8"):
        read_clearml(tmp_path)


def test_where_nothing_is_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="no such file of frames"):
        read_clearml(tmp_path)
    with pytest.raises(InvalidOption, match="masks=None"):
        read_clearml([frame()])
    with pytest.raises(InvalidOption, match="give a folder"):
        read_clearml(3)


@pytest.mark.parametrize("form", ["list", "lines", "request", "one"])
def test_frames_are_found_in_any_file(tmp_path: Path, form: str) -> None:
    frames = [frame(roi(["hand"], "seg", [1, 1, 1]), context_id=name) for name in ("a", "b")]
    texts = {
        "list": json.dumps(frames, indent=1),
        "lines": "\ufeff" + "\n".join(map(json.dumps, frames)) + "\n",
        "request": json.dumps({"version": "v1", "frames": frames}),
        "one": json.dumps(frames[0]),
    }
    path = tmp_path / "frames.jsonl"
    path.write_text(texts[form], encoding="utf-8")
    (tmp_path / "seg.png").write_bytes(png(CLASSES))
    found = read_clearml(path)
    assert found.faults == []
    assert [each.record.image for each in found.items] == (["a"] if form == "one" else ["a", "b"])


@pytest.mark.parametrize(
    "uri", ["../secret.png", "/{folder}/secret.png", "file:///{folder}/secret.png", "link.png"]
)
def test_no_file_outside_of_the_folder_is_read(tmp_path: Path, uri: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(png(CLASSES))
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    masks = [{"id": "seg", "uri": uri.format(folder=tmp_path)}]
    one = frame(roi(["hand"], "seg", [1, 1, 1]), masks=masks)
    (inside / "frames.json").write_text(json.dumps([one]))
    assert "is not in" in read_clearml(inside).faults[0]
    assert "is not in" in read_clearml_alpha([{**one, "rois": []}], masks=inside).faults[0]


def test_without_the_sdk_the_line_of_pip_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "clearml.hyperdatasets", None)
    with pytest.raises(MissingDependency, match=r'pip install "maskcube\[clearml\]"'):
        to_clearml_sdk(tmp_path)


# -- alpha-channel masks -------------------------------------------------------------------------


def alpha(masks: list[Frame], data: bytes, **options: Any) -> Collection:
    return read_clearml_alpha([frame(masks=masks)], masks=lambda _: data, **options)


@pytest.mark.parametrize(
    ("mask_id", "noun", "instance"),
    [("hand-3", "hand", 3), ("troll", "troll", None), ("a-b-0", "a-b", 0), ("-1", "-1", None)],
)
def test_the_id_of_an_alpha_mask_is_its_noun(mask_id: str, noun: str, instance: int) -> None:
    found = alpha([{"id": mask_id, "uri": "a.png"}], png(CLASSES))
    assert told(found) == [("car_1", noun, instance)]


@pytest.mark.parametrize(("threshold", "least"), [(None, 128), (1, 1), (2, 2), (255, 255)])
def test_a_threshold_says_what_is_the_object(threshold: int | None, least: int) -> None:
    soft = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)
    for data in (png(soft), png(soft, "RGB"), png(soft.astype(np.uint16) * 257)):
        (item,) = alpha([{"id": "x", "uri": "a.png"}], data, threshold=threshold).items
        assert item.read().tolist() == (soft >= least).astype(np.uint8).tolist()


def test_black_and_white_and_palettes_are_seen_as_they_are_shown() -> None:
    expected = where(1)
    one_bit = png((CLASSES == 1).astype(np.uint8) * 255, "1")
    palette = palette_png((CLASSES == 1).astype(np.uint8), [0, 0, 0, 255, 255, 255])
    for data in (one_bit, palette):
        (item,) = alpha([{"id": "x", "uri": "a.png"}], data).items
        assert item.read().tolist() == expected


@pytest.mark.parametrize("threshold", [0, 256, 0.5, True, "128"])
def test_a_threshold_that_is_none_is_refused(threshold: Any) -> None:
    with pytest.raises(InvalidOption, match="threshold="):
        alpha([], b"", threshold=threshold)


def test_colours_are_no_opacity() -> None:
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[0, 0] = [255, 0, 0]
    (item,) = alpha([{"id": "x", "uri": "a.png"}], png(colours)).items
    with pytest.raises(ValueError, match="has colours"):
        item.read()


def test_masks_with_pixel_values_are_no_alpha_masks() -> None:
    one = frame(roi(["hand"], "seg", [1, 1, 1]))
    found = read_clearml_alpha([one], masks=lambda _: png(CLASSES))
    assert len(found.items) == 0
    assert "from_clearml reads them" in found.lost[0]


@pytest.mark.parametrize(
    "blob",
    [
        {"objects": [{"id": "x", "noun": 3}]},
        {"objects": [{"id": "x", "noun": "a", "instance": "first"}]},
        {"objects": [], "opacity": [255, 0]},
        {"objects": [], "opacity": ["a", "b"]},
        {"objects": [], "opacity": []},
    ],
)
def test_what_is_wrong_with_our_own_words_is_a_fault(blob: Frame) -> None:
    one = frame(masks=[{"id": "x", "uri": "a.png"}], meta_blob=blob)
    found = read_clearml_alpha([one], masks=lambda _: png(CLASSES))
    assert len(found.faults) == 1
    assert found.faults[0].startswith("frame 0")


@pytest.mark.parametrize("blob", [3, {"objects": 3}, {"objects": [3]}, {"objects": {"x": 1}}])
def test_words_that_are_not_ours_are_no_fault(blob: Any) -> None:
    one = frame(masks=[{"id": "x-1", "uri": "a.png"}], meta_blob=blob, meta={"front": blob})
    found = read_clearml_alpha([one], masks=lambda _: png(CLASSES))
    assert told(found) == [("car_1", "x", 1)]


def test_masks_source_has_both_forms() -> None:
    one = frame(masks=[{"id": "00", "uri": "a"}, {"id": "01", "uri": "b"}])
    assert masks_source(one) == {"00": "a", "01": "b"}
    assert masks_source(one, numbered=True) == ["a", "b"]
    with pytest.raises(InvalidOption, match="take the dict"):
        masks_source(frame(masks="hand-0"), numbered=True)


def test_a_photograph_as_mask_is_told_in_few_words() -> None:
    """No warning for each of its colours, of which there may be millions."""
    colours = np.arange(3 * 1_000, dtype=np.uint16).astype(np.uint8).reshape(10, 100, 3)
    colours[..., 1] = np.arange(1_000).reshape(10, 100) // 256 + 1
    roi = {"label": ["hand"], "mask": {"id": "00", "value": [0, 1, 2]}}
    source = {"id": "default", "uri": "a.jpg", "masks": [{"id": "00", "uri": "a.png"}]}
    frame = {"id": "a.jpg", "sources": [source], "rois": [roi]}
    found = read_clearml([frame], masks=lambda _: encode(colours))
    assert len(found.items) == 1
    assert found.faults == []
    assert len(found.lost) <= 10
    assert any("many more values" in told for told in found.lost)


def test_many_objects_of_one_name_get_ids_at_once() -> None:
    hand = Record(image="a.jpg", noun="hand", instance=0)
    ids = object_ids([hand, Record(image="a.jpg", noun="hand-0 (2)"), *[hand] * 20_000])
    assert len(set(ids)) == 20_002
    assert ids[:4] == ["hand-0", "hand-0 (2)", "hand-0 (3)", "hand-0 (4)"]
