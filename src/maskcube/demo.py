"""A tour in one call: a small dataset, its store, a few selections and two pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["demo"]

IMAGE = "shared_12rep_LAION_cluster_1003_i0.jpg"


def demo(folder: Path) -> None:
    """Make a sample dataset in `folder`, convert it, open it, select from it and draw it.

    Running it again makes the same files again. Everything is printed as it is done.
    """
    from maskcube.conversion import convert
    from maskcube.reader import open_masks
    from maskcube.sample import sample_dataset

    data_dir, store = folder / "sample", folder / "sample.zarr"
    _say(f'sample_dataset("{data_dir}")')
    sample_dataset(data_dir)
    _say(f'convert("{data_dir}", "{store}")')
    convert(data_dir, store, overwrite=store.exists())
    _say(f'masks = open_masks("{store}")')
    masks = open_masks(store)
    click.echo(masks)
    _show_selections(masks)
    _draw(masks.sel(image=IMAGE), folder)


def _show_selections(masks: xr.DataArray) -> None:
    """Ask what a newcomer would ask first, and print what comes back."""
    _say(f'masks.sel(image="{IMAGE}", noun=["hand", "fingers"]).any("mask")')
    found = masks.sel(image=IMAGE, noun=["hand", "fingers"])
    click.echo(f"{dict(found.sizes)}, of which {int(found.any('mask').sum()):,} pixels in any")
    _say(f'masks.sel(image="{IMAGE}", noun="hand", instance=0)')
    one = masks.sel(image=IMAGE, noun="hand", instance=0)
    click.echo(f"{dict(one.sizes)}, score {float(one.score):.3f}, {int(one.area):,} pixels")
    _say('masks.sel(noun=re.compile("finger|hand").search)')
    fits = masks.sel(noun=re.compile("finger|hand").search)
    click.echo(f"{dict(fits.sizes)}, nouns {sorted(set(fits.noun.values.tolist()))}")
    _say("masks[masks.score > 0.9]")
    click.echo(f"{dict(masks[masks.score > 0.9].sizes)}")  # noqa: PLR2004 - an example


def _draw(masks: xr.DataArray, folder: Path) -> None:
    from maskcube.plot import contact_sheet, overlay

    for name, figure in [
        ("overlay.png", cast("Figure", overlay(masks).figure)),
        ("contact_sheet.png", contact_sheet(masks)),
    ]:
        figure.savefig(folder / name)
        click.echo(f"saved {folder / name}")


def _say(call: str) -> None:
    click.secho(f"\n>>> {call}", bold=True)
