"""The progress bar of everything that goes through all masks."""

from __future__ import annotations

from typing import Any

__all__ = ["mask_bar"]


def mask_bar(n_masks: int, doing: str, *, show: bool) -> Any:  # noqa: ANN401 - tqdm is generic
    """Return a tqdm bar on stderr, which shows masks a second and the time left.

    Parameters
    ----------
    n_masks : int
        Masks to go through.
    doing : str
        What is done with them.
    show : bool
        Whether to show anything.
    """
    from tqdm import tqdm

    return tqdm(total=n_masks, desc=doing, unit=" masks", disable=not show)
