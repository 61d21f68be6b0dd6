"""COCO panoptic, out of a store and into one, and what may be wrong with the files of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from panoptics import read_segments, seen
from PIL import Image
from reference import Source, write_files, write_source

import maskcube
from maskcube.errors import InvalidOption, SourceError, SourceNotFound, StoreExists
from maskcube.formats.panoptic import from_panoptic, to_panoptic
from maskcube.formats.panoptic_source import read_panoptic


@pytest.fixture(scope="module")
def disjoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store in which no masks of an image overlap."""
    folder = tmp_path_factory.mktemp("disjoint")
    source = write_source(folder / "source", n_masks=60, sorted_rows=False)
    images = source.by_row["image_name"].to_numpy()
    masks = source.masks.copy()
    for image in set(images):
        masks[images == image] &= np.cumsum(masks[images == image], axis=0, dtype=np.uint8) == 1
    write_files(Source(source.folder, masks, source.table))
    maskcube.convert(source.folder, folder / "masks.zarr", progress=False)
    return folder / "masks.zarr"


def _masks(n_masks: int, *, image: str = "a.jpg", **labels: Any) -> xr.DataArray:
    """Return masks of one line each, of one noun unless told otherwise."""
    pixels = np.zeros((n_masks, max(n_masks, 4), 6), np.uint8)
    pixels[np.arange(n_masks), np.arange(n_masks), 1:4] = 1
    given: dict[str, Any] = {"image": image, "noun": "hand", "instance": np.arange(n_masks)}
    coords = {
        name: ("mask", np.broadcast_to(values, n_masks))
        for name, values in {**given, **labels}.items()
    }
    return xr.DataArray(pixels, dims=("mask", "y", "x"), coords=coords)


def test_disjoint_masks_come_back_as_they_were(disjoint: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(disjoint)
    report = to_panoptic(masks, tmp_path / "out", overlap="error", progress=False)
    from_panoptic(tmp_path / "out", tmp_path / "back.zarr", progress=False)
    back = maskcube.open_masks(tmp_path / "back.zarr")
    # A mask without a pixel has no segment.
    kept = masks[masks.area.values > 0]
    assert len(report.dropped) == len(masks) - len(kept) > 0
    np.testing.assert_array_equal(back.values, kept.values)
    for name in set(kept.coords) - {"mask", "mask_row"}:
        np.testing.assert_array_equal(back[name].values, kept[name].values, err_msg=str(name))


def test_overlapping_masks_come_back_as_they_were_seen(small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store)
    report = to_panoptic(masks, tmp_path / "out", progress=False)
    from_panoptic(tmp_path / "out", tmp_path / "back.zarr", progress=False)
    back = maskcube.open_masks(tmp_path / "back.zarr")
    shown = np.zeros(masks.shape, bool)
    for image in set(masks.image.values):
        rows = np.flatnonzero(masks.image.values == image)
        shown[rows] = seen(
            list(masks.values[rows].astype(bool)), masks.score.values[rows], "smallest"
        )
    kept = shown.any(axis=(1, 2))
    np.testing.assert_array_equal(back.values, shown[kept])
    assert back.noun.values.tolist() == masks.noun.values[kept].tolist()
    assert [m.visible for m in report.masks] == [int(mask.sum()) for mask in shown]


def test_what_hides_little_is_left_out_when_asked(small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store)
    report = to_panoptic(masks, tmp_path / "out", min_visible=0.3, progress=False)
    segments = [s for of in read_segments(tmp_path / "out").values() for s in of]
    assert len(segments) == len(masks) - len(report.dropped)
    few = [m for m in report.dropped if m.area]
    assert few
    assert all(m.visible == 0 for m in few)
    assert all(s.said["visible_fraction"] >= 0.3 for s in segments)


def test_the_json_is_plain_and_says_all_of_a_mask(tmp_path: Path) -> None:
    masks = _masks(
        3,
        score=np.array([0.5, np.nan, 0.25]),
        box_x0=np.array([np.nan, 1.5, -2.0]),
        mask_file=np.array(["a/ä.png", "", "b"], object),
        localized=np.array([1, 0, 1], np.int8),
    )
    to_panoptic(masks, tmp_path / "out", progress=False)
    said = [s.said for s in read_segments(tmp_path / "out")["a.jpg"]]
    assert [s.get("score") for s in said] == [0.5, None, 0.25]
    assert [s.get("box_x0") for s in said] == [None, 1.5, -2.0]
    assert [s.get("mask_file") for s in said] == ["a/ä.png", None, "b"]
    assert [s["localized"] for s in said] == [1, 0, 1]
    assert said[0]["bbox"] == [1, 0, 3, 1]


def test_more_masks_than_a_byte_counts(tmp_path: Path) -> None:
    masks = _masks(300)
    to_panoptic(masks, tmp_path / "out", progress=False)
    from_panoptic(tmp_path / "out", tmp_path / "back.zarr", progress=False)
    assert max(s.said["id"] for s in read_segments(tmp_path / "out")["a.jpg"]) == 300
    back = maskcube.open_masks(tmp_path / "back.zarr")
    np.testing.assert_array_equal(back.values, masks.values)


NAMES = ["../../x.jpg", "/etc/x", "a.b.c.jpg", "A.b.c.jpg", "a_b_c.jpg", "CON", "n" * 300, "ä", "$"]


def test_names_of_images_and_nouns_stay_what_they_are(tmp_path: Path) -> None:
    masks = _masks(len(NAMES), image=np.array(NAMES, object), noun=np.array(NAMES[::-1], object))  # type: ignore[arg-type]
    to_panoptic(masks, tmp_path / "in" / "out", progress=False)
    segments = read_segments(tmp_path / "in" / "out")
    assert [*segments] == NAMES
    assert [s.noun for of in segments.values() for s in of] == NAMES[::-1]
    files = [path.name for path in tmp_path.rglob("*.png")]
    assert len({name.lower() for name in files}) == len(NAMES)
    assert {path.parent for path in tmp_path.rglob("*.png")} == {
        tmp_path / "in" / "out" / "panoptic"
    }
    from_panoptic(tmp_path / "in" / "out", tmp_path / "back.zarr", progress=False)
    back = maskcube.open_masks(tmp_path / "back.zarr")
    assert back.image.values.tolist() == NAMES
    assert back.noun.values.tolist() == NAMES[::-1]
    np.testing.assert_array_equal(back.values, masks.values)


def test_a_noun_that_is_stuff_is_one_segment(tmp_path: Path) -> None:
    masks = _masks(3, noun=np.array(["sky", "hand", "sky"]), mask_row=np.array([5, 6, 7]))
    report = to_panoptic(masks, tmp_path / "out", stuff=["sky"], progress=False)
    sky, hand = read_segments(tmp_path / "out")["a.jpg"]
    assert (sky.noun, sky.said["mask_rows"], sky.said["area"]) == ("sky", [5, 7], 6)
    assert (hand.noun, hand.said["mask_row"]) == ("hand", 6)
    document = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert {c["name"]: c["isthing"] for c in document["categories"]} == {"hand": 1, "sky": 0}
    assert not report.changed
    with pytest.raises(InvalidOption, match="no mask has the noun 'skyy'"):
        to_panoptic(masks, tmp_path / "other", stuff=["skyy"], progress=False)
    with pytest.raises(InvalidOption, match="give a list of nouns"):
        to_panoptic(masks, tmp_path / "other", stuff="sky", progress=False)


def test_layers_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="COCO panoptic has one of each"):
        to_panoptic(_masks(2), tmp_path / "out", overlap="layers", progress=False)
    assert not list(tmp_path.iterdir())


def test_only_an_export_is_replaced(tmp_path: Path) -> None:
    to_panoptic(_masks(2), tmp_path / "out", progress=False)
    with pytest.raises(StoreExists, match="overwrite=True would replace it"):
        to_panoptic(_masks(1), tmp_path / "out", progress=False)
    to_panoptic(_masks(1), tmp_path / "out", overwrite=True, progress=False)
    assert len(read_segments(tmp_path / "out")["a.jpg"]) == 1


# What others write.

IDS = np.array([[0, 7, 7], [0, 300, 70_000]])


def _foreign(
    folder: Path,
    change: Callable[[dict[str, Any]], Any] = lambda _: None,
    *,
    picture: Image.Image | None = None,
    name: str = "panoptic_val.json",
) -> Path:
    """Write a JSON and a PNG as another tool might; `change` may spoil the JSON."""
    document: dict[str, Any] = {
        "images": [{"id": 42, "file_name": "x.jpg", "height": 2, "width": 3}],
        "categories": [{"id": 1, "name": "dog", "isthing": 1}, {"id": 9, "name": "sea"}],
        "annotations": [
            {
                "image_id": 42,
                "file_name": "x.png",
                "segments_info": [
                    {"id": 7, "category_id": 9},
                    {"id": 300, "category_id": 1},
                    {"id": 70_000, "category_id": 1, "iscrowd": 0, "area": 1},
                ],
            }
        ],
    }
    change(document)
    pictures = folder / Path(name).stem
    pictures.mkdir(parents=True, exist_ok=True)
    (picture or _picture()).save(pictures / "x.png")
    (folder / name).write_text(json.dumps(document))
    return folder / name


def _picture(ids: Any = IDS) -> Image.Image:
    channels = [np.asarray(ids) >> shift & 255 for shift in (0, 8, 16)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _stored(source: Path, target: Path, **options: Any) -> xr.DataArray:
    from_panoptic(source, target, progress=False, **options)
    return maskcube.open_masks(target)


@pytest.mark.parametrize("place", ["json", "folder", "beside", "elsewhere"])
def test_the_pictures_are_found(place: str, tmp_path: Path) -> None:
    source, options = _foreign(tmp_path / "in"), {}
    folder = source.with_suffix("")
    if place == "folder":
        source = source.parent
    elif place == "beside":
        (folder / "x.png").rename(source.parent / "x.png")
        folder.rmdir()
    elif place == "elsewhere":
        folder.rename(tmp_path / "pictures")
        options["masks"] = tmp_path / "pictures"
    masks = _stored(source, tmp_path / "masks.zarr", **options)
    assert masks.noun.values.tolist() == ["sea", "dog", "dog"]
    assert masks.instance.values.tolist() == [0, 0, 1]
    assert masks.image.values.tolist() == ["x.jpg"] * 3
    assert np.isnan(masks.score.values).all()
    np.testing.assert_array_equal(masks.values, [IDS == 7, IDS == 300, IDS == 70_000])


def _palette() -> Image.Image:
    """Return the same colours by a palette, as tools do that make files smaller."""
    small = Image.fromarray(np.searchsorted([0, 7, 300, 70_000], IDS).astype(np.uint8), "L")
    small.putpalette(np.array(_picture([[0, 7, 300, 70_000]])).tobytes())
    return small


def _with_alpha() -> Image.Image:
    picture = _picture()
    picture.putalpha(128)
    return picture


@pytest.mark.parametrize("make", [_palette, _with_alpha])
def test_the_same_colours_in_another_way(make: Callable[[], Image.Image], tmp_path: Path) -> None:
    masks = _stored(_foreign(tmp_path / "in", picture=make()), tmp_path / "masks.zarr")
    np.testing.assert_array_equal(masks.values, [IDS == 7, IDS == 300, IDS == 70_000])


def _greys(values: list[list[int]]) -> Image.Image:
    return Image.fromarray(np.array(values, np.uint8))


def _indices() -> Image.Image:
    """Return ids that are indices of a palette of other colours."""
    picture = _greys([[0, 1, 1], [0, 2, 3]])
    picture.putpalette([200, 10, 10, 0, 99, 0, 0, 0, 77, 5, 5, 5])
    return picture


@pytest.mark.parametrize(
    ("picture", "ids"),
    [
        (_greys([[0, 1, 1], [0, 2, 3]]), (1, 2, 3)),
        (_greys([[0, 1, 1], [0, 2, 3]]), (0x010101, 0x020202, 0x030303)),
        (_greys([[0, 1, 1], [0, 2, 3]]).convert("RGB"), (0x010101, 0x020202, 0x030303)),
        (_indices(), (1, 2, 3)),
        (Image.fromarray(IDS.clip(0, 999).astype(np.uint16)), (7, 300, 999)),
    ],
)
def test_a_picture_of_greys_or_indices(
    picture: Image.Image, ids: tuple[int, ...], tmp_path: Path
) -> None:
    def change(document: dict[str, Any]) -> None:
        for segment, number in zip(_segments(document), ids, strict=True):
            segment["id"] = number

    source = _foreign(tmp_path / "in", change, picture=picture)
    masks = _stored(source, tmp_path / "masks.zarr")
    np.testing.assert_array_equal(masks.values, [IDS == 7, IDS == 300, IDS == 70_000])


def test_colours_of_a_palette_though_the_json_lacks_one(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        _segments(document).pop(0)

    source = _foreign(tmp_path / "in", change, picture=_palette())
    with pytest.warns(UserWarning, match=r"ids that the JSON does not have .*\('x.png', 7\)"):
        masks = _stored(source, tmp_path / "masks.zarr")
    np.testing.assert_array_equal(masks.values, [IDS == 300, IDS == 70_000])


def test_a_picture_of_two_values(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["annotations"][0]["segments_info"] = [{"id": 1, "category_id": 1}]

    picture = Image.fromarray(IDS == 7)
    assert picture.mode == "1"
    masks = _stored(_foreign(tmp_path / "in", change, picture=picture), tmp_path / "masks.zarr")
    np.testing.assert_array_equal(masks.values, [IDS == 7])


def test_numbers_as_texts(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["images"][0] |= {"id": "42", "height": "2", "width": 3.0}
        _segments(document)[0] |= {"id": "7", "category_id": "9"}

    masks = _stored(_foreign(tmp_path / "in", change), tmp_path / "masks.zarr")
    np.testing.assert_array_equal(masks.values, [IDS == 7, IDS == 300, IDS == 70_000])


def _segments(document: dict[str, Any]) -> list[dict[str, Any]]:
    return document["annotations"][0]["segments_info"]  # type: ignore[no-any-return]


def test_what_is_not_stored_is_told(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        _segments(document)[0] |= {"id": 8, "iscrowd": 1}

    source = _foreign(tmp_path / "in", change)
    assert read_panoptic(source).lost == [
        "segments without a pixel become empty masks: ('x.png', 8)",
        "pixels of ids that the JSON does not have are left out: ('x.png', 7)",
        "crowds (iscrowd) become masks like all others: 1",
    ]
    with pytest.warns(UserWarning, match=r"crowds|without a pixel|left out"):
        masks = _stored(source, tmp_path / "masks.zarr")
    np.testing.assert_array_equal(masks.values, [IDS < 0, IDS == 300, IDS == 70_000])


def _deep(document: dict[str, Any]) -> None:
    nested: Any = 0
    for _ in range(500):
        nested = [nested]
    document["images"] = nested


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda d: d["images"].append(d["images"][0]),
            "images[1]: id 42 or 'x.jpg' was there before",
        ),
        (
            lambda d: d["images"].append({"id": 1, "file_name": "x.jpg"}),
            "images[1]: id 1 or 'x.jpg' was there before",
        ),
        (lambda d: d["images"][0].pop("id"), "images[0]: has no id"),
        (lambda d: d["images"][0].update(file_name=3), "file_name must be a text, found 3"),
        (lambda d: d["images"][0].update(height=5), "(2, 3) pixels, and (5, 3) by the JSON"),
        (lambda d: d["images"][0].update(height=[5]), "height must be an integer of 64 bits"),
        (lambda d: d.update(images={"id": 3}), "images: must be a list, found dict"),
        (_deep, "images[0]: must be an object, found list"),
        (lambda d: d.pop("annotations"), "annotations: must be a list, found NoneType"),
        (lambda d: d["annotations"].append("x"), "annotations[1]: must be an object, found str"),
        (lambda d: d["annotations"].append(d["annotations"][0]), "was there before"),
        (lambda d: d["annotations"][0].update(image_id=1), "image_id 1 is no image"),
        (lambda d: d["annotations"][0].update(file_name="y.png"), "'y.png' is not in"),
        (lambda d: d["annotations"][0].update(file_name="../../secret.png"), "is not in"),
        (lambda d: d["annotations"][0].update(file_name="x.PNG"), "is not in"),
        (lambda d: d["annotations"][0].update(file_name=None), "file_name must be a text"),
        (lambda d: d["annotations"][0].update(segments_info="7"), "must be a list, found str"),
        (lambda d: d["categories"].append({"id": 9, "name": "x"}), "id 9 or 'x' was there before"),
        (lambda d: d["categories"][1].update(name=""), "name must be a text, found ''"),
        (lambda d: _segments(d)[1].update(id=7), "segments_info[1]: id 7 is void"),
        (lambda d: _segments(d)[1].update(id=0), "segments_info[1]: id 0 is void"),
        (lambda d: _segments(d)[1].update(id=-3), "id -3 is void"),
        (lambda d: _segments(d)[1].update(id=2**24), "id 16777216 is void"),
        (lambda d: _segments(d)[1].update(id=10**40), "id must be an integer of 64 bits"),
        (lambda d: _segments(d)[1].update(id=True), "id must be an integer of 64 bits"),
        (lambda d: _segments(d)[2].update(category_id=5), "category_id 5 is no category"),
        (lambda d: _segments(d)[2].update(score="high"), "score must be a finite number"),
        (lambda d: _segments(d)[2].update(score=10**400), "score must be a finite number"),
    ],
)
def test_faults_are_told_and_nothing_is_written(
    change: Callable[[dict[str, Any]], Any], fault: str, tmp_path: Path
) -> None:
    _picture().save(tmp_path / "secret.png")
    source = _foreign(tmp_path / "in", change)
    with pytest.raises(SourceError) as caught:
        from_panoptic(source, tmp_path / "masks.zarr", progress=False)
    assert fault in str(caught.value)
    assert not (tmp_path / "masks.zarr").exists()


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["images"].append({"id": None})
        _segments(document)[0]["id"] = "x"
        _segments(document)[2]["category_id"] = None

    with pytest.raises(SourceError) as caught:
        from_panoptic(_foreign(tmp_path / "in", change), tmp_path / "masks.zarr", progress=False)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is JSON nested too deep"),
        ("[]", "is a JSON of list, no object"),
        ('{"images": ' + "1" * 5000 + "}", "is no JSON"),
        ("\ud800", "is no JSON"),
    ],
)
def test_a_json_that_is_none(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "panoptic.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SourceError, match=fault):
        from_panoptic(path, tmp_path / "masks.zarr", progress=False)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40), None])
def test_a_png_that_is_none(data: bytes | None, tmp_path: Path) -> None:
    source = _foreign(tmp_path / "in")
    picture = source.with_suffix("") / "x.png"
    picture.write_bytes(picture.read_bytes()[:60] if data is None else data)
    with pytest.raises(SourceError, match=r"'x.png' (is no PNG|is damaged)"):
        from_panoptic(source, tmp_path / "masks.zarr", progress=False)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    source = _foreign(tmp_path / "in")
    picture = source.with_suffix("") / "x.png"
    picture.rename(tmp_path / "secret.png")
    picture.symlink_to(tmp_path / "secret.png")
    with pytest.raises(SourceError, match=r"'x.png' is not in"):
        from_panoptic(source, tmp_path / "masks.zarr", progress=False)


def test_masks_of_several_sizes_are_fitted_when_asked(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["images"].append({"id": 43, "file_name": "y.jpg"})
        segment = {"id": 300, "category_id": 1}
        document["annotations"].append(
            {"image_id": 43, "file_name": "y.png", "segments_info": [segment]}
        )

    source = _foreign(tmp_path / "in", change)
    _picture(np.full((4, 4), 300)).save(source.with_suffix("") / "y.png")
    with pytest.raises(SourceError, match="masks have several sizes"):
        from_panoptic(source, tmp_path / "masks.zarr", progress=False)
    masks = _stored(source, tmp_path / "masks.zarr", fit="pad")
    assert masks.shape == (4, 4, 4)
    np.testing.assert_array_equal(masks.values[0, :2, :3], IDS == 7)


def test_the_same_instance_twice_is_accepted_when_asked(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        for segment in _segments(document)[1:]:
            segment["instance"] = 4

    source = _foreign(tmp_path / "in", change)
    with pytest.raises(SourceError, match="the same image, noun and instance twice"):
        from_panoptic(source, tmp_path / "masks.zarr", progress=False)
    masks = _stored(source, tmp_path / "masks.zarr", allow_duplicates=True)
    assert masks.instance.values.tolist() == [0, 4, 4]


def test_pictures_from_a_function(tmp_path: Path) -> None:
    source = _foreign(tmp_path / "in")
    data = (source.with_suffix("") / "x.png").read_bytes()
    asked = []

    def resolve(name: str) -> bytes:
        asked.append(name)
        return data

    masks = _stored(source, tmp_path / "masks.zarr", masks=resolve)
    np.testing.assert_array_equal(masks.values, [IDS == 7, IDS == 300, IDS == 70_000])
    assert set(asked) == {"x.png"}


def test_no_json_or_several(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="there is no such file or folder"):
        read_panoptic(tmp_path / "nowhere.json")
    with pytest.raises(SourceNotFound, match=r"has no panoptic\.json"):
        read_panoptic(tmp_path)
    _foreign(tmp_path, name="a.json")
    assert len(read_panoptic(tmp_path)) == 3
    _foreign(tmp_path, name="b.json")
    with pytest.raises(SourceNotFound, match=r"'a\.json', 'b\.json'"):
        read_panoptic(tmp_path)
