"""The HDF5 as a virtual Zarr, in place: what is written says where its chunks lie, and no pixel."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.errors import InvalidOption, SourceError, StoreExists, listed, missing
from maskcube.layout import DIMS
from maskcube.manifest import Piece
from maskcube.objects import StoreLike, open_objects
from maskcube.paths import folder_path
from maskcube.provenance import generator, now
from maskcube.remote import is_url, plain_url
from maskcube.schema import MASK_ATTRIBUTES, MASKS, create_coordinate, value_bytes
from maskcube.session import SessionObjects
from maskcube.source import MaskSource
from maskcube.transaction import commit_session
from maskcube.virtual import ATTRIBUTE, CODECS, COLUMNS

__all__ = ["VirtualReport", "virtualize"]


@dataclass(frozen=True, kw_only=True)
class VirtualReport:
    """What was virtualized, and what reading it costs."""

    location: str
    """Where the virtual store is."""
    source: str
    """The HDF5, which must stay where it is and as it is."""
    prefix: str
    """What readers must allow icechunk to read from."""
    n_masks: int
    chunks: tuple[int, int, int]
    """Shape of an HDF5 chunk, (mask, y, x)."""
    n_requests: int
    """Chunks, so requests, for one mask."""
    request_bytes: int
    """Bytes to fetch for one mask, on average."""
    inflated_bytes: int
    """Bytes that these are when they are inflated."""

    @property
    def is_costly(self) -> bool:
        """Whether one mask takes more than a chunk of its own."""
        return self.n_requests > 1 or self.chunks[0] > 1

    def cost(self) -> str:
        """Say what reading one mask costs."""
        return (
            f"chunks of {self.chunks}: one mask needs {self.n_requests:,}"
            f" request{'s' * (self.n_requests > 1)}, {self.request_bytes / 1e6:,.3f} MB, which are"
            f" {self.inflated_bytes / 1e6:,.3f} MB inflated"
        )

    def __str__(self) -> str:
        return (
            f"{self.location}: {self.n_masks:,} masks that stay in {self.source}, in"
            f" {self.cost()}. Open its repository with"
            f" authorize_virtual_chunk_access for {self.prefix!r}, and then"
            ' open_masks(repo.readonly_session("main").store)'
        )


def virtualize(
    source: str | Path,
    target: StoreLike,
    *,
    metadata: str | Path | None = None,
    allow_duplicates: bool = False,
    sha256: str | None = None,
) -> VirtualReport:
    """Make a virtual Zarr over the HDF5 of masks where it is; copies its labels and no pixel.

    For those who may not copy. `open_masks` and plain xarray read it: masks, (mask, y, x) uint8,
    with the coordinates that are from the CSV. It is as fast as the HDF5's chunks are good, which a
    warning tells; there are no checksums of masks, no areas and no runs, and what is not 0 or 1 in
    the HDF5 is not found. The HDF5 must stay where and as it is: reading a chunk of one that was
    moved or written to since is an error.

    Parameters
    ----------
    source : str or pathlib.Path
        A data folder or an HDF5, as for `convert`, filtered by gzip, shuffle and fletcher32 only.
    target : path or icechunk store
        A new folder, in which an icechunk repository is made; or the store of
        ``repo.writable_session("main")``, of a repository that has a virtual chunk container for
        the HDF5's folder.
    metadata : str or pathlib.Path, optional
        The CSV, when it does not lie beside the HDF5 under the HDF5's name and ``_metadata.csv``.
    allow_duplicates : bool
        Accept several masks with the same image, noun and instance.
    sha256 : str, optional
        SHA-256 of the HDF5, as its publisher gives it: another file is refused.

    Returns
    -------
    VirtualReport
        Where it is, how to open it, and what reading it costs.

    Raises
    ------
    SourceError
        With every fault of the source that can be seen without reading pixels, or filters that
        plain zarr cannot undo.
    StoreExists
        When something is at the target.
    InvalidOption
        When the target is neither a path nor the store of a session that can be written.
    StoreChanged
        When somebody else has committed to the branch meanwhile.
    MissingDependency
        When icechunk or VirtualiZarr is not installed.
    """
    try:
        import icechunk  # noqa: F401 - the target is made by it
        import virtualizarr.accessor  # noqa: F401 - it registers itself with xarray
    except ImportError as error:
        library = (error.name or "virtualizarr").partition(".")[0]
        raise missing(library, "virtual", "virtualize") from None
    if is_url(source):
        raise InvalidOption(
            f"source={plain_url(str(source))!r} is not on this machine: virtualize refers to an"
            " HDF5 that is; convert takes a URL"
        )
    with MaskSource(source, metadata, allow_duplicates=allow_duplicates) as masks:
        masks.check()
        offsets, lengths = _places(masks)
        source_identity = masks.fingerprint(sha256)
        objects = _open_target(target, _hdf5(masks).parent)
        with _quiet_codecs():
            references = _references(masks, offsets, lengths)
            _write(objects, masks, source_identity, references)
        n_requests = math.prod(
            -(-size // chunk)
            for size, chunk in zip(masks.layout.shape[1:], masks.file.chunks[1:], strict=True)
        )
        report = VirtualReport(
            location=str(folder_path(target) or objects.location),
            source=str(masks.path),
            prefix=_prefix(_hdf5(masks).parent),
            n_masks=masks.layout.n_masks,
            chunks=masks.file.chunks,
            n_requests=n_requests,
            request_bytes=round(n_requests * float(lengths.mean())),
            inflated_bytes=n_requests * math.prod(masks.file.chunks),
        )
    if report.is_costly:
        warnings.warn(
            f"{report.source} has {report.cost()}; a store that convert makes takes one request of"
            " some 80 kB, for 64 masks at once",
            UserWarning,
            stacklevel=2,
        )
    return report


@contextmanager
def _quiet_codecs() -> Iterator[None]:
    """Keep zarr from saying that codecs which it has are not in its specification."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr")
        yield


def _places(masks: MaskSource) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return where each chunk begins in the file, and its bytes, in the shape of the chunk grid.

    Raises
    ------
    SourceError
        When plain zarr could not undo a filter.
    """
    unknown = [name for name in masks.file.filters if name not in CODECS]
    dataset = masks.file.dataset
    grid = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    offsets, lengths = np.zeros(grid, np.uint64), np.zeros(grid, np.uint64)
    n_skipped = 0

    def note(chunk: Any) -> None:  # noqa: ANN401 - h5py has no types
        nonlocal n_skipped
        numbers = zip(chunk.chunk_offset, dataset.chunks, strict=True)
        where = tuple(offset // size for offset, size in numbers)
        offsets[where], lengths[where] = chunk.byte_offset, chunk.size
        n_skipped += bool(chunk.filter_mask)

    dataset.id.chunk_iter(note)
    faults = []
    if unknown:
        faults.append(f"is filtered by {listed(unknown)}, which plain zarr cannot undo")
    if n_skipped:
        faults.append(
            f"{n_skipped:,} chunks are stored without the filters of the others, which Zarr cannot"
            " say"
        )
    if faults:
        advice = "convert it, or rewrite it with h5repack -f masks:GZIP=4"
        raise SourceError(str(masks.path), [f"{fault}: {advice}" for fault in faults])
    return offsets, lengths


def _prefix(folder: Path) -> str:
    return f"file://{folder}/"


def _open_target(target: StoreLike, folder: Path) -> SessionObjects:
    """Return an empty session that may refer to files in a folder."""
    path = folder_path(target)
    objects = open_objects(
        target if path is None else _made(path, folder).writable_session("main").store,
        read_only=False,
    )
    if not isinstance(objects, SessionObjects):
        raise InvalidOption(
            f"target={target!r}: give a new folder, or the store of a session of icechunk"
        )
    containers = objects.session.config.virtual_chunk_containers or {}
    if not any(_prefix(folder).startswith(prefix) for prefix in containers):
        raise InvalidOption(
            f"{objects.location}: the repository has no virtual chunk container for"
            f" {_prefix(folder)!r}, only for: {listed(containers) or 'none'}"
        )
    if next(objects.keys(), None) is not None:
        raise StoreExists(f"{objects.location} is not empty; give another target")
    return objects


def _made(path: Path, folder: Path) -> Any:  # noqa: ANN401 - icechunk may not be installed
    """Return the repository in a folder, a new one or one to which nothing was committed."""
    import icechunk

    storage = icechunk.local_filesystem_storage(str(path))
    if path.exists() and not path.is_dir():
        raise StoreExists(f"{path} exists; give a new folder")
    if path.is_dir() and any(path.iterdir()) and not icechunk.Repository.exists(storage):
        raise StoreExists(f"{path} exists and is no icechunk repository; give a new folder")
    config = icechunk.RepositoryConfig.default()
    files = icechunk.local_filesystem_store(str(folder))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(_prefix(folder), files))
    repo = icechunk.Repository.open_or_create(storage, config=config)
    if next(open_objects(repo.readonly_session("main").store).keys(), None) is not None:
        raise StoreExists(f"{path} holds an icechunk repository that is not empty")
    repo.save_config()
    return repo


def _write(
    objects: SessionObjects,
    masks: MaskSource,
    identity: Mapping[str, Any],
    references: xr.Variable,
) -> None:
    """Write references to the chunks and the labels, and commit them."""
    import zarr

    path = _hdf5(masks)
    columns = masks.coordinates()
    dataset = xr.Dataset({MASKS: references})
    # Whole seconds are kept.
    written = datetime.fromtimestamp(math.ceil(path.stat().st_mtime), UTC)
    dataset.vz.to_icechunk(objects.store, last_updated_at=written)
    group = zarr.open_group(objects.store, mode="a", zarr_format=3)
    for name in COLUMNS:
        create_coordinate(group, name, columns[name])
    created = now()
    what = f"virtualized {path.name} and {masks.metadata_path.name}"
    group.attrs.update(
        {
            "Conventions": "CF-1.11",
            "title": "LAION-fMRI object masks",
            "history": f"{created} {generator()}: {what}",
            ATTRIBUTE: {
                "format_version": 1,
                "generator": generator(),
                "created": created,
                "location": f"file://{path}",
                "source": identity,
                "values": _checksums(columns),
            },
        }
    )
    commit_session(objects, f"{generator()}: {what}; {masks.layout.n_masks:,} masks")


def _hdf5(masks: MaskSource) -> Path:
    """Return the path of the HDF5, which is on this machine, without links."""
    return Path(str(masks.path)).resolve()


def _checksums(columns: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
    return {name: list(Piece.of(value_bytes(name, columns[name]))) for name in COLUMNS}


def _references(
    masks: MaskSource, offsets: NDArray[np.uint64], lengths: NDArray[np.uint64]
) -> xr.Variable:
    """Return the masks as references to the chunks of the HDF5.

    VirtualiZarr's own parser of HDF5 would follow whatever else the file links to.
    """
    from virtualizarr.manifests import ChunkManifest, ManifestArray
    from virtualizarr.manifests.utils import create_v3_array_metadata

    settings = {"shuffle": {"elementsize": 1}, "gzip": {"level": 4}, "fletcher32": {}}
    codecs: list[dict[str, Any]] = [
        {"name": CODECS[name], "configuration": settings[name]} for name in masks.file.filters
    ]
    described = create_v3_array_metadata(
        shape=masks.layout.shape,
        data_type=np.dtype(np.uint8),
        chunk_shape=masks.file.chunks,
        fill_value=0,
        codecs=codecs,
        dimension_names=DIMS,
    )
    location = f"file://{_hdf5(masks)}"
    manifest = ChunkManifest.from_arrays(
        paths=np.full(offsets.shape, location, np.dtypes.StringDType()),
        offsets=offsets,
        lengths=lengths,
    )
    attributes = {**MASK_ATTRIBUTES, "coordinates": " ".join(COLUMNS)}
    return xr.Variable(DIMS, ManifestArray(described, manifest), attributes)
