"""Pictures of masks: every test looks at the pixels or the texts of the finished figure."""

import gc
import io
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from maskcube.captions import Caption, deepest_pixel, palette, place, shortened
from maskcube.errors import InvalidOption, MissingDependency
from maskcube.plot import contact_sheet, overlay
from maskcube.sheet import thumbnail

Picture = npt.NDArray[np.float64]

SIZE = 100


def box(x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[np.uint8]:
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def stack(
    *masks: npt.NDArray[np.uint8], nouns: list[str], instances: list[int], image: str = "a.b.jpg"
) -> xr.DataArray:
    return xr.DataArray(
        np.stack(masks),
        dims=("mask", "y", "x"),
        coords={
            "image": ("mask", [image] * len(nouns)),
            "noun": ("mask", nouns),
            "instance": ("mask", instances),
        },
    )


@pytest.fixture
def scene() -> xr.DataArray:
    return stack(
        box(10, 10, 60, 90),
        box(20, 20, 40, 40),
        box(70, 5, 95, 30),
        nouns=["person", "hand", "hand"],
        instances=[0, 0, 1],
    )


def picture(figure: Figure) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    pixels: Picture = matplotlib.image.imread(buffer)[..., :3].astype(float)
    return pixels


def figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def seen_at(ax: Axes, x: float, y: float) -> list[float]:
    """Colour of the saved figure at a pixel of the mask, 0 to 1."""
    pixels = picture(figure_of(ax))
    column, row = ax.transData.transform((x, y))
    return list(pixels[round(pixels.shape[0] - 1 - row), round(column)])


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def counted(masks: xr.DataArray, reads: list[int]) -> xr.DataArray:
    """Return lazy masks that note how many are read at a time."""

    def note(block: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        reads.append(len(block))
        return block

    lazy = masks.chunk(mask=1)
    return lazy.copy(data=lazy.data.map_blocks(note, meta=np.empty((0, 0, 0), dtype=np.uint8)))


class TestOverlay:
    def test_saved_pixels_are_the_colours_on_the_image(self, scene: xr.DataArray) -> None:
        image = np.full((SIZE, SIZE, 3), (200, 100, 0), dtype=np.uint8)
        ax = overlay(scene, image, alpha=0.25, labels=False)
        person, hand, other = palette(3)
        ground = np.array([200, 100, 0]) / 255
        for (x, y), colour in {
            (50, 80): person,
            (30, 30): hand,
            (80, 15): other,
        }.items():
            expected = 0.75 * ground + 0.25 * colour
            assert seen_at(ax, x, y) == pytest.approx(expected, abs=0.01)
        assert seen_at(ax, 65, 50) == pytest.approx(ground, abs=0.01)

    def test_image_is_not_changed(self, scene: xr.DataArray) -> None:
        image = np.full((SIZE, SIZE, 3), 9, dtype=np.uint8)
        overlay(scene, image)
        assert (image == 9).all()

    def test_without_image_the_ground_is_plain_and_light(self, scene: xr.DataArray) -> None:
        ax = overlay(scene, labels=False)
        (ground,) = {tuple(seen_at(ax, *at)) for at in ((3, 3), (65, 50), (97, 97))}
        assert min(ground) > 0.9

    @pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
    def test_smaller_masks_are_on_top_in_any_order(
        self, scene: xr.DataArray, order: list[int]
    ) -> None:
        ax = overlay(scene[order], alpha=1, labels=False)
        colours = palette(3)
        assert seen_at(ax, 30, 30) == pytest.approx(colours[order.index(1)], abs=0.01)
        assert seen_at(ax, 50, 80) == pytest.approx(colours[order.index(0)], abs=0.01)

    def test_outlines_are_drawn_at_alpha_0(self, scene: xr.DataArray) -> None:
        ax = overlay(scene, alpha=0, labels=False)
        assert seen_at(ax, 50, 80) == seen_at(ax, 3, 3)
        edge = seen_at(ax, 59.5, 60)
        assert edge == pytest.approx(0.8 * palette(3)[0], abs=0.1)

    def test_outlines_close_at_the_border_of_the_image(self) -> None:
        cut = stack(box(0, 0, 50, 100), nouns=["sea"], instances=[0])
        ax = overlay(cut, labels=False)
        (contour,) = ax.collections
        (path,) = contour.get_paths()
        low, high = path.vertices.min(axis=0), path.vertices.max(axis=0)  # type: ignore[union-attr]
        assert low.tolist() == [-0.5, -0.5]
        assert high.tolist() == [49.5, 99.5]

    def test_nouns_are_written_with_instance_where_there_are_several(
        self, scene: xr.DataArray
    ) -> None:
        ax = overlay(scene)
        assert texts(ax) == ["person", "hand 0", "hand 1"]
        assert ax.get_title(loc="left") == "a.b.jpg"

    def test_names_stand_on_the_visible_part_of_their_masks(self, scene: xr.DataArray) -> None:
        for text, (mask, hidden) in zip(
            overlay(scene).texts, ((0, 1), (1, None), (2, None)), strict=True
        ):
            x, y = (round(value) for value in text.get_position())
            assert scene.values[mask, y, x]
            assert hidden is None or not scene.values[hidden, y, x]

    def test_names_can_be_left_out(self, scene: xr.DataArray) -> None:
        assert texts(overlay(scene, labels=False)) == []

    def test_names_of_one_place_do_not_cover_each_other(self) -> None:
        crowd = [box(50, 50, 52 + k, 52 + k) for k in range(8)]
        masks = stack(*crowd, nouns=["bee"] * 8, instances=list(range(8)))
        ax = overlay(masks)
        figure = figure_of(ax)
        picture(figure)
        boxes = [text.get_window_extent() for text in ax.texts]
        assert len(boxes) == 8
        for k, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[k + 1 :])

    def test_awkward_nouns_are_written_as_they_are(self) -> None:
        nouns = ["nan", "crème brûlée", "$5, $10", "a_b^c"]
        masks = stack(*[box(10, 10, 50, 50)] * 4, nouns=nouns, instances=[0] * 4, image="$x_1$.jpg")
        ax = overlay(masks)
        picture(figure_of(ax))
        assert texts(ax) == nouns
        assert ax.get_title(loc="left") == "$x_1$.jpg"

    def test_one_mask_without_its_dimension(self, scene: xr.DataArray) -> None:
        ax = overlay(scene[1], alpha=1, labels=False)
        assert seen_at(ax, 30, 30) == pytest.approx(palette(1)[0], abs=0.01)
        assert texts(overlay(scene[1])) == ["hand"]

    def test_dimensions_in_another_order(self, scene: xr.DataArray) -> None:
        turned = scene.transpose("x", "mask", "y")
        np.testing.assert_array_equal(
            picture(figure_of(overlay(turned))), picture(figure_of(overlay(scene)))
        )

    def test_bool_masks_without_coordinates(self) -> None:
        masks = xr.DataArray(np.ones((2, 20, 30), dtype=bool), dims=("mask", "y", "x"))
        ax = overlay(masks)
        assert texts(ax) == ["mask 0", "mask 1"]
        assert ax.get_title(loc="left") == ""

    def test_empty_masks_are_counted_in_the_title(self, scene: xr.DataArray) -> None:
        scene.values[1] = 0
        ax = overlay(scene)
        assert texts(ax) == ["person", "hand 1"]
        assert ax.get_title(loc="left").endswith("1 of 3 masks empty")
        assert overlay(scene[:0]).get_title(loc="left") == "no masks"

    def test_draws_on_the_given_axes(self, scene: xr.DataArray) -> None:
        figure = Figure()
        left, right = figure.subplots(1, 2)
        assert overlay(scene, ax=right) is right
        assert not left.images
        assert len(right.images) == 1

    def test_own_figure_is_as_wide_as_the_image_and_is_freed(self, scene: xr.DataArray) -> None:
        wide = scene.isel(y=slice(0, 50))
        pixels = picture(figure_of(overlay(wide)))
        assert pixels.shape[1] == 1000
        assert 500 < pixels.shape[0] < 560
        reference = weakref.ref(figure_of(overlay(scene)))
        gc.collect()
        assert reference() is None

    def test_masks_are_read_one_at_a_time(self, scene: xr.DataArray) -> None:
        reads: list[int] = []
        overlay(counted(scene, reads))
        assert reads == [1, 1, 1]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"alpha": 1.5}, "alpha=1.5"),
            ({"alpha": float("nan")}, "alpha=nan"),
            ({"image": np.zeros((5, 5, 3), dtype=np.uint8)}, r"image is uint8 \(5, 5, 3\)"),
            ({"image": np.zeros((SIZE, SIZE, 3))}, "image is float64"),
            ({"image": np.zeros((SIZE, SIZE), dtype=np.uint8)}, r"goes uint8 \(100, 100, 3\)"),
        ],
    )
    def test_refuses_bad_options(
        self, scene: xr.DataArray, change: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InvalidOption, match=message):
            overlay(scene, **change)

    def test_refuses_masks_of_several_images(self, scene: xr.DataArray) -> None:
        mixed = scene.assign_coords(image=("mask", ["a.jpg", "b.jpg", "a.jpg"]))
        with pytest.raises(InvalidOption, match=r"of 2: 'a.jpg', 'b.jpg'; choose one"):
            overlay(mixed)

    @pytest.mark.parametrize("draw", [overlay, contact_sheet])
    def test_refuses_what_are_no_masks(
        self, draw: Callable[[Any], object], scene: xr.DataArray
    ) -> None:
        with pytest.raises(InvalidOption, match="heatmap"):
            draw(scene.mean("mask"))
        with pytest.raises(InvalidOption, match=r"trial"):
            draw(scene.rename(mask="trial"))
        with pytest.raises(InvalidOption, match="ndarray"):
            draw(scene.values)


class TestContactSheet:
    def test_says_how_many_were_left_out(self, scene: xr.DataArray) -> None:
        (ax,) = contact_sheet(scene, max_masks=2).axes
        assert texts(ax)[0] == "2 of 3 masks, 1 left out"
        assert "hand 1" not in texts(ax)

    @pytest.mark.parametrize(
        ("n_masks", "header"), [(3, "3 masks"), (1, "1 mask"), (0, "no masks")]
    )
    def test_counts_the_masks(self, scene: xr.DataArray, n_masks: int, header: str) -> None:
        figure = contact_sheet(scene[:n_masks])
        picture(figure)
        assert texts(figure.axes[0])[0] == header

    def test_counts_with_separators(self) -> None:
        many = xr.DataArray(np.ones((1500, 4, 4), dtype=np.uint8), dims=("mask", "y", "x"))
        (ax,) = contact_sheet(many, max_masks=3, thumbnail=32).axes
        assert texts(ax)[0] == "3 of 1,500 masks, 1,497 left out"

    def test_each_has_noun_instance_and_image(self, scene: xr.DataArray) -> None:
        (ax,) = contact_sheet(scene).axes
        assert texts(ax)[1:] == ["person 0", "a.b.jpg", "hand 0", "a.b.jpg", "hand 1", "a.b.jpg"]

    def test_names_of_real_length_fit(self, scene: xr.DataArray) -> None:
        name = "shared_12rep_LAION_cluster_1003_i0.jpg"
        long = scene.assign_coords(image=("mask", [name] * 3))
        (ax,) = contact_sheet(long).axes
        picture(figure_of(ax))
        shown = [text for text in ax.texts if text.get_text() == name]
        assert len(shown) == 3
        assert all(text.get_window_extent().width < 200 + 16 for text in shown)
        (small,) = contact_sheet(long, thumbnail=100).axes
        assert any("…" in text for text in texts(small))

    def test_pixels_are_the_masks_in_the_colour_of_their_noun(self, scene: xr.DataArray) -> None:
        figure = contact_sheet(scene, n_columns=2, thumbnail=SIZE)
        pixels = picture(figure)
        person, hand = palette(2)
        (ax,) = figure.axes
        corners = []
        for text in ax.texts[1::2]:
            x, y = text.get_position()
            corners.append((round(x), round(y - 11 - SIZE)))
        assert len({x for x, _ in corners}) == 2
        assert len({y for _, y in corners}) == 2
        for (left, top), mask, colour in zip(
            corners, scene.values, (person, hand, hand), strict=True
        ):
            tile = pixels[top : top + SIZE, left : left + SIZE]
            assert tile[mask == 1] == pytest.approx(np.tile(colour, (mask.sum(), 1)), abs=0.01)
            assert len(np.unique(tile[mask == 0])) == 1

    def test_reads_only_what_it_shows_one_at_a_time(self, scene: xr.DataArray) -> None:
        reads: list[int] = []
        contact_sheet(counted(scene, reads), max_masks=2)
        assert reads == [1, 1]

    @pytest.mark.parametrize(
        "option", [{"n_columns": 0}, {"max_masks": 0}, {"thumbnail": 31}, {"n_columns": -3}]
    )
    def test_refuses_bad_numbers(self, scene: xr.DataArray, option: dict[str, int]) -> None:
        with pytest.raises(InvalidOption, match=next(iter(option))):
            contact_sheet(scene, **option)


class TestMatplotlib:
    @pytest.mark.parametrize("draw", [overlay, contact_sheet])
    def test_missing_says_what_to_install(
        self, draw: Callable[[Any], object], scene: xr.DataArray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingDependency, match=r'pip install "maskcube\[plot\]"') as caught:
            draw(scene)
        assert str(caught.value).startswith(f"{draw.__name__} needs matplotlib")

    def test_pyplot_is_never_imported_nor_matplotlib_before_it_is_needed(
        self, tmp_path: Path
    ) -> None:
        code = f"""
import sys, maskcube.plot
assert not {{"matplotlib", "xarray", "dask"}} & set(sys.modules)
import numpy, xarray
mask = xarray.DataArray(numpy.eye(50, dtype="uint8"), dims=("y", "x"))
maskcube.plot.overlay(mask).figure.savefig({str(tmp_path / "a.png")!r})
maskcube.plot.contact_sheet(mask).savefig({str(tmp_path / "b.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", code], check=True)
        assert all((tmp_path / name).stat().st_size > 1000 for name in ("a.png", "b.png"))


class TestCaptions:
    @pytest.mark.parametrize("n_colours", [2, 8, 16, 24, 40])
    def test_colours_are_distinct_and_neither_black_nor_white(self, n_colours: int) -> None:
        colours = palette(n_colours)
        assert colours.shape == (n_colours, 3)
        assert (colours >= 0).all()
        assert (colours <= 1).all()
        apart = np.abs(colours[:, np.newaxis] - colours).sum(axis=2) + 9 * np.eye(n_colours)
        assert apart.min() > 0.1
        assert 0.25 < colours.mean(axis=1).min() < colours.mean(axis=1).max() < 0.85

    def test_first_colours_do_not_depend_on_their_number(self) -> None:
        np.testing.assert_allclose(palette(3), palette(9)[:3])
        assert to_rgb(palette(1)[0]) == pytest.approx((0.91, 0.43, 0.39), abs=0.01)

    @pytest.mark.parametrize("size", [7, 100, 1000])
    def test_deepest_pixel_of_a_disc_is_its_middle(self, size: int) -> None:
        y, x = np.mgrid[:size, :size]
        disc = (x - 0.4 * size) ** 2 + (y - 0.6 * size) ** 2 < (0.3 * size) ** 2
        assert deepest_pixel(disc) == pytest.approx((0.4 * size, 0.6 * size), abs=0.02 * size + 1)

    def test_deepest_pixel_is_in_the_thickest_part_and_always_inside(self) -> None:
        mask = np.zeros((1000, 1000), dtype=bool)
        mask[500, 3:990] = True
        x, y = deepest_pixel(mask)
        assert mask[int(y), int(x)]
        mask[480:520, 800:840] = True
        x, y = deepest_pixel(mask)
        assert 800 <= x < 840

    def test_place_moves_away_but_stays_in_the_image(self) -> None:
        shape = (100, 200)
        taken: list[Caption] = []
        for _ in range(9):
            taken.append(place(Caption(195, 2, 15, 5), taken, shape))
        for k, one in enumerate(taken):
            assert not any(one.hides(other) for other in taken[k + 1 :])
            assert 15 <= one.x <= 185
            assert 5 <= one.y <= 95

    def test_place_gives_up_where_there_is_no_room(self) -> None:
        wanted = Caption(10, 10, 10, 10)
        assert place(wanted, [wanted], (20, 20)) == wanted

    @pytest.mark.parametrize("n_characters", [4, 5, 11])
    def test_shortened_keeps_both_ends(self, n_characters: int) -> None:
        text = "shared_4rep.v2.final.png"
        short = shortened(text, n_characters)
        assert len(short) == n_characters
        start, end = short.split("…")
        assert text.startswith(start)
        assert text.endswith(end)
        assert shortened(text, len(text)) == text


class TestThumbnail:
    @pytest.mark.parametrize("shape", [(1000, 1000), (90, 120), (31, 17), (200, 1)])
    @pytest.mark.parametrize("side", [32, 200])
    def test_longer_side_is_as_asked(self, shape: tuple[int, int], side: int) -> None:
        small = thumbnail(np.ones(shape, dtype=bool), side)
        assert max(small.shape) == side
        assert small.shape[0] / small.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.05) or (
            min(small.shape) == 1
        )
        assert (small == 1).all()

    def test_is_the_share_of_each_block(self) -> None:
        mask = np.zeros((100, 100), dtype=bool)
        mask[:10, :5] = True
        small = thumbnail(mask, 10)
        assert small[0, 0] == 0.5
        assert small.sum() == 0.5

    def test_magnifies_by_repetition(self) -> None:
        mask = np.eye(2, dtype=bool)
        np.testing.assert_array_equal(thumbnail(mask, 4), np.kron(np.eye(2), np.ones((2, 2))))

    def test_no_object_disappears(self) -> None:
        mask = np.zeros((1000, 1000), dtype=bool)
        mask[3, 997] = True
        small = thumbnail(mask, 50)
        assert np.argwhere(small).tolist() == [[0, 49]]
        assert small.max() > 0.3
