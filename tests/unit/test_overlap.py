"""The overlap rule: which mask is seen where several are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import images_of, rows_of_text

from maskcube import InvalidOption
from maskcube.formats import overlap as overlap_module
from maskcube.formats.choices import OVERLAPS
from maskcube.formats.overlap import LabelMaps, label_maps

HAND, FINGER, RING = "#### ####", ".##. ....", ".#.. ...."


def maps_of(*masks: str, overlap: str = "smallest", **columns: object) -> LabelMaps:
    images = images_of(rows_of_text(*masks), **columns)
    return label_maps(images["a.jpg"], overlap)


@pytest.mark.parametrize("order", [(HAND, FINGER, RING), (RING, FINGER, HAND)])
def test_the_smallest_is_seen(order: tuple[str, ...]) -> None:
    found = maps_of(*order)
    hand, finger, ring = (order.index(mask) + 1 for mask in (HAND, FINGER, RING))
    assert found.maps[0].tolist() == [[hand, ring, finger, hand], [hand] * 4]
    assert sorted(found.visible.tolist()) == [1, 1, 6]


def test_of_equally_large_ones_the_better_is_seen() -> None:
    found = maps_of("##", "##", "##", score=[0.1, 0.9, 0.5])
    assert found.maps[0].tolist() == [[2, 2]]
    assert found.visible.tolist() == [0, 2, 0]


def test_of_equally_good_ones_the_first_is_seen() -> None:
    assert maps_of("##", "##", score=0.5).maps[0].tolist() == [[1, 1]]
    assert maps_of("##", "##").maps[0].tolist() == [[1, 1]]


def test_a_mask_without_a_score_is_below() -> None:
    assert maps_of("##", "##", score=[np.nan, 0.0]).maps[0].tolist() == [[2, 2]]


def test_the_best_is_seen() -> None:
    found = maps_of(HAND, FINGER, overlap="score", score=[0.9, 0.1])
    assert found.visible.tolist() == [8, 0]


def test_the_later_is_seen() -> None:
    assert maps_of(FINGER, HAND, overlap="order").visible.tolist() == [0, 8]


def test_overlaps_are_refused_by_name() -> None:
    with pytest.raises(InvalidOption, match=r"image 'a.jpg' .*'hand 0', 'finger 0'.*'hand 0', 'ri"):
        maps_of(HAND, FINGER, RING, overlap="error", noun=["hand", "finger", "ring"])


def test_a_mask_that_two_cover_is_told_with_both() -> None:
    """What the second one covers of the first must not hide it from the third."""
    with pytest.raises(InvalidOption) as caught:
        maps_of("##.", "#..", "#..", overlap="error", noun=["a", "b", "c"])
    assert "('a 0', 'b 0'), ('a 0', 'c 0'), ('b 0', 'c 0')" in str(caught.value)


def test_neighbours_do_not_overlap() -> None:
    found = maps_of("#.", ".#", overlap="error")
    assert found.maps[0].tolist() == [[1, 2]]


def test_layers_lose_nothing() -> None:
    found = maps_of(HAND, FINGER, RING, "...# ....", overlap="layers")
    assert len(found.maps) == 3
    assert found.layer.tolist() == [0, 1, 2, 1]
    assert found.visible.tolist() == [8, 2, 1, 1]
    assert found.maps[1].tolist() == [[0, 2, 2, 4], [0, 0, 0, 0]]


def test_an_image_of_empty_masks_has_a_map() -> None:
    for overlap in OVERLAPS:
        found = maps_of("..", "..", overlap=overlap)
        assert [each.tolist() for each in found.maps] == [[[0, 0]]]
        assert found.visible.tolist() == [0, 0]


def test_a_mask_of_which_too_little_is_seen_is_left_out() -> None:
    masks = images_of(rows_of_text("####", "###."), score=[0.5, 0.5])["a.jpg"]
    whole = label_maps(masks, min_visible=0.25)
    assert whole.visible.tolist() == [1, 3]
    found = label_maps(masks, min_visible=0.26)
    assert found.maps[0].tolist() == [[2, 2, 2, 0]]
    assert found.visible.tolist() == [0, 3]


def test_what_is_below_a_mask_that_is_left_out_is_seen() -> None:
    """Half of the second one is hidden: it goes, and the first one shows where it was."""
    masks = images_of(rows_of_text("#####", "..##.", "..#.."), score=[0.1, 0.5, 0.9])["a.jpg"]
    found = label_maps(masks, "score", min_visible=0.55)
    assert found.visible.tolist() == [4, 0, 1]
    assert found.maps[0].tolist() == [[1, 1, 3, 1, 1]]


@pytest.mark.parametrize("share", [-0.1, 1.1, np.nan])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(InvalidOption, match="min_visible"):
        label_maps(images_of(rows_of_text("#"))["a.jpg"], min_visible=share)


class TestGroups:
    def test_one_of_the_group_covers_for_another(self) -> None:
        masks = images_of(rows_of_text("###", ".##", "..#"), noun=["a", "a", "b"])["a.jpg"]
        found = label_maps(masks, groups=["a", "a", "b"])
        assert found.visible.tolist() == [2, 1, 1]

    def test_they_are_no_conflict(self) -> None:
        masks = images_of(rows_of_text("##", "##"))["a.jpg"]
        assert label_maps(masks, "error", groups=["a", "a"]).visible.tolist() == [2, 2]

    def test_they_share_a_layer(self) -> None:
        masks = images_of(rows_of_text("##", "##", "##"))["a.jpg"]
        assert len(label_maps(masks, "layers", groups=["a", "a", "b"]).maps) == 2


def test_an_unknown_rule() -> None:
    with pytest.raises(InvalidOption, match="overlap='largest': give one of 'smallest', 'score'"):
        maps_of("#", overlap="largest")


def test_more_masks_than_an_image_was_thought_to_have() -> None:
    pixels = np.zeros((70_000, 1, 2), np.uint8)
    pixels[-1, 0, 0] = 1
    found = label_maps(images_of(pixels)["a.jpg"])
    assert found.maps[0].tolist() == [[70_000, 0]]


def test_very_many_that_overlap_are_not_all_looked_for() -> None:
    masks = images_of(np.ones((5_000, 1, 1), np.uint8))["a.jpg"]
    seen = 0

    def each() -> Iterator[NDArray[np.uint8]]:
        nonlocal seen
        for seen in range(len(masks)):  # noqa: B007 - how far it came
            yield np.ones((1, 1), np.uint8)

    masks.each = each  # type: ignore[method-assign, assignment]
    with pytest.raises(InvalidOption, match="thing 0"):
        label_maps(masks, "error")
    assert seen < 100


def test_layers_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks on top of each other take a map each."""
    monkeypatch.setattr(overlap_module, "_MOST_LAYER_BYTES", 100)
    masks = images_of(np.ones((40, 2, 2), np.uint8))["a.jpg"]
    with pytest.raises(InvalidOption, match=r"image 'a.jpg' .* more than 9 maps; .*clearml-alpha"):
        label_maps(masks, "layers")
