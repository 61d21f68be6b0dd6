"""The one rule by which overlapping masks become a map of one object a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import InvalidOption, listed
from maskcube.formats.choices import OVERLAPS, check_choice
from maskcube.formats.images import ImageMasks

__all__ = ["LabelMaps", "check_overlap", "check_share", "label_maps"]

_MOST_PAIRS = 1_000
"""Of masks that overlap: when there are more, no further ones are looked for."""

_MOST_LAYER_BYTES = 2**28
"""Of the maps of one image: 90 of 1,000 x 1,000 pixels."""

LabelMap = NDArray[np.uint16] | NDArray[np.uint32]


class LabelMaps(NamedTuple):
    """The masks of an image as maps of one object a pixel."""

    maps: list[LabelMap]
    """(y, x) each: 0 where no mask is, k + 1 where the mask at position k is."""
    layer: NDArray[np.intp]
    """(mask,): in which of the maps each is."""
    visible: NDArray[np.int64]
    """(mask,): pixels of each that can be seen; 0 where it is hidden, empty or left out."""


def check_overlap(overlap: str, *, layers: bool = False, why: str = "") -> None:
    """Raise `InvalidOption` unless `overlap` is a rule that this format can follow.

    Parameters
    ----------
    overlap : str
        What was asked.
    layers : bool
        Whether an image may have several maps.
    why : str
        Why it may not.
    """
    known = OVERLAPS if layers else tuple(rule for rule in OVERLAPS if rule != "layers")
    if overlap == "layers" and not layers:
        raise InvalidOption(f"overlap='layers' gives several maps an image; {why}: {listed(known)}")
    check_choice("overlap", overlap, known)


def check_share(min_visible: object) -> None:
    """Raise `InvalidOption` unless this is a share of a mask's pixels."""
    is_number = isinstance(min_visible, int | float) and not isinstance(min_visible, bool)
    if not is_number or not 0 <= min_visible <= 1:  # type: ignore[operator]
        raise InvalidOption(f"min_visible={min_visible!r}: give a share from 0 to 1")


def label_maps(
    masks: ImageMasks,
    overlap: str = "smallest",
    *,
    min_visible: float = 0.0,
    groups: Sequence[object] | None = None,
    apart: Sequence[object] | None = None,
) -> LabelMaps:
    """Return the masks of an image as maps of one object a pixel; reads each mask once or twice.

    Parameters
    ----------
    masks : ImageMasks
        The masks of an image.
    overlap : str
        What is seen where masks overlap. ``"smallest"``: the smallest mask, so that parts
        (fingers) stay in wholes (hand); of equally large ones the higher score, then the lower
        row. ``"score"``: the highest score, then the smallest. ``"order"``: the later row.
        ``"error"``: overlapping masks are refused. ``"layers"``: nothing is hidden, there are as
        many maps as that takes.
    min_visible : float
        A mask of which a smaller share than this can be seen is left out, and what is below it is
        seen.
    groups : sequence, optional
        A group for each mask: those of one group are no conflict, and what one of them covers of
        another counts as visible.
    apart : sequence, optional
        A group for each mask: those of one group never share a layer.

    Returns
    -------
    LabelMaps
        The maps, in which of them each mask is, and how much of it can be seen.

    Raises
    ------
    InvalidOption
        When `overlap` or `min_visible` has no meaning, or masks overlap and must not.
    """
    check_overlap(overlap, layers=True)
    check_share(min_visible)
    teams = list(range(len(masks))) if groups is None else _numbered(groups)
    if overlap == "layers":
        return _layers(masks, teams, range(len(masks)) if apart is None else _numbered(apart))
    order = _painting_order(masks, overlap)
    if overlap == "error":
        _refuse_overlaps(masks, teams)
    found = _painted(masks, order, teams, grouped=groups is not None)
    few = found.visible < min_visible * masks.areas
    if few.any():
        kept = order[~few[order]]
        found = _painted(masks, kept, teams, grouped=groups is not None)
    return found


def _numbered(groups: Sequence[object]) -> list[int]:
    numbers: dict[object, int] = {}
    return [numbers.setdefault(group, len(numbers)) for group in groups]


def _painting_order(masks: ImageMasks, overlap: str) -> NDArray[np.intp]:
    """Return positions from the mask that is painted first to the one that is painted last."""
    n_masks = len(masks)
    positions = np.arange(n_masks)
    if overlap == "order":
        return positions
    # A mask without a score is below those with one.
    scores = np.array([-np.inf if r.score is None else r.score for r in masks.records])
    # The last key counts most: on top are the smallest and the best, then the lower row.
    keys = (
        (-positions, -masks.areas, scores)
        if overlap == "score"
        else (-positions, scores, -masks.areas)
    )
    return np.lexsort(keys)


def _empty(masks: ImageMasks) -> LabelMap:
    if len(masks) < np.iinfo(np.uint16).max:
        return np.zeros(masks.shape, np.uint16)
    return np.zeros(masks.shape, np.uint32)


def _painted(
    masks: ImageMasks, order: NDArray[np.intp], teams: list[int], *, grouped: bool
) -> LabelMaps:
    """Paint masks over each other and count what can be seen of each."""
    painted = _empty(masks)
    for position, mask in zip(order.tolist(), masks.each(order), strict=True):
        np.copyto(painted, position + 1, where=mask.view(np.bool_))
    if grouped:
        team_at = np.array([0, *(team + 1 for team in teams)], painted.dtype)[painted]
        visible = np.zeros(len(masks), np.int64)
        for position, mask in zip(order.tolist(), masks.each(order), strict=True):
            # Comparing all of them is faster than taking those of the mask out.
            own = team_at == teams[position] + 1
            visible[position] = np.count_nonzero(np.logical_and(own, mask, out=own))
    else:
        visible = np.bincount(painted.ravel(), minlength=len(masks) + 1)[1:]
    return LabelMaps([painted], np.zeros(len(masks), np.intp), visible)


def _refuse_overlaps(masks: ImageMasks, teams: list[int]) -> None:
    """Raise if masks of different groups overlap, and say which."""
    pairs: set[tuple[int, int]] = set()
    maps: list[LabelMap] = []
    for position, mask in enumerate(masks.each()):
        there = mask.view(np.bool_)
        below = {number - 1 for each in maps for number in np.unique(each[there]).tolist()} - {-1}
        pairs |= {(other, position) for other in below if teams[other] != teams[position]}
        if len(pairs) > _MOST_PAIRS:
            # All on top of each other, each next one takes longer, and few of them are named.
            break
        # What this one covers must be found below it by the next ones too.
        for each in maps:
            if not each[there].any():
                each[there] = position + 1
                break
        else:
            maps.append(_empty(masks))
            maps[-1][there] = position + 1
    if pairs:
        named = [(_name(masks, a), _name(masks, b)) for a, b in sorted(pairs)]
        raise InvalidOption(
            f"overlap='error': in image {masks.image!r} masks overlap: {listed(named)}; another"
            f" rule would say which is seen: {listed(OVERLAPS[:3])}"
        )


def _name(masks: ImageMasks, position: int) -> str:
    record = masks.records[position]
    return f"{record.noun} {record.instance}"


def _layers(masks: ImageMasks, teams: list[int], apart: Sequence[int]) -> LabelMaps:
    """Put each mask into the first map where nothing of another group is in its way."""
    maps: list[LabelMap] = []
    held: list[set[int]] = []
    taken: list[NDArray[np.bool_]] = []
    layer = np.zeros(len(masks), np.intp)
    team_of = np.array([-1, *teams])
    for position, mask in enumerate(masks.each()):
        there = mask.view(np.bool_)
        for number, (each, used) in enumerate(zip(maps, taken, strict=True)):
            if apart[position] in held[number]:
                continue
            both = used & there
            if not both.any() or (team_of[each[both]] == teams[position]).all():
                layer[position] = number
                break
        else:
            _refuse_many(masks, maps)
            layer[position] = len(maps)
            maps.append(_empty(masks))
            taken.append(np.zeros(masks.shape, np.bool_))
            held.append(set())
        number = layer[position]
        np.copyto(maps[number], position + 1, where=there)
        taken[number] |= there
        held[number].add(apart[position])
    return LabelMaps(maps or [_empty(masks)], layer, masks.areas.copy())


def _refuse_many(masks: ImageMasks, maps: Sequence[LabelMap]) -> None:
    """Raise if one more map, and what is taken in it, would be too much for the memory."""
    n_bytes = sum(each.nbytes + each.size for each in maps)
    if maps and n_bytes > _MOST_LAYER_BYTES:
        raise InvalidOption(
            f"overlap='layers': masks of image {masks.image!r} lie on top of each other in more"
            f" than {len(maps)} maps; a format without maps holds them: coco, or clearml-alpha"
        )
