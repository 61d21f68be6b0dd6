"""Stores in icechunk: a conversion is one commit, and whatever ends early leaves no trace."""

from __future__ import annotations

import copy
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from reference import Source, break_chunk, put_value, write_source
from servers import SeaweedFS
from zarr.storage import MemoryStore

import maskcube
from maskcube.objects import open_objects
from maskcube.schema import COPY
from maskcube.transaction import TransactionStage


def _on_disk(folder: Path) -> icechunk.Repository:
    return icechunk.Repository.create(icechunk.local_filesystem_storage(str(folder / "repo")))


@pytest.fixture
def repo() -> icechunk.Repository:
    return icechunk.Repository.create(icechunk.in_memory_storage())


@pytest.fixture
def full(small: Source, repo: icechunk.Repository) -> icechunk.Repository:
    """Return a repository with the store of `small`."""
    maskcube.convert(small.folder, _writable(repo), progress=False)
    return repo


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_source(tmp_path_factory.mktemp("later"), n_masks=100, seed=3, change=_renamed)


def _renamed(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(image_name="later_" + table["image_name"])


def _writable(repo: icechunk.Repository) -> Any:
    return repo.writable_session("main").store


def _read(repo: icechunk.Repository) -> Any:
    return repo.readonly_session("main").store


def test_on_a_server_of_s3(seaweed: SeaweedFS, small: Source) -> None:
    given = seaweed.options
    storage = icechunk.s3_storage(
        bucket=seaweed.new_bucket(),
        prefix="repo",
        region=given["region"],
        endpoint_url=given["endpoint_url"],
        allow_http=True,
        force_path_style=True,
        access_key_id=given["key"],
        secret_access_key=given["secret"],
    )
    repo = icechunk.Repository.create(storage)
    maskcube.convert(small.folder, _writable(repo), progress=False)
    assert maskcube.verify(_read(repo), small.folder).n_compared == 150
    assert len(_messages(repo)) == 1
    np.testing.assert_array_equal(maskcube.open_masks(_read(repo))[60:70], small.masks[60:70])


def _messages(repo: icechunk.Repository) -> list[str]:
    """Return what was committed after the repository was made, the last first."""
    return [found.message for found in repo.ancestry(branch="main")][:-1]


def _values(place: Any) -> dict[str, Any]:
    """Return every array that plain zarr finds, the runs too."""
    members = dict(zarr.open_group(place, mode="r").members(max_depth=None))
    return {name: it[...] for name, it in members.items() if isinstance(it, zarr.Array)}


def _check_same(place: Any, other: Any, more: AbstractSet[str] = frozenset()) -> None:
    """Check that two stores have the same arrays, but for some more."""
    found, expected = _values(place), _values(other)
    assert found.keys() == expected.keys() | more
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, name)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_conversion_is_one_commit(
    small: Source, small_store: Path, repo: icechunk.Repository, tmp_path: Path, *, on_disk: bool
) -> None:
    repo = _on_disk(tmp_path) if on_disk else repo
    report = maskcube.convert(small.folder, _writable(repo), progress=False)
    assert (report.n_masks, report.n_shards) == (150, 3)
    [message] = _messages(repo)
    assert message == (
        f"maskcube {maskcube.info(_read(repo)).generator.split()[1]}: converted from"
        f" {small.hdf5.name} and {small.csv.name}; 150 masks"
    )
    _check_same(_read(repo), small_store)


def test_every_reader_reads_it(small: Source, small_store: Path, full: icechunk.Repository) -> None:
    place = _read(full)
    local = maskcube.open_masks(small_store, chunks=None)
    every: tuple[Any, ...] = (None, "auto", {})
    for chunks in every:
        masks = maskcube.open_masks(place, chunks=chunks)
        np.testing.assert_array_equal(masks, small.masks)
        xr.testing.assert_identical(masks.load(), local.load())
    table = small.by_row
    with maskcube.Segmentations(place) as segmentations:
        for row in range(len(table)):
            key = table.loc[row, ["image_name", "noun", "instance_id"]]
            np.testing.assert_array_equal(segmentations.get(*key), small.masks[row])
    assert maskcube.info(place).n_masks == 150
    assert maskcube.verify(place, small.folder).n_compared == 150
    boundaries, offsets = maskcube.runs(maskcube.open_masks(place))
    np.testing.assert_array_equal(
        maskcube.masks_from_runs(boundaries, offsets, small.masks.shape[1:]), small.masks
    )


def test_plain_xarray_reads_it(small: Source, full: icechunk.Repository) -> None:
    dataset = xr.open_zarr(_read(full), chunks=None)
    np.testing.assert_array_equal(dataset["masks"], small.masks)
    assert set(dataset.coords) == set(maskcube.open_masks(_read(full)).coords)
    assert dataset["noun"].to_numpy().tolist() == small.by_row["noun"].tolist()


def test_what_has_no_place_is_missed_by_nobody(full: icechunk.Repository) -> None:
    """The copy of the root metadata is no key of Zarr; everything else is there."""
    objects = open_objects(_read(full))
    assert objects.get(COPY) is None
    assert objects.get("zarr.json") is not None
    assert maskcube.verify(_read(full), repair=False).n_masks == 150


def test_ranges_end_where_the_object_does(full: icechunk.Repository) -> None:
    objects = open_objects(_read(full))
    key = "masks/c/0/0/0"
    whole = objects.get(key)
    assert whole is not None
    assert objects.size(key) == len(whole)
    for start, length in [(0, 5), (7, 9), (3, None), (len(whole) - 2, 9), (len(whole), 1), (0, 0)]:
        stop = None if length is None else start + length
        assert objects.get(key, start, length) == whole[start:stop]
    assert objects.get("masks/c/9/0/0") is None
    assert objects.size("masks/c/2/1/0") is None
    assert objects.get("nothing/zarr.json", 3) is None


def test_nothing_is_seen_before_the_commit(small: Source, repo: icechunk.Repository) -> None:
    seen = []

    session = repo.writable_session("main")
    promote = TransactionStage.promote

    def watched(stage: TransactionStage) -> None:
        seen.append(next(open_objects(_read(repo)).keys(), None))
        promote(stage)
        seen.append(next(open_objects(_read(repo)).keys(), None))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionStage, "promote", watched)
        maskcube.convert(small.folder, session.store, progress=False)
    assert seen == [None, "area/c/0"]


def test_an_empty_repository_is_no_store(repo: icechunk.Repository) -> None:
    with pytest.raises(maskcube.StoreNotFound, match="no mask store at icechunk snapshot"):
        maskcube.open_masks(_read(repo))


def test_a_session_ends_with_its_commit(small: Source, repo: icechunk.Repository) -> None:
    store = _writable(repo)
    maskcube.convert(small.folder, store, progress=False)
    np.testing.assert_array_equal(maskcube.open_masks(store, chunks=None), small.masks)
    with pytest.raises(maskcube.InvalidOption, match=r"ends with its commit.*writable_session"):
        maskcube.convert(small.folder, store, overwrite=True, progress=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_session_that_only_reads_is_refused(
    small: Source, full: icechunk.Repository, *, overwrite: bool
) -> None:
    with pytest.raises(maskcube.InvalidOption, match=r"can only be read.*writable_session"):
        maskcube.convert(small.folder, _read(full), overwrite=overwrite, progress=False)
    with pytest.raises(maskcube.InvalidOption, match="can only be read"):
        maskcube.convert(
            small.folder, _writable(full).with_read_only(read_only=True), progress=False
        )


def test_changes_of_others_are_not_committed(small: Source, repo: icechunk.Repository) -> None:
    session = repo.writable_session("main")
    zarr.create_group(session.store, attributes={"mine": 1})
    with pytest.raises(maskcube.InvalidOption, match=r"not committed.*commit or discard"):
        maskcube.convert(small.folder, session.store, overwrite=True, progress=False)
    assert session.has_uncommitted_changes
    assert zarr.open_group(session.store, mode="r").attrs["mine"] == 1


def test_a_fork_and_a_repository_are_refused(small: Source, full: icechunk.Repository) -> None:
    with pytest.raises(maskcube.InvalidOption, match="a fork, which cannot commit"):
        maskcube.convert(small.folder, full.writable_session("main").fork().store, progress=False)
    with pytest.raises(maskcube.InvalidOption, match="give the store of a session"):
        maskcube.open_masks(full)


def test_a_cluster_is_refused(small: Source, repo: icechunk.Repository) -> None:
    from distributed import Client

    refused = pytest.raises(maskcube.InvalidOption, match="a session that can write stays")
    where = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with Client(processes=False, n_workers=1, **where) as client, refused:
        maskcube.convert(small.folder, _writable(repo), client=client, progress=False)
    assert not _messages(repo)


def test_a_taken_target_is_refused(small: Source, full: icechunk.Repository) -> None:
    with pytest.raises(
        maskcube.StoreExists, match=r"holds a Zarr group, converted.*overwrite=True"
    ):
        maskcube.convert(small.folder, _writable(full), progress=False)
    assert len(_messages(full)) == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_group_is_never_replaced(
    small: Source, repo: icechunk.Repository, *, overwrite: bool
) -> None:
    session = repo.writable_session("main")
    zarr.create_group(session.store, attributes={"mine": 1})
    session.commit("theirs")
    error = maskcube.NotAMaskStore if overwrite else maskcube.StoreExists
    with pytest.raises(error, match="no mask store"):
        maskcube.convert(small.folder, _writable(repo), overwrite=overwrite, progress=False)
    assert _messages(repo) == ["theirs"]


def test_overwriting_is_one_commit(small: Source, later: Source, full: icechunk.Repository) -> None:
    before = maskcube.open_masks(_read(full), chunks=None)
    maskcube.convert(later.folder, _writable(full), overwrite=True, progress=False)
    assert len(_messages(full)) == 2
    expected = MemoryStore()
    maskcube.convert(later.folder, expected, progress=False)
    _check_same(_read(full), expected)
    assert maskcube.verify(_read(full), later.folder).n_compared == 100
    # Who has opened a version goes on reading that version.
    np.testing.assert_array_equal(before, small.masks)


@pytest.mark.parametrize(
    "spoil", [lambda source: put_value(source, 140, 7), lambda source: break_chunk(source, 140)]
)
def test_a_faulty_source_leaves_the_session_as_it_was(
    full: icechunk.Repository, tmp_path: Path, spoil: Callable[[Source], None]
) -> None:
    source = write_source(tmp_path / "faulty", chunks=(1, 24, 20), seed=5)
    spoil(source)
    session = full.writable_session("main")
    before = _values(_read(full))
    with pytest.raises(maskcube.SourceError, match="140"):
        maskcube.convert(source.folder, session.store, overwrite=True, progress=False)
    assert not session.has_uncommitted_changes
    assert len(_messages(full)) == 1
    np.testing.assert_array_equal(_values(session.store)["masks"], before["masks"])
    assert maskcube.verify(_read(full)).n_masks == 150


def test_of_two_writers_one_is_told(
    small: Source, later: Source, full: icechunk.Repository
) -> None:
    second = _writable(full)
    maskcube.append(later.folder, _writable(full), progress=False)
    with pytest.raises(maskcube.StoreChanged, match=r"committed to by somebody else.*new session"):
        maskcube.convert(small.folder, second, overwrite=True, progress=False)
    assert len(_messages(full)) == 2
    assert maskcube.verify(_read(full), [small.folder, later.folder]).n_compared == 250


_CONVERT = """
import os, signal, sys
import icechunk, maskcube
from maskcube.session import SessionObjects

folder, source, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
put, n_puts = SessionObjects.put, 0

def counted(self, key, data):
    global n_puts
    put(self, key, data)
    n_puts += 1
    if n_puts == last:
        os.kill(os.getpid(), signal.SIGKILL)

SessionObjects.put = counted
repo = icechunk.Repository.open(icechunk.local_filesystem_storage(folder))
maskcube.convert(source, repo.writable_session("main").store, overwrite=True, progress=False)
assert n_puts > 20
"""


def test_a_killed_conversion_leaves_main_as_it_was(
    small: Source, later: Source, small_store: Path, tmp_path: Path
) -> None:
    repo = _on_disk(tmp_path)
    maskcube.convert(later.folder, _writable(repo), progress=False)
    before, [message] = _values(_read(repo)), _messages(repo)
    command = [sys.executable, "-c", _CONVERT, str(tmp_path / "repo"), str(small.folder)]
    # After the first shard; in the midst of the rest.
    for last in (2, 20):
        killed = subprocess.run([*command, str(last)], capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert _messages(repo) == [message]
        np.testing.assert_array_equal(_values(_read(repo))["masks"], before["masks"])
        assert maskcube.verify(_read(repo), later.folder).n_compared == 100
    done = subprocess.run([*command, "-1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(_messages(repo)) == 2
    _check_same(_read(repo), small_store)


def test_append_is_one_commit(small: Source, later: Source, full: icechunk.Repository) -> None:
    session = full.writable_session("main")
    # Arrays of others stay.
    zarr.open_group(session.store, mode="a").create_array("mine", data=np.arange(3))
    session.commit("an array of mine")
    report = maskcube.append(later.folder, _writable(full), progress=False)
    assert (report.n_masks, report.n_added) == (250, 100)
    assert _messages(full)[0].endswith(f"appended {later.hdf5.name} from row 150 on; 250 masks")
    assert len(_messages(full)) == 3
    expected = MemoryStore()
    maskcube.convert(small.folder, expected, progress=False)
    maskcube.append(later.folder, expected, progress=False)
    _check_same(_read(full), expected, more={"mine"})
    assert maskcube.verify(_read(full), [small.folder, later.folder]).n_compared == 250


def test_update_is_one_commit(small: Source, full: icechunk.Repository) -> None:
    labels: Any = small.by_row.loc[70, ["image_name", "noun", "instance_id"]]
    image, noun, instance = labels
    mask = small.masks[70].copy()
    mask[:12] = 0
    assert maskcube.update(_writable(full), image, noun, instance, mask).changed
    assert _messages(full)[0].endswith("updated mask 70; 150 masks")
    masks = maskcube.open_masks(_read(full), chunks=None)
    np.testing.assert_array_equal(masks[70], mask)
    assert maskcube.verify(_read(full), small.folder).n_updated == 1
    # The same again changes nothing, and commits nothing.
    assert not maskcube.update(_writable(full), image, noun, instance, mask).changed
    assert len(_messages(full)) == 2
    first = list(full.ancestry(branch="main"))[1].id
    old = maskcube.open_masks(full.readonly_session(snapshot_id=first).store, chunks=None)
    np.testing.assert_array_equal(old, small.masks)


def test_others_may_add_attributes(small: Source, later: Source, full: icechunk.Repository) -> None:
    """Plain zarr leaves the metadata of the arrays out of the root when it writes to icechunk."""
    session = full.writable_session("main")
    zarr.open_group(session.store, mode="a").attrs["mine"] = 1
    session.commit("an attribute of mine")
    np.testing.assert_array_equal(maskcube.open_masks(_read(full)), small.masks)
    assert maskcube.verify(_read(full), small.folder).n_compared == 150
    maskcube.append(later.folder, _writable(full), progress=False)
    assert zarr.open_group(_read(full), mode="r").attrs["mine"] == 1
    assert maskcube.verify(_read(full), [small.folder, later.folder]).n_compared == 250


def test_damage_is_found_and_mended_by_one_commit(small: Source, full: icechunk.Repository) -> None:
    session = full.writable_session("main")
    damaged = bytearray(open_objects(session.store).get("masks/c/1/0/0") or b"")
    damaged[100] ^= 1
    open_objects(session.store, read_only=False).put("masks/c/1/0/0", bytes(damaged))
    open_objects(session.store).delete("score/c/0")
    session.commit("damage")
    with pytest.raises(maskcube.VerificationError, match="coordinate 'score' is missing") as caught:
        maskcube.verify(_read(full))
    assert [mask.row for mask in caught.value.masks] == [64]
    with pytest.raises(maskcube.InvalidOption, match="can only be read"):
        maskcube.verify(_read(full), small.folder, repair=True)
    report = maskcube.verify(_writable(full), small.folder, repair=True)
    assert set(report.repaired) == {"masks/c/1/0/0", "score/c/0"}
    assert _messages(full)[0].endswith(": repaired")
    assert len(_messages(full)) == 3
    assert maskcube.verify(_read(full), small.folder).n_compared == 150


def test_a_lost_shard_is_an_error(full: icechunk.Repository) -> None:
    session = full.writable_session("main")
    open_objects(session.store).delete("masks/c/1/0/0")
    session.commit("loss")
    with pytest.raises(maskcube.CorruptMask, match=r"shard 1: it is missing; cannot read mask 64"):
        maskcube.open_masks(_read(full), chunks=None)[64].load()


def test_a_version_can_be_sent_to_others(small: Source, tmp_path: Path) -> None:
    repo = _on_disk(tmp_path)
    maskcube.convert(small.folder, _writable(repo), progress=False)
    for chunks in (None, "auto"):
        masks = maskcube.open_masks(_read(repo), chunks=chunks)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(masks)), small.masks)  # noqa: S301 - our own
    writable = maskcube.open_masks(_writable(repo), chunks=None)
    np.testing.assert_array_equal(copy.deepcopy(writable), small.masks)
    lazy = maskcube.open_masks(_writable(repo))
    with pytest.raises(maskcube.InvalidOption, match=r"stays in its process.*readonly_session"):
        pickle.dumps(lazy)
