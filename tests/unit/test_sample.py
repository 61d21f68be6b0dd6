"""The sample dataset: the layout of the source, and everything that trips careless readers."""

import csv
import math
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from maskcube.errors import InvalidOption, StoreExists
from maskcube.painting import Painting, blob, limb, oval, ring, smooth
from maskcube.sample import sample_dataset

HDF5 = "stimuli/task-images_desc-segmentations.h5"
CSV = "stimuli/task-images_desc-segmentations_metadata.csv"
COLUMNS = (
    "mask_row,image_name,noun,instance_id,score,box_x0,box_y0,box_x1,box_y1,localized,mask_file"
)
FIRST = "shared_12rep_LAION_cluster_1003_i0.jpg"

Masks = npt.NDArray[np.uint8]


class Row(NamedTuple):
    mask_row: int
    image: str
    noun: str
    instance: int
    score: float
    box: tuple[float, ...]
    localized: int
    mask_file: str


class Sample(NamedTuple):
    folder: Path
    rows: list[Row]
    masks: Masks

    def by_image(self) -> dict[str, list[Row]]:
        images: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            images[row.image].append(row)
        return images

    def named(self, noun: str, image: str = FIRST) -> list[npt.NDArray[np.bool_]]:
        found = [row for row in self.rows if row.noun == noun and row.image == image]
        return [self.masks[row.mask_row] == 1 for row in found]


def rows_of(folder: Path) -> list[Row]:
    with (folder / CSV).open(encoding="utf-8", newline="") as file:
        records = list(csv.reader(file, strict=True))
    assert ",".join(records[0]) == COLUMNS
    assert {len(record) for record in records} == {11}
    return [
        Row(
            int(r[0]),
            r[1],
            r[2],
            int(r[3]),
            float(r[4]),
            tuple(map(float, r[5:9])),
            int(r[9]),
            r[10],
        )
        for r in records[1:]
    ]


def masks_of(folder: Path) -> Masks:
    with h5py.File(folder / HDF5) as file:
        masks: Masks = file["masks"][:]
    return masks


def load(folder: Path) -> Sample:
    return Sample(folder, rows_of(folder), masks_of(folder))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return load(sample_dataset(tmp_path_factory.mktemp("full")))


class TestLayout:
    def test_returns_the_folder_with_two_files(self, tmp_path: Path) -> None:
        folder = sample_dataset(str(tmp_path / "a" / "b"), 1, size=32)
        assert folder == tmp_path / "a" / "b"
        assert set(contents(folder)) == {HDF5, CSV}

    def test_hdf5_is_as_in_the_source(self, full: Sample) -> None:
        with h5py.File(full.folder / HDF5) as file:
            assert list(file) == ["masks"]
            masks = file["masks"]
            assert masks.shape == (len(full.rows), 1000, 1000)
            assert masks.dtype == np.uint8
            assert (masks.compression, masks.shuffle) == ("gzip", True)
            assert masks.chunks == (1, 1000, 1000)
        assert set(np.unique(full.masks)) == {0, 1}

    def test_csv_has_one_row_a_mask_in_order(self, full: Sample) -> None:
        assert [row.mask_row for row in full.rows] == list(range(len(full.masks)))
        assert len({(row.image, row.noun, row.instance) for row in full.rows}) == len(full.rows)
        assert len({row.mask_file for row in full.rows}) == len(full.rows)

    def test_csv_is_utf8_without_mark_and_quotes_only_what_must_be(self, full: Sample) -> None:
        raw = (full.folder / CSV).read_bytes()
        assert not raw.startswith(b"\xef\xbb\xbf")
        assert b"\r" not in raw
        assert ",crème brûlée,".encode() in raw
        assert b',"salt, pepper",' in raw
        assert b",nan,0," in raw

    def test_rows_of_an_image_stand_together_sorted_by_noun_then_instance(
        self, full: Sample
    ) -> None:
        names = [row.image for row in full.rows]
        assert len(full.by_image()) == 24
        assert sum(one != other for one, other in pairwise(names)) == 23
        for rows in full.by_image().values():
            labels = [(row.noun, row.instance) for row in rows]
            assert labels == sorted(labels)
            assert 10 <= len(rows) <= 16

    def test_images_are_not_in_alphabetical_order(self, full: Sample) -> None:
        names = list(full.by_image())
        assert names[0] == FIRST
        assert names != sorted(names)

    def test_image_names_have_the_real_style_some_with_several_dots(self, full: Sample) -> None:
        names = list(full.by_image())
        assert "shared_4rep_OOD_illusion_12.v2.final.png" in names
        assert {name.split("_")[1] for name in names} == {"4rep", "12rep"}
        assert all(name.startswith("shared_") for name in names)


class TestDeterminism:
    @pytest.mark.parametrize("chunks", ["mask", "auto"])
    def test_same_arguments_give_the_same_bytes(
        self, tmp_path: Path, chunks: Literal["mask", "auto"]
    ) -> None:
        first = sample_dataset(tmp_path / "a", 3, 7, size=90, chunks=chunks)
        second = sample_dataset(tmp_path / "b", 3, 7, size=90, chunks=chunks)
        assert contents(first) == contents(second)

    def test_another_process_gives_the_same_bytes(self, tmp_path: Path) -> None:
        here = sample_dataset(tmp_path / "a", 2, 1, size=64)
        there = tmp_path / "b"
        code = f"from maskcube.sample import sample_dataset as s; s({str(there)!r}, 2, 1, size=64)"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert contents(here) == contents(there)

    def test_seeds_differ_in_masks_and_scores(self, tmp_path: Path) -> None:
        one, two = (load(sample_dataset(tmp_path / str(seed), 1, seed, size=64)) for seed in (0, 1))
        assert [row.noun for row in one.rows] == [row.noun for row in two.rows]
        assert (one.masks != two.masks).any()
        assert {row.score for row in one.rows}.isdisjoint({row.score for row in two.rows})

    def test_more_images_leave_the_first_ones_as_they_are(self, tmp_path: Path) -> None:
        few, many = (load(sample_dataset(tmp_path / str(n), n, size=64)) for n in (3, 10))
        np.testing.assert_array_equal(few.masks, many.masks[: len(few.masks)])
        texts = [(s.folder / CSV).read_text(encoding="utf-8") for s in (few, many)]
        assert texts[1].startswith(texts[0])

    def test_rerun_replaces_the_files(self, tmp_path: Path) -> None:
        sample_dataset(tmp_path, 2, 0, size=64)
        sample_dataset(tmp_path, 1, 5, size=48)
        fresh = sample_dataset(tmp_path / "fresh", 1, 5, size=48)
        assert (tmp_path / HDF5).read_bytes() == (fresh / HDF5).read_bytes()
        assert (tmp_path / CSV).read_bytes() == (fresh / CSV).read_bytes()

    def test_failure_leaves_the_old_files_and_no_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = contents(sample_dataset(tmp_path, 1, 0, size=48))

        def full_disk(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(csv, "writer", full_disk)
        with pytest.raises(OSError, match="No space left"):
            sample_dataset(tmp_path, 2, 1, size=48)
        assert contents(tmp_path) == before


class TestContent:
    @pytest.mark.parametrize("seed", [0, 1, 2, 3, 20])
    @pytest.mark.parametrize("n_images", [1, 2])
    def test_first_image_is_what_the_docs_rely_on(
        self, tmp_path: Path, seed: int, n_images: int
    ) -> None:
        rows = load(sample_dataset(tmp_path, n_images, seed, size=64)).by_image()[FIRST]
        nouns = [row.noun for row in rows]
        assert nouns.count("fingers") == 3
        assert nouns.count("hand") == 4
        assert nouns.count("person") == 2
        assert {"piano", "keys", "sheet music", "pullover"} <= set(nouns)
        assert any(math.isnan(row.score) and not row.localized for row in rows)

    def test_awkward_nouns_occur(self, full: Sample) -> None:
        awkward = {"nan", "crème brûlée", "sheet music", "salt, pepper", "T-shirt"}
        assert awkward <= {row.noun for row in full.rows}

    def test_instances_count_from_zero_by_falling_score(self, full: Sample) -> None:
        several = 0
        for rows in full.by_image().values():
            scores: dict[str, list[float]] = defaultdict(list)
            for row in rows:
                assert row.instance == len(scores[row.noun])
                scores[row.noun].append(row.score)
            for of_noun in scores.values():
                assert of_noun == sorted(of_noun, reverse=True)
                several += len(of_noun) > 1
        assert several > 24

    def test_scores_have_six_digits(self, full: Sample) -> None:
        scores = [row.score for row in full.rows if not math.isnan(row.score)]
        assert all(0 < score < 1 and score == round(score, 6) for score in scores)
        assert len(set(scores)) == len(scores)

    def test_boxes_are_tight_with_far_edges_outside(self, full: Sample) -> None:
        for row, mask in zip(full.rows, full.masks, strict=True):
            if not math.isnan(row.box[0]):
                ys, xs = np.nonzero(mask)
                assert row.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)

    def test_unlocalized_rows_cover_the_image_with_low_score(self, full: Sample) -> None:
        unlocalized = [row for row in full.rows if not row.localized]
        assert 0.02 < len(unlocalized) / len(full.rows) < 0.1
        for row in unlocalized:
            assert full.masks[row.mask_row].all()
            assert math.isnan(row.score) or row.score < 0.35
            assert row.box == (0, 0, 1000, 1000) or all(map(math.isnan, row.box))
        assert any(math.isnan(row.score) for row in unlocalized)
        assert any(math.isnan(row.box[0]) for row in unlocalized)
        assert any(row.score > 0 and row.box[2] == 1000 for row in unlocalized)

    def test_localized_rows_cover_part_of_the_image(self, full: Sample) -> None:
        for row in full.rows:
            if row.localized:
                assert 300 < full.masks[row.mask_row].sum(dtype=int) < 990_000
                assert row.score >= 0.35
                assert not any(map(math.isnan, row.box))

    @pytest.mark.parametrize(
        ("part", "whole", "least"),
        [
            ("fingers", "hand", 9),
            ("hand", "person", 12),
            ("keys", "piano", 3),
            ("pullover", "person", 3),
            ("wheel", "car", 8),
            ("crème brûlée", "bowl", 2),
            ("sail", "boat", 6),
            ("screen", "laptop", 2),
            ("eye", "face", 4),
            ("face", "person", 2),
        ],
    )
    def test_parts_are_inside_their_whole(
        self, full: Sample, part: str, whole: str, least: int
    ) -> None:
        shares = []
        for image, rows in full.by_image().items():
            if any(row.noun == whole for row in rows):
                wholes = full.named(whole, image)
                for mask in full.named(part, image):
                    best = max(int((mask & other).sum()) for other in wholes)
                    shares.append(best / int(mask.sum()))
                    assert any(other.sum() > mask.sum() for other in wholes)
        assert len(shares) >= least
        assert min(shares) >= 0.9

    def test_sheet_music_is_a_hole_in_the_piano(self, full: Sample) -> None:
        (pages,), (piano,) = full.named("sheet music"), full.named("piano")
        assert not (pages & piano).any()
        y, x = (int(np.median(axis)) for axis in np.nonzero(pages))
        assert piano[y, :x].any()
        assert piano[y, x:].any()
        assert piano[:y, x].any()
        assert piano[y:, x].any()

    def test_some_masks_overlap_and_neither_is_in_the_other(self, full: Sample) -> None:
        n_overlaps = 0
        for image, rows in full.by_image().items():
            if any(row.noun == "glass" for row in rows):
                (glass,) = full.named("glass", image)
                for plate in full.named("plate", image):
                    both = int((glass & plate).sum())
                    n_overlaps += 0 < both < min(int(glass.sum()), int(plate.sum()))
        assert n_overlaps >= 2

    def test_the_border_cuts_objects_on_all_sides(self, full: Sample) -> None:
        boxes = np.array([row.box for row in full.rows if row.localized])
        assert (boxes[:, :2] == 0).any(axis=0).all()
        assert (boxes[:, 2:] == 1000).any(axis=0).all()

    def test_images_of_one_scene_differ(self, full: Sample) -> None:
        duets = [image for image in full.by_image() if full.named("piano", image)]
        assert len(duets) == 3
        pianos = [full.named("fingers", image)[0] for image in duets]
        assert (pianos[0] != pianos[1]).any()
        assert (pianos[1] != pianos[2]).any()


class TestOptions:
    def test_chunk_shape_changes_the_file_and_not_the_masks(self, tmp_path: Path) -> None:
        shapes = {}
        for name, chunks in {"mask": "mask", "auto": "auto", "deep": (376, 32, 32)}.items():
            folder = sample_dataset(tmp_path / name, 4, size=(150, 170), chunks=chunks)  # type: ignore[arg-type]
            with h5py.File(folder / HDF5) as file:
                shapes[name] = file["masks"].chunks
                assert file["masks"].compression == "gzip"
        n_masks = len(masks_of(tmp_path / "mask"))
        assert shapes["mask"] == (1, 150, 170)
        assert shapes["deep"] == (n_masks, 32, 32)
        assert 1 < shapes["auto"][0] < n_masks
        for name in ("auto", "deep"):
            np.testing.assert_array_equal(masks_of(tmp_path / name), masks_of(tmp_path / "mask"))
            assert (tmp_path / name / CSV).read_bytes() == (tmp_path / "mask" / CSV).read_bytes()

    def test_size_is_height_and_width(self, tmp_path: Path) -> None:
        sample = load(sample_dataset(tmp_path, 1, size=(60, 100)))
        assert sample.masks.shape[1:] == (60, 100)
        (music,) = [row for row in sample.rows if not row.localized]
        assert music.box == (0, 0, 100, 60)

    @pytest.mark.parametrize("seed", range(3))
    def test_no_mask_is_empty_even_at_the_smallest_size(self, tmp_path: Path, seed: int) -> None:
        sample = load(sample_dataset(tmp_path, 24, seed, size=16))
        assert sample.masks.any(axis=(1, 2)).all()
        unlocalized = {row.mask_row for row in sample.rows if not row.localized}
        whole = set(np.flatnonzero(sample.masks.all(axis=(1, 2))).tolist())
        assert whole == unlocalized

    def test_shuffled_moves_the_rows_of_the_csv_only(self, tmp_path: Path) -> None:
        plain = load(sample_dataset(tmp_path / "a", 4, size=48))
        mixed = load(sample_dataset(tmp_path / "b", 4, size=48, shuffled=True))
        np.testing.assert_array_equal(plain.masks, mixed.masks)
        order = [row.mask_row for row in mixed.rows]
        assert order != sorted(order)
        assert [str(row) for row in sorted(mixed.rows)] == [str(row) for row in plain.rows]
        again = sample_dataset(tmp_path / "c", 4, size=48, shuffled=True)
        assert contents(again) == contents(mixed.folder)

    @pytest.mark.parametrize(
        "options",
        [
            {"n_images": 0},
            {"n_images": -1},
            {"n_images": 1.0},
            {"n_images": True},
            {"seed": -1},
            {"seed": "0"},
            {"size": 15},
            {"size": (100, 3)},
            {"size": (100, 100, 3)},
            {"chunks": "guess"},
            {"chunks": (1, 10)},
            {"chunks": (0, 10, 10)},
        ],
    )
    def test_refuses_what_has_no_meaning(self, tmp_path: Path, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidOption, match=next(iter(options))):
            sample_dataset(tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()

    def test_refuses_a_file_in_place_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(InvalidOption, match="is a file"):
            sample_dataset(tmp_path / "file")
        assert (tmp_path / "file").read_text() == "mine"

    def test_import_is_cheap(self) -> None:
        heavy = "{'h5py', 'xarray', 'zarr', 'dask', 'matplotlib'}"
        code = f"import sys, maskcube.sample; assert not {heavy} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)


class TestPainting:
    def test_oval_has_the_area_of_an_ellipse(self) -> None:
        picture = Painting()
        picture.add("egg", oval(0.5, 0.5, 0.3, 0.2, turn=0.4))
        (mask,) = picture.masks(500, 500)
        assert mask.sum() == pytest.approx(np.pi * 0.3 * 0.2 * 500**2, rel=2e-3)

    def test_pixels_belong_to_the_square_that_holds_their_centre(self) -> None:
        picture = Painting()
        picture.add("square", smooth("0.2,0.1 .5,.1 .5,.34 .2,.34", rounds=0))
        (mask,) = picture.masks(10, 10)
        expected = np.zeros((10, 10), dtype=bool)
        expected[1:3, 2:5] = True
        np.testing.assert_array_equal(mask, expected)

    def test_neighbours_share_no_pixel_and_leave_none_out(self) -> None:
        halves = (
            smooth("-1,-1 .37,-1 .61,2 -1,2", rounds=0),
            smooth("2,-1 .37,-1 .61,2 2,2", rounds=0),
        )
        masks = []
        for half in halves:
            picture = Painting()
            picture.add("half", half)
            masks += list(picture.masks(97, 89))
        np.testing.assert_array_equal(masks[0], ~masks[1])

    def test_ring_has_a_hole(self) -> None:
        picture = Painting()
        picture.add("ring", ring(0.5, 0.5, 0.4, 0.2))
        (mask,) = picture.masks(100, 100)
        assert not mask[50, 50]
        assert mask[50, 80]
        assert mask.sum() == pytest.approx(np.pi * (40**2 - 20**2), rel=1e-2)

    def test_limb_joins_its_points(self) -> None:
        picture = Painting()
        picture.add("arm", *limb("0.1,0.5 .5,.5 .5,.9", 0.05, 0.05, 0.05))
        (mask,) = picture.masks(100, 100)
        assert mask[50, 10:50].all()
        assert mask[50:90, 50].all()
        assert not mask[70, 30]

    def test_blob_stays_near_its_ellipse(self) -> None:
        picture = Painting()
        picture.add("stone", blob(np.random.default_rng(0), 0.5, 0.5, 0.3))
        (mask,) = picture.masks(200, 200)
        assert mask.sum() == pytest.approx(np.pi * 60**2, rel=0.2)
        assert len(set(mask.sum(axis=0).tolist())) > 60

    def test_front_hides_back_but_glass_shows_it(self) -> None:
        picture = Painting()
        picture.add("wall", smooth("0,0 1,0 1,1 0,1", rounds=0))
        picture.add("door", smooth("0,0 .5,0 .5,.5 0,.5", rounds=0))
        picture.add("pane", smooth(".5,0 1,0 1,.5 .5,.5", rounds=0), through=None)
        wall, door, pane = picture.masks(10, 10)
        assert (wall.sum(), door.sum(), pane.sum()) == (75, 25, 25)
        assert (wall & pane).sum() == 25
        assert not (wall & door).any()

    def test_part_is_in_its_whole_and_background_is_nowhere(self) -> None:
        picture = Painting()
        hand = picture.add("hand", oval(0.5, 0.5, 0.3))
        picture.add("ring", oval(0.5, 0.5, 0.1), whole=hand)
        picture.cover(None, smooth("0,0 1,0 1,.5 0,.5", rounds=0))
        whole, part = picture.masks(100, 100)
        assert (part & whole).sum() == part.sum() > 100
        assert not whole[:50].any()

    def test_mirrored_swaps_left_and_right(self) -> None:
        masks = []
        for mirrored in (False, True):
            picture = Painting(mirrored=mirrored)
            picture.add("flag", smooth(".1,.2 .6,.2 .6,.4 .1,.4", rounds=0))
            masks += list(picture.masks(50, 50))
        np.testing.assert_array_equal(masks[0], masks[1][:, ::-1])

    @pytest.mark.parametrize("at", [(0.55, 0.35), (-3.0, 9.0)])
    def test_hidden_thing_has_one_pixel(self, at: tuple[float, float]) -> None:
        picture = Painting()
        picture.add("mouse", oval(*at, 1e-6))
        (mask,) = picture.masks(10, 10)
        assert mask.sum() == 1
        assert mask[3, 5] == (at[0] > 0)


def test_only_a_sample_is_replaced(tmp_path: Path) -> None:
    folder = sample_dataset(tmp_path, n_images=1, size=32)
    sample_dataset(tmp_path, n_images=2, size=32)
    path = folder / "stimuli" / "task-images_desc-segmentations.h5"
    for precious in (b"somebody's data", None):
        if precious is None:
            with h5py.File(path, "w") as file:
                file["masks"] = 1
        else:
            path.write_bytes(precious)
        before = path.read_bytes()
        with pytest.raises(StoreExists, match="is no sample dataset"):
            sample_dataset(tmp_path, n_images=1, size=32)
        assert path.read_bytes() == before
