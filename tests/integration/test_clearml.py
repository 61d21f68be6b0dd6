"""Stores go to ClearML's masks and come back."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image
from reference import Source, write_source

import maskcube
from maskcube.errors import InvalidOption, SourceError, StoreExists
from maskcube.formats.clearml import from_clearml, mask_labels, read_clearml, to_clearml
from maskcube.formats.clearml_alpha import from_clearml_alpha, read_clearml_alpha, to_clearml_alpha

COLUMNS = [
    "image",
    "noun",
    "instance",
    "score",
    "box_x0",
    "box_y0",
    "box_x1",
    "box_y1",
    "localized",
    "mask_file",
    "mask_row",
    "area",
    "crc32c",
]
HOSTILE = [
    "../../up",
    "/etc/passwd",
    "a.b.c",
    "$set",
    "CON",
    "Hand",
    "hand",
    "crème brûlée",
    "n" * 300,
    "tab\there",
    "new\nline",
    'quote"',
    "background",
    "_all_",
    "mask_labels",
    "hand-1",
]


def assert_equal(found: Path, expected: xr.DataArray) -> None:
    masks = maskcube.open_masks(found).compute()
    np.testing.assert_array_equal(masks, expected)
    for name in COLUMNS:
        if name != "mask_row":
            np.testing.assert_array_equal(masks[name], expected[name], name)
    assert list(masks["mask_row"].to_numpy()) == list(range(len(masks)))


def frames_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "frames.json").read_text())
    return found


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store whose images and nouns are names that nobody should make files of."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        images = ["../a.jpg", "/a.jpg", "A.jpg", "a.jpg", "a.v1.2.jpg", "i" * 300, "nul.png"]
        table["image_name"] = [images[n % len(images)] for n in range(len(table))]
        table["noun"] = [HOSTILE[n // 7 % len(HOSTILE)] for n in range(len(table))]
        return table.assign(instance_id=table.groupby(["image_name", "noun"]).cumcount())

    folder = tmp_path_factory.mktemp("hostile")
    source = write_source(folder, n_masks=230, change=change)
    maskcube.convert(source.folder, folder / "masks.zarr", progress=False)
    return folder / "masks.zarr"


@pytest.mark.parametrize("made", ["small_store", "hostile", "store"])
def test_layers_come_back_bit_by_bit(
    made: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    masks = maskcube.open_masks(request.getfixturevalue(made))[:250]
    masks = masks[:40] if masks.sizes["y"] > 500 else masks
    report = to_clearml(masks, tmp_path / "out", overlap="layers", progress=False)
    assert (report.changed, report.dropped) == ([], [])
    assert report.n_masks == len(masks)
    for frame in frames_of(tmp_path / "out"):
        told = [(roi["mask"]["id"], *roi["mask"]["value"]) for roi in frame["rois"]]
        # A value in a mask is one object.
        assert len(set(told)) == len(told)
    found = from_clearml(tmp_path / "out", tmp_path / "again.zarr", progress=False)
    assert found.n_masks == len(masks)
    assert_equal(tmp_path / "again.zarr", masks)


@pytest.mark.parametrize(("alpha", "outside"), [(255, 0), (1, 0), (77, 76), (255, 254), (40, 10)])
def test_alpha_masks_come_back_bit_by_bit(
    hostile: Path, tmp_path: Path, alpha: int, outside: int
) -> None:
    masks = maskcube.open_masks(hostile)
    report = to_clearml_alpha(masks, tmp_path / "out", alpha=alpha, outside=outside, progress=False)
    assert report.changed == []
    files = sorted((tmp_path / "out" / "masks").iterdir())
    assert len({path.name.lower() for path in files}) == len(masks)
    for path in files[:20]:
        with Image.open(path) as picture:
            assert picture.mode == "L"
            assert set(np.unique(np.asarray(picture))) <= {alpha, outside}
    from_clearml_alpha(tmp_path / "out", tmp_path / "again.zarr", progress=False)
    assert_equal(tmp_path / "again.zarr", masks)


def test_alpha_masks_of_the_sample_come_back(store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(store)[:40]
    to_clearml_alpha(masks, tmp_path / "out", progress=False)
    from_clearml_alpha(tmp_path / "out", tmp_path / "again.zarr", progress=False)
    assert_equal(tmp_path / "again.zarr", masks)


@pytest.mark.parametrize("overlap", ["smallest", "score", "order"])
def test_classes_come_back_as_the_rule_says(
    small: Source, small_store: Path, tmp_path: Path, overlap: str
) -> None:
    """Each noun of an image is one mask: the pixels where one of it is on top."""
    masks = maskcube.open_masks(small_store)
    report = to_clearml(masks, tmp_path / "out", overlap=overlap, progress=False)
    found = read_clearml(tmp_path / "out")
    assert not found.faults
    assert any("come in as one mask" in told for told in found.lost)
    shown = {(item.record.image, item.record.noun): item.read() for item in found.items}
    table = small.by_row
    for image in dict.fromkeys(table["image_name"]):
        rows = table[table["image_name"] == image]
        painted = np.full(small.masks.shape[1:], "", object)
        records: list[Any] = list(rows.itertuples())
        for each in sorted(records, key=lambda each: _below(each, small, overlap)):
            painted[small.masks[each.mask_row] == 1] = each.noun
        for noun in set(rows["noun"]):
            expected = painted == noun
            if expected.any():
                np.testing.assert_array_equal(shown.pop((image, noun)), expected)
    assert shown == {}
    area = {mask.mask_row: mask.area for mask in report.masks}
    assert area == {row: int(small.masks[row].sum()) for row in range(len(small.masks))}
    assert report.dropped


def _below(each: Any, small: Source, overlap: str) -> tuple[float, ...]:
    """Return what sorts the masks of an image from the lowest to the one on top."""
    area, score = int(small.masks[each.mask_row].sum()), each.score
    score = -1.0 if np.isnan(score) else score
    return {
        "smallest": (-area, score, -each.mask_row),
        "score": (score, -area, -each.mask_row),
        "order": (each.mask_row,),
    }[overlap]


def test_overlaps_can_be_refused(small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store)
    with pytest.raises(InvalidOption, match="overlap='error': in image"):
        to_clearml(masks, tmp_path / "out", overlap="error", progress=False)
    assert list(tmp_path.iterdir()) == []


def few(pixels: list[list[list[int]]], nouns: list[str], **coords: Any) -> xr.DataArray:
    labels = {
        "image": ("mask", ["a.jpg"] * len(nouns)),
        "noun": ("mask", nouns),
        "instance": ("mask", list(range(len(nouns)))),
    }
    known = {name: ("mask", values) for name, values in coords.items()}
    return xr.DataArray(np.array(pixels, np.uint8), labels | known, ("mask", "y", "x"))


def test_masks_of_one_noun_do_not_hide_each_other(tmp_path: Path) -> None:
    masks = few([[[1, 1, 1]], [[0, 1, 0]], [[0, 0, 1]]], ["hand", "hand", "ring"])
    report = to_clearml(masks, tmp_path / "out", progress=False)
    assert [mask.visible for mask in report.masks] == [2, 1, 1]
    with Image.open(tmp_path / "out" / "masks" / "a.png") as picture:
        assert np.asarray(picture).tolist() == [[1, 1, 2]]


def test_hidden_and_empty_masks_are_left_out_and_told(tmp_path: Path) -> None:
    masks = few(
        [[[1, 1, 0]], [[1, 1, 0]], [[0, 0, 0]], [[0, 1, 1]]],
        ["low", "high", "empty", "part"],
        score=[0.1, 0.9, np.nan, 0.5],
    )
    report = to_clearml(masks, tmp_path / "out", overlap="score", progress=False)
    assert [mask.noun for mask in report.dropped] == ["low", "empty"]
    assert [mask.visible for mask in report.masks] == [0, 2, 0, 1]
    (frame,) = frames_of(tmp_path / "out")
    assert [roi["label"] for roi in frame["rois"]] == [["high"], ["part"]]
    assert "left out" in str(report)
    assert [each.record.noun for each in read_clearml(tmp_path / "out").items] == ["high", "part"]
    # And a share that is not enough.
    report = to_clearml(masks, tmp_path / "few", overlap="score", min_visible=0.6, progress=False)
    assert [mask.noun for mask in report.dropped] == ["low", "empty", "part"]
    # In layers nothing is hidden, and what is empty is there.
    report = to_clearml(masks, tmp_path / "all", overlap="layers", progress=False)
    assert report.dropped == []
    found = read_clearml(tmp_path / "all")
    areas = {each.record.noun: int(each.read().sum()) for each in found.items}
    assert areas == {"low": 2, "high": 2, "empty": 0, "part": 2}
    assert (found.lost, found.faults) == ([], [])


def test_scores_and_boxes_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    masks = few([[[1, 0]], [[0, 1]]], ["a", "b"], score=[np.nan, 0.5], box_x0=[np.nan, 3.0])
    to_clearml(masks, tmp_path / "out", progress=False)
    text = (tmp_path / "out" / "frames.json").read_text()
    assert "NaN" not in text
    assert "null" not in text
    first, second = frames_of(tmp_path / "out")[0]["rois"]
    assert "confidence" not in first
    assert "box_x0" not in first["meta"]
    assert (second["confidence"], second["meta"]["box_x0"]) == (0.5, 3.0)


def test_more_than_255_nouns_are_colours(tmp_path: Path) -> None:
    nouns = [f"noun {number:03d}" for number in range(300)]
    pixels = np.zeros((300, 20, 20), np.uint8)
    for number in range(300):
        pixels[number, number // 20, number % 20] = 1
    masks = few(pixels.tolist(), nouns)
    to_clearml(masks, tmp_path / "out", progress=False)
    with Image.open(tmp_path / "out" / "masks" / "a.png") as picture:
        assert picture.mode == "RGB"
        shown = np.asarray(picture).astype(int)
    expected = (np.arange(400) + 1).reshape(20, 20) * (np.arange(400) < 300).reshape(20, 20)
    np.testing.assert_array_equal(
        shown[..., 0] + 256 * shown[..., 1] + 65536 * shown[..., 2], expected
    )
    labels = json.loads((tmp_path / "out" / "mask_labels.json").read_text())["mask_labels"]
    assert labels["_all_"][300] == {"value": [44, 1, 0], "labels": ["noun 299"]}
    assert {tuple(each["value"]): each["labels"] for each in labels["_all_"]} == mask_labels(masks)
    from_clearml(tmp_path / "out", tmp_path / "again.zarr", progress=False)
    np.testing.assert_array_equal(maskcube.open_masks(tmp_path / "again.zarr").values, masks)


def test_a_value_is_the_same_noun_in_every_part_of_a_version(
    small_store: Path, tmp_path: Path
) -> None:
    masks = maskcube.open_masks(small_store)
    nouns = sorted({str(noun) for noun in masks["noun"].to_numpy()})
    parts = [masks.sel(noun="hand"), masks.sel(noun=["person", "fingers"])]
    for number, part in enumerate(parts):
        to_clearml(part, tmp_path / str(number), nouns=nouns, progress=False)
    labels = {(tmp_path / name / "mask_labels.json").read_text() for name in ("0", "1")}
    assert len(labels) == 1
    assert mask_labels(parts[0], nouns=nouns) == mask_labels(masks)
    legend = json.loads((tmp_path / "0" / "_mask_legend.json").read_text())
    assert legend["hand"] == [nouns.index("hand") + 1] * 3


def test_names_never_leave_the_folder(hostile: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(hostile)
    to_clearml(masks, tmp_path / "0" / "out", progress=False)
    to_clearml_alpha(masks, tmp_path / "1" / "out", progress=False)
    for place in (tmp_path / "0", tmp_path / "1"):
        assert [path.name for path in place.iterdir() if path.suffix != ".lock"] == ["out"]
        files = [path for path in (place / "out").rglob("*") if path.is_file()]
        names = {path.name for path in files if path.parent.name == "masks"}
        uris = [
            mask["uri"]
            for frame in frames_of(place / "out")
            for mask in frame["sources"][0]["masks"]
        ]
        assert {PurePosixPath(uri).name for uri in uris} == names
        assert len({name.lower() for name in names}) == len(uris)
        assert max(map(len, names)) < 255
        for frame in frames_of(place / "out"):
            ids = [mask["id"] for mask in frame["sources"][0]["masks"]]
            assert len(set(ids)) == len(ids)


def test_uris_are_as_the_templates_say(small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store)
    to_clearml(
        masks,
        tmp_path / "out",
        overlap="layers",
        mask_uri="s3://bucket/v1/{file}",
        source_uri="s3://laion-fmri/stimuli/{image}",
        mask_id="seg_{number}",
        progress=False,
    )
    frame = frames_of(tmp_path / "out")[0]
    source = frame["sources"][0]
    assert source["uri"] == f"s3://laion-fmri/stimuli/{frame['id']}"
    assert [mask["id"] for mask in source["masks"]][:2] == ["seg_00", "seg_01"]
    assert all(mask["uri"].startswith("s3://bucket/v1/") for mask in source["masks"])
    # The PNGs are found by their names where they were written.
    from_clearml(tmp_path / "out", tmp_path / "again.zarr", progress=False)
    assert_equal(tmp_path / "again.zarr", masks)


@pytest.mark.parametrize(
    "options",
    [
        {"overlap": "biggest"},
        {"min_visible": 2.0},
        {"mask_uri": "s3://bucket/all.png"},
        {"mask_uri": "s3://bucket/{image}.png", "overlap": "layers"},
        {"mask_id": "seg", "overlap": "layers"},
        {"mask_id": ""},
        {"mask_id": "{image}"},
        {"source_uri": "https://h/a.jpg"},
        {"nouns": [3]},
        {"background": True},
        {"background": ""},
    ],
)
def test_options_without_meaning_are_refused(
    small_store: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    masks = maskcube.open_masks(small_store)
    with pytest.raises(InvalidOption):
        to_clearml(masks, tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [{"alpha": 0}, {"alpha": 256}, {"alpha": 0.5}, {"outside": 255}, {"alpha": True}]
)
def test_opacities_without_meaning_are_refused(
    small_store: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidOption, match=r"alpha=|outside="):
        to_clearml_alpha(
            maskcube.open_masks(small_store), tmp_path / "out", progress=False, **options
        )
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_unless_asked(small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store)
    to_clearml(masks[:9], tmp_path / "out", progress=False)
    with pytest.raises(StoreExists, match="overwrite=True"):
        to_clearml(masks, tmp_path / "out", progress=False)
    to_clearml(masks, tmp_path / "out", overwrite=True, progress=False)
    assert len(frames_of(tmp_path / "out")) == len(set(masks["image"].values))


def test_a_selection_and_its_order_come_back(small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store).sel(noun=["hand", "person"])
    to_clearml(masks[::-1], tmp_path / "out", overlap="layers", progress=False)
    from_clearml(tmp_path / "out", tmp_path / "again.zarr", progress=False)
    assert_equal(tmp_path / "again.zarr", masks)


def test_equal_labels_come_back_when_that_is_asked_for(tmp_path: Path) -> None:
    """Twice the same image, noun and instance: in layers, and as alpha masks, both are there."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(image_name="a.jpg", noun="hand", instance_id=0)

    source = write_source(tmp_path / "in", n_masks=5, change=change)
    maskcube.convert(source.folder, tmp_path / "m.zarr", allow_duplicates=True, progress=False)
    masks = maskcube.open_masks(tmp_path / "m.zarr")
    to_clearml(masks, tmp_path / "layers", overlap="layers", progress=False)
    to_clearml_alpha(masks, tmp_path / "alpha", progress=False)
    for name, read in (("layers", from_clearml), ("alpha", from_clearml_alpha)):
        with pytest.raises(SourceError, match="allow_duplicates=True accepts"):
            read(tmp_path / name, tmp_path / f"{name}.zarr", progress=False)
        read(tmp_path / name, tmp_path / f"{name}.zarr", allow_duplicates=True, progress=False)
        assert_equal(tmp_path / f"{name}.zarr", masks)


def test_masks_of_several_sizes_are_refused_or_fitted(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 6), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.ones((2, 3), np.uint8)).save(tmp_path / "b.PNG")
    frames = [
        {"id": name, "sources": [{"id": "0", "uri": name, "masks": [{"id": "m", "uri": name}]}]}
        for name in ("a.png", "b.PNG")
    ]
    (tmp_path / "frames.json").write_text(json.dumps(frames))
    labels = [{"value": [1, 1, 1], "labels": ["hand"]}]
    with pytest.raises(SourceError, match="several sizes"):
        from_clearml(tmp_path, tmp_path / "m.zarr", labels=labels, progress=False)
    from_clearml(tmp_path, tmp_path / "m.zarr", labels=labels, fit="pad", progress=False)
    assert list(maskcube.open_masks(tmp_path / "m.zarr").sum(("y", "x")).to_numpy()) == [24, 6]


def test_masks_that_are_not_as_large_as_their_image_are_told(tmp_path: Path) -> None:
    to_clearml(few([[[1, 0]]], ["a"]), tmp_path / "out", progress=False)
    to_clearml_alpha(few([[[1, 0]]], ["a"]), tmp_path / "alpha", progress=False)
    for name in ("out", "alpha"):
        frames = frames_of(tmp_path / name)
        frames[0]["sources"][0]["height"] = 2
        (tmp_path / name / "frames.json").write_text(json.dumps(frames))
    for found in (read_clearml(tmp_path / "out"), read_clearml_alpha(tmp_path / "alpha")):
        assert len(found.items) == 1
        assert found.lost[0].startswith("masks are not as large as their images: in frame 0")


def test_two_masks_are_never_one_file(tmp_path: Path) -> None:
    """By the last part of their URI alone they would be."""
    Image.fromarray(np.ones((2, 3), np.uint8)).save(tmp_path / "seg.png")
    frames = [
        {
            "id": name,
            "sources": [
                {"id": "0", "uri": name, "masks": [{"id": "m", "uri": f"s3://b/{name}/seg.png"}]}
            ],
        }
        for name in ("a", "b")
    ]
    labels = [{"value": [1, 1, 1], "labels": ["hand"]}]
    found = read_clearml(frames, masks=tmp_path, labels=labels)
    assert len(found.items) == 1
    assert len(found.faults) == 1
    assert "would be" in found.faults[0]
    # The same URI is the same mask.
    frames[1]["sources"][0]["masks"] = frames[0]["sources"][0]["masks"]  # type: ignore[index]
    assert read_clearml(frames, masks=tmp_path, labels=labels).faults == []


def test_labels_beside_the_frames_are_taken(tmp_path: Path, small_store: Path) -> None:
    """Without its regions a frame still has the labels of its version: the nouns come back."""
    masks = maskcube.open_masks(small_store)
    to_clearml(masks, tmp_path / "out", progress=False)
    with_regions = read_clearml(tmp_path / "out")
    frames = frames_of(tmp_path / "out")
    for frame in frames:
        del frame["rois"]
    (tmp_path / "out" / "frames.json").write_text(json.dumps(frames))
    classes = read_clearml(tmp_path / "out")
    (tmp_path / "out" / "mask_labels.json").unlink()
    legend = read_clearml(tmp_path / "out")

    def pixels(found: Any) -> dict[tuple[str, str], bytes]:
        return {
            (each.record.image, each.record.noun): each.read().tobytes() for each in found.items
        }

    assert pixels(classes) == pixels(with_regions) == pixels(legend)
    assert (classes.lost, classes.faults) == ([], [])
    (tmp_path / "out" / "_mask_legend.json").unlink()
    nothing = read_clearml(tmp_path / "out")
    assert len(nothing.items) == 0
    assert "without a label" in nothing.lost[0]


def test_every_fault_is_told_at_once_and_nothing_is_written(
    small_store: Path, tmp_path: Path
) -> None:
    masks = maskcube.open_masks(small_store)
    to_clearml(masks, tmp_path / "out", overlap="layers", progress=False)
    frames = frames_of(tmp_path / "out")
    paths = [mask["uri"] for frame in frames for mask in frame["sources"][0]["masks"]]
    (tmp_path / "out" / paths[0]).unlink()
    (tmp_path / "out" / paths[5]).write_bytes(b"no picture")
    frames[3]["rois"][0]["mask"]["value"] = [300, 0, 0]
    (tmp_path / "out" / "frames.json").write_text(json.dumps(frames))
    with pytest.raises(SourceError) as caught:
        from_clearml(tmp_path / "out", tmp_path / "again.zarr", progress=False)
    assert len(caught.value.faults) == 3
    assert not (tmp_path / "again.zarr").exists()


def test_alpha_faults_are_told_at_once(small_store: Path, tmp_path: Path) -> None:
    to_clearml_alpha(maskcube.open_masks(small_store), tmp_path / "out", progress=False)
    files = sorted((tmp_path / "out" / "masks").iterdir())
    files[0].unlink()
    files[5].write_bytes(b"no picture")
    found = read_clearml_alpha(tmp_path / "out")
    assert len(found.faults) == 2
    assert len(found.items) == len(files) - 2
    with pytest.raises(SourceError, match="2 faults"):
        from_clearml_alpha(tmp_path / "out", tmp_path / "again.zarr", progress=False)
    assert not (tmp_path / "again.zarr").exists()
