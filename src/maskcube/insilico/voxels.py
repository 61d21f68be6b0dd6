"""The labels of voxels: where they are, what regions they are in, how well they are known."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray import Variable
from xarray.core.indexing import IndexSelResult
from xarray.indexes import Index

from maskcube.errors import InvalidOption, LabelNotFound, listed
from maskcube.insilico.brain import MEASURES, Brain, Volume
from maskcube.insilico.catalog import REGIONS, hint
from maskcube.insilico.errors import CorruptWeights

__all__ = ["DIM", "RegionIndex", "plain_coordinates", "voxel_coordinates"]

DIM = "voxel"

_ROI = "roi"

_ORDER = {name: place for place, name in enumerate(REGIONS)}

_UNITS = {"correlation": "1", "r2": "1", "explained_variance": "1 (1 is at the noise ceiling)"}


class RegionIndex(Index):
    """Index of the coordinate ``roi`` along ``voxel``: the names of each voxel's regions.

    A voxel may be in several regions, or in none: ``"lV1v BMDgeneral"``, ``""``. It gives ``.sel``
    these questions, which all keep the dimension:

    ============================  ========================================
    ``roi="lV1v"``                voxels of this region
    ``roi=["lV1v", "lV1d"]``      voxels of any of these
    ``roi=re.compile("V1").search``  voxels of regions whose names pass
    ============================  ========================================

    Parameters
    ----------
    groups : sequence of tuple of str
        Each set of regions that voxels are in together.
    codes : numpy.ndarray
        (voxel,) int: which of `groups`.
    name, dim : hashable
        Of the coordinate, and what it runs along.

    Examples
    --------
    >>> import xarray as xr
    >>> responses = xr.DataArray(
    ...     [0.1, 0.2, 0.3], {"roi": ("voxel", ["V1", "V1 V2", ""])}, ["voxel"]
    ... )
    >>> responses = responses.set_xindex("roi", RegionIndex)
    >>> responses.sel(roi="V1").values.tolist()
    [0.1, 0.2]
    >>> responses.sel(roi="V3")
    Traceback (most recent call last):
        ...
    maskcube.errors.LabelNotFound: no voxel is in roi 'V3'; there are 'V1', 'V2'
    """

    def __init__(
        self,
        groups: Sequence[tuple[str, ...]],
        codes: NDArray[np.integer],
        name: Hashable = _ROI,
        dim: Hashable = DIM,
    ) -> None:
        self.groups = tuple(groups)
        self.codes = codes
        self.name = name
        self.dim = dim

    @classmethod
    def of(cls, membership: Mapping[str, NDArray[np.bool_]], n_voxels: int) -> Self:
        """Return the index of regions that are given as (voxel,) bool each."""
        names = list(membership)
        flags = np.array([membership[name] for name in names], bool).reshape(len(names), n_voxels)
        groups, codes = np.unique(flags.T, axis=0, return_inverse=True)
        named = [
            tuple(name for name, inside in zip(names, row, strict=True) if inside) for row in groups
        ]
        return cls(named, codes.reshape(-1).astype(np.int32))

    @classmethod
    def from_variables(
        cls, variables: Mapping[Any, Variable], *, options: Mapping[str, Any]
    ) -> Self:
        """Return the index of a coordinate of names, a space between them; for ``set_xindex``.

        Raises
        ------
        InvalidOption
            When it is not one coordinate along one dimension, or there are options.
        """
        if options or len(variables) != 1:
            raise InvalidOption(f"RegionIndex takes one coordinate, not {listed(variables)}")
        ((name, variable),) = variables.items()
        if variable.ndim != 1:
            raise InvalidOption(f"{name} must run along one dimension, not {variable.dims}")
        texts = [str(text) for text in variable.to_numpy().tolist()]
        number = {text: code for code, text in enumerate(dict.fromkeys(texts))}
        codes = np.array([number[text] for text in texts], np.int32)
        return cls([tuple(text.split()) for text in number], codes, name, variable.dims[0])

    @classmethod
    def concat(
        cls,
        indexes: Sequence[Self],
        dim: Hashable,
        positions: Iterable[Iterable[int]] | None = None,
    ) -> Self:
        """Return the index of voxels one after the other; ``xarray.concat`` calls it."""
        starts = np.cumsum([0, *(len(index.groups) for index in indexes)])
        codes = np.concatenate(
            [index.codes + start for index, start in zip(indexes, starts[:-1], strict=True)]
        )
        if positions is not None:
            codes = codes[np.argsort(np.concatenate([list(part) for part in positions]))]
        groups = [group for index in indexes for group in index.groups]
        return cls(groups, codes, indexes[0].name, dim)

    @property
    def regions(self) -> tuple[str, ...]:
        """The names of all regions that a voxel is in: BERG's in its order, then others."""
        there = np.unique(self.codes)
        names = dict.fromkeys(name for code in there for name in self.groups[code])
        return tuple(sorted(names, key=lambda name: _ORDER.get(name, len(_ORDER))))

    def create_variables(
        self, variables: Mapping[Any, Variable] | None = None
    ) -> dict[Any, Variable]:
        """Return the coordinate: (voxel,) of text, the names with a space between them."""
        texts = np.array([" ".join(group) for group in self.groups] or [""], object)
        old = (variables or {}).get(self.name)
        attrs = None if old is None else old.attrs
        return {self.name: Variable((self.dim,), texts[self.codes], attrs)}

    def rows(self, asked: object) -> NDArray[np.intp]:
        """Return the positions of voxels in a region, in any of some, or of whose one a test holds.

        Raises
        ------
        LabelNotFound
            When no voxel is in a region that is named.
        InvalidOption
            When it is asked for a slice, or for what is no name.
        """
        names = self._names(asked)
        wanted = np.array([not names.isdisjoint(group) for group in self.groups], bool)
        return np.flatnonzero(wanted[self.codes]) if len(self.codes) else np.empty(0, np.intp)

    def _names(self, asked: object) -> set[str]:
        if callable(asked):
            return {name for name in self.regions if asked(name)}
        value = np.asarray(asked).tolist() if hasattr(asked, "ndim") else asked
        names = [value] if isinstance(value, str) else value
        if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
            raise InvalidOption(
                f"{self.name}={asked!r}: give a name, a list of names or a function"
            )
        missing = [name for name in names if name not in self.regions]
        if missing:
            near = hint(missing[0], self.regions) if self.regions else "; no voxel is in any"
            raise LabelNotFound(f"no voxel is in {self.name} {listed(missing)}{near}")
        return set(names)

    def sel(
        self, labels: Mapping[Any, object], method: object = None, tolerance: object = None
    ) -> IndexSelResult:
        """Answer ``.sel``, as the class describes.

        Raises
        ------
        LabelNotFound
            When no voxel is in a region that is named.
        InvalidOption
            When it is asked for a slice, for what is no name, or with `method` or `tolerance`.
        """
        if method is not None or tolerance is not None:
            raise InvalidOption("regions have no nearest one: ask without method= and tolerance=")
        return IndexSelResult({self.dim: self.rows(labels[self.name])})

    def isel(self, indexers: Mapping[Any, Any]) -> Self | None:
        """Return the index of some voxels, or None where the dimension goes."""
        rows = indexers.get(self.dim, 0)
        if not isinstance(rows, slice):
            if getattr(rows, "dims", (self.dim,)) != (self.dim,) or np.ndim(rows) != 1:
                return None
            rows = np.asarray(rows)
            rows = rows if len(rows) else rows.astype(np.intp)
        return type(self)(self.groups, self.codes[rows], self.name, self.dim)

    def roll(self, shifts: Mapping[Any, int]) -> Self:
        """Return the index with its voxels rotated."""
        return type(self)(self.groups, np.roll(self.codes, shifts[self.dim]), self.name, self.dim)

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> Self:
        """Return the index under a new name of its coordinate or of its dimension."""
        name, dim = name_dict.get(self.name, self.name), dims_dict.get(self.dim, self.dim)
        return type(self)(self.groups, self.codes, name, dim)

    def join(self, other: Self, how: str = "inner") -> Self:  # noqa: ARG002 - as in the base
        """Refuse to align different voxels; ``xarray.align`` calls it.

        Raises
        ------
        InvalidOption
            Always: a voxel has no name by which it could be found in another brain.
        """
        raise InvalidOption(
            f"these are other voxels, {len(self.codes):,} and {len(other.codes):,}: select the same"
            " regions of the same subject in both, or compare means over regions"
        )

    def equals(self, other: Index, **_exclude: object) -> bool:
        """Say whether both have the same regions for the same voxels."""
        if not isinstance(other, RegionIndex) or len(self.codes) != len(other.codes):
            return False
        mine, others = (index.create_variables()[index.name] for index in (self, other))
        return self.dim == other.dim and bool((mine.to_numpy() == others.to_numpy()).all())

    def _repr_inline_(self, max_width: int) -> str:
        line = f"RegionIndex ({len(self.codes)} voxels; regions: {len(self.regions)})"
        return line if len(line) <= max_width else f"{line[: max_width - 1]}…"

    def __repr__(self) -> str:
        return f"{self._repr_inline_(80)}\n  {self.name}  {listed(self.regions)}"


def voxel_coordinates(brain: Brain, rows: NDArray[np.integer]) -> xr.Coordinates:
    """Return the coordinates of some of a subject's voxels, all along ``voxel``.

    Parameters
    ----------
    brain : Brain
        What is known of the subject's voxels.
    rows : numpy.ndarray
        (voxel,) int: which of them.

    Returns
    -------
    xarray.Coordinates
        ``i``, ``j``, ``k``: place in the volume, whose shape and affine are attributes of each, so
        that all that lies along ``voxel`` can be put back into it. ``x``, ``y``, ``z``: MNI152, in
        mm. ``hemisphere``: "left", "right", or "" on the midline. ``roi``, with its index, and a
        bool for each region. BERG's measures by its names. Each says its units.

    Raises
    ------
    CorruptWeights
        When regions or measures have names that cannot be those of coordinates.
    """
    for fault in brain.faults:
        raise CorruptWeights(fault)
    places = brain.indices[rows]
    found = _places(places, brain.voxels)
    membership = {name: np.isin(rows, brain.rows(name)) for name in brain.regions}
    index = RegionIndex.of(membership, len(rows))
    for name, inside in membership.items():
        found[name] = Variable(DIM, inside, {"long_name": f"in region of interest {name}"})
    for name, values in brain.measures.items():
        units = "percent" if name.startswith("noiseceiling") else _UNITS.get(name, "1")
        attrs = {"long_name": MEASURES.get(name, name), "units": units}
        found[name] = Variable(DIM, np.asarray(values)[rows], attrs)
    coordinates = xr.Coordinates(found, indexes={})
    return coordinates | xr.Coordinates.from_xindex(index) if membership else coordinates


def plain_coordinates(rows: NDArray[np.integer]) -> xr.Coordinates:
    """Return the numbers of voxels of which nothing else is known."""
    return xr.Coordinates({DIM: rows})


def _places(places: NDArray[np.int64], volume: Volume) -> dict[Hashable, Variable]:
    affine = volume.affine
    in_mm = places @ affine[:3, :3].T + affine[:3, 3]
    found: dict[Hashable, Variable] = {}
    for axis, name in enumerate("ijk"):
        attrs = {"long_name": f"index along axis {axis} of the volume", **volume.attributes}
        found[name] = Variable(DIM, places[:, axis].astype(np.int32), attrs)
    for axis, name in enumerate("xyz"):
        said = {"long_name": f"MNI152 {name}", "units": "mm"}
        found[name] = Variable(DIM, in_mm[:, axis], said)
    sides = np.array(["left", "", "right"], object)
    # MNI152 is RAS: x grows to the right. Where there is no affine, no side is known.
    side = np.sign(np.nan_to_num(in_mm[:, 0])).astype(int) + 1
    found["hemisphere"] = Variable(DIM, sides[side], {"long_name": "side of the midline"})
    return found
