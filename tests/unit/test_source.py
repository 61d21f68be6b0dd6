"""The source: where its two files are, and whether they agree."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from reference import CSV, HDF5, Source, break_chunk, put_value, write_source

from maskcube.conversion import convert
from maskcube.errors import InvalidOption, SourceError, SourceNotFound
from maskcube.source import MaskSource, stray_values

Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return write_source(tmp_path / "data", n_masks=20, chunks=(1, 24, 20))


def changed(folder: Path, change: Change, n_masks: int = 20) -> Source:
    return write_source(folder / "data", n_masks=n_masks, chunks=(3, 24, 20), change=change)


def faults_of(source: Source, *, allow_duplicates: bool = False) -> list[str]:
    with MaskSource(source.folder, allow_duplicates=allow_duplicates) as masks:
        return masks.faults


def first(table: pd.DataFrame, column: str, values: list[object]) -> pd.DataFrame:
    """Replace the first values of a column."""
    return table.assign(**{column: [*values, *table[column][len(values) :]]})


class TestPlace:
    @pytest.mark.parametrize("name", [".", "stimuli", f"stimuli/{HDF5}"])
    def test_a_folder_or_the_hdf5(self, source: Source, name: str) -> None:
        for given in (source.folder / name, str(source.folder / name)):
            with MaskSource(given) as masks:
                assert (masks.path, masks.metadata_path) == (source.hdf5, source.csv)
                assert masks.layout.shape == (20, 24, 20)
                assert not masks.faults

    def test_stimuli_come_first(self, source: Source, tmp_path: Path) -> None:
        write_source(tmp_path, n_masks=5)
        (tmp_path / "stimuli" / HDF5).rename(tmp_path / HDF5)
        (tmp_path / "stimuli" / CSV).rename(tmp_path / CSV)
        assert MaskSource(tmp_path).layout.n_masks == 5
        source.hdf5.parent.rename(tmp_path / "stimuli.new")
        (tmp_path / "stimuli").rmdir()
        (tmp_path / "stimuli.new").rename(tmp_path / "stimuli")
        assert MaskSource(tmp_path).layout.n_masks == 20

    def test_other_names(self, source: Source, tmp_path: Path) -> None:
        hdf5 = source.hdf5.rename(tmp_path / "my.masks.v2.hdf5")
        csv = source.csv.rename(tmp_path / "my.masks.v2_metadata.csv")
        with MaskSource(hdf5) as masks:
            assert masks.metadata_path == csv

    def test_metadata_elsewhere(self, source: Source, tmp_path: Path) -> None:
        csv = source.csv.rename(tmp_path / "elsewhere.txt")
        for given in (csv, str(csv)):
            with MaskSource(source.folder, given) as masks:
                assert masks.metadata_path == csv
                assert not masks.faults

    def test_metadata_comes_before_the_csv_beside(self, source: Source, tmp_path: Path) -> None:
        other = tmp_path / "other.csv"
        source.table.assign(noun="other").to_csv(other, index=False)
        with MaskSource(source.folder, other) as masks:
            assert set(masks.table["noun"]) == {"other"}

    def test_home(self, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(source.folder.parent))
        monkeypatch.setenv("USERPROFILE", str(source.folder.parent))
        with MaskSource("~/data", f"~/data/stimuli/{CSV}") as masks:
            assert (masks.path, masks.metadata_path) == (source.hdf5, source.csv)

    def test_a_relative_path_outlives_a_change_of_folder(
        self, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(source.folder.parent)
        with MaskSource("data") as masks:
            masks.close()
            monkeypatch.chdir(source.hdf5.parent)
            found = masks.file.read_rows(np.arange(20))
        np.testing.assert_array_equal(found, source.masks)

    @pytest.mark.parametrize(
        "given",
        ["nothing", "nothing.h5", "nothing/", "", "data/stimuli/nothing", "~no-such-user/data"],
    )
    def test_no_hdf5(self, source: Source, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(source.folder.parent)
        with pytest.raises(SourceNotFound, match="no HDF5 of masks; tried '") as missing:
            MaskSource(given)
        assert isinstance(missing.value, FileNotFoundError)

    def test_an_empty_folder_says_where_it_looked(self, tmp_path: Path) -> None:
        tried = [str(tmp_path / "stimuli" / HDF5), str(tmp_path / HDF5)]
        with pytest.raises(SourceNotFound) as missing:
            MaskSource(tmp_path)
        assert str(missing.value) == (
            f"{tmp_path}: no HDF5 of masks; tried {tried[0]!r}, {tried[1]!r}"
        )

    @pytest.mark.parametrize("metadata", [None, "nothing.csv", "."])
    def test_no_csv(self, source: Source, metadata: str | None) -> None:
        source.csv.unlink()
        with pytest.raises(FileNotFoundError, match=r"no CSV at '.*'; say where .* metadata='"):
            MaskSource(source.folder, metadata)

    def test_a_url_of_this_machine(self, source: Source) -> None:
        masks = MaskSource(f"file://{source.folder}", f"file://{source.csv}")
        assert (masks.path, masks.metadata_path) == (source.hdf5, source.csv)

    def test_options_without_a_url(self, source: Source) -> None:
        with pytest.raises(
            InvalidOption, match=r"source_options are for URLs; source='.*' is none"
        ):
            MaskSource(source.folder, options={"anon": True})

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("https://me:word@host/masks.h5?sign=word", "'https://host/masks.h5' and a query"),
            ("https://me:word@host/masks.h5#word", "'https://host/masks.h5' and a query or frag"),
            ("https://me:word@host/masks.csv", "names no file"),
            ("https://[me:word@host/", "a URL that cannot be understood"),
        ],
    )
    def test_a_url_that_cannot_be_asked(self, source: Source, url: str, why: str) -> None:
        csv = "https://me:word@host/" if url.endswith("csv") else None
        with pytest.raises(InvalidOption, match=why) as refused:
            MaskSource(source.folder if csv else url, csv)
        assert "word" not in str(refused.value)


class TestAgreement:
    """The CSV's rows against the HDF5's masks."""

    @pytest.mark.parametrize(
        ("change", "faults"),
        [
            (
                lambda table: table[:-2],
                [
                    "the HDF5 has 20 masks but the CSV has 18 rows",
                    "masks without a row in the CSV: 18, 19",
                ],
            ),
            (
                lambda table: table.drop(index=[0, 7]),
                [
                    "the HDF5 has 20 masks but the CSV has 18 rows",
                    "masks without a row in the CSV: 0, 7",
                ],
            ),
            (
                lambda table: table[15:16],
                [
                    "the HDF5 has 20 masks but the CSV has 1 rows",
                    ("masks without a row in the CSV: 0, 1, 2, 3, 4, 5, 6, 7, ... (19 in all)"),
                ],
            ),
            (
                lambda table: first(table, "mask_row", [0, 5]),
                ["mask_row more than once, as (line, mask_row): (3, 5), (7, 5)"],
            ),
            (
                lambda table: first(table, "mask_row", [-1, 1, 20, 2**63 - 1, -(2**63)]),
                [
                    (
                        "mask_row outside of the HDF5's 20 masks, as (line, mask_row):"
                        f" (2, -1), (4, 20), (5, {2**63 - 1}), (6, {-(2**63)})"
                    )
                ],
            ),
            (
                lambda table: table.assign(mask_row=table["mask_row"] + 1),
                ["mask_row outside of the HDF5's 20 masks, as (line, mask_row): (21, 20)"],
            ),
            (
                lambda table: table.assign(mask_row=3),
                [
                    (
                        "mask_row more than once, as (line, mask_row): (2, 3), (3, 3), (4, 3),"
                        " (5, 3), (6, 3), (7, 3), (8, 3), (9, 3), ... (20 in all)"
                    )
                ],
            ),
        ],
        ids=["last", "some", "all but one", "twice", "outside", "from one", "one row"],
    )
    def test_faults(self, tmp_path: Path, change: Change, faults: list[str]) -> None:
        source = changed(tmp_path, lambda table: change(table).assign(mask_file=""))
        assert faults_of(source) == faults

    def test_more_rows_than_masks(self, tmp_path: Path) -> None:
        def one_more(table: pd.DataFrame) -> pd.DataFrame:
            more = table[-1:].assign(mask_row=20, noun="more")
            return pd.concat([table, more]).assign(mask_file="")

        assert faults_of(changed(tmp_path, one_more)) == [
            "the HDF5 has 20 masks but the CSV has 21 rows",
            "mask_row outside of the HDF5's 20 masks, as (line, mask_row): (22, 20)",
        ]

    def test_lines_are_those_of_the_file(self, tmp_path: Path) -> None:
        """Most `mask_file` hold a line break, so that rows and lines differ."""
        source = changed(tmp_path, lambda table: first(table, "mask_row", [0, 1, 2, 3, 4, 6]))
        (fault,) = faults_of(source)
        assert fault == "mask_row more than once, as (line, mask_row): (11, 6), (13, 6)"
        for line in (11, 13):
            text = source.csv.read_text(encoding="utf-8").split("\n")[line - 1]
            assert text.startswith("6,")

    @pytest.mark.parametrize("broken", ["19,2,3", "19,a.jpg,,0,1,1,1,1,1,1,f"])
    def test_rows_with_faults_are_not_counted_again(self, tmp_path: Path, broken: str) -> None:
        source = changed(tmp_path, lambda table: table.assign(mask_file=""))
        lines = source.csv.read_text(encoding="utf-8").splitlines()
        source.csv.write_text("\n".join([*lines[:-1], broken]), encoding="utf-8")
        (fault,) = faults_of(source)
        assert fault.startswith(f"{CSV}: ")

    def test_two_unclosed_quotes_lose_a_row(self, tmp_path: Path) -> None:
        """The second closes the first: to the csv module this is one row with an odd noun."""
        source = changed(
            tmp_path, lambda table: table.assign(noun="hand", instance_id=range(20), mask_file="")
        )
        lines = source.csv.read_text(encoding="utf-8").split("\n")
        lines[5] = lines[5].replace("hand", '"hand')
        lines[6] = lines[6].replace("hand", 'hand"')
        source.csv.write_text("\n".join(lines), encoding="utf-8")
        assert faults_of(source) == [
            "the HDF5 has 20 masks but the CSV has 19 rows",
            "masks without a row in the CSV: 5",
        ]


class TestDuplicates:
    @staticmethod
    def twins(table: pd.DataFrame) -> pd.DataFrame:
        table = first(table, "image_name", ["a.jpg"] * 4).assign(mask_file="")
        table = first(table, "noun", ["nan", "hand", "nan", "hand"])
        return first(table, "instance_id", [0, 0, 0, 1])

    def test_they_are_a_fault(self, tmp_path: Path) -> None:
        assert faults_of(changed(tmp_path, self.twins)) == [
            (
                "the same image, noun and instance twice: ('a.jpg', 'nan', 0), in lines 2, 4;"
                " allow_duplicates=True accepts them"
            )
        ]

    def test_unless_they_are_allowed(self, tmp_path: Path) -> None:
        source = changed(tmp_path, self.twins)
        assert not faults_of(source, allow_duplicates=True)
        with MaskSource(source.folder, allow_duplicates=True) as masks:
            masks.check()
            assert masks.by_row()["noun"].tolist() == source.by_row["noun"].tolist()

    def test_at_most_eight_are_shown(self, tmp_path: Path) -> None:
        source = changed(
            tmp_path,
            lambda table: table.assign(
                image_name=[f"{row // 2}.jpg" for row in range(20)], noun="hand", instance_id=0
            ),
        )
        (fault,) = faults_of(source)
        assert fault.count(".jpg") == 8
        assert "('7.jpg', 'hand', 0), ... (10 in all), in lines 2, 3, " in fault
        assert fault.count("in all") == 2

    @pytest.mark.parametrize(
        ("column", "values"),
        [
            ("noun", ["hand", "Hand"]),
            ("noun", ["hand", "hand "]),
            ("noun", ["\u00e9", "e\u0301"]),
            ("noun", ["7", "007"]),
            ("image_name", ["a.jpg", "a.JPG"]),
            ("instance_id", [0, 1]),
        ],
        ids=ascii,
    )
    def test_a_near_spelling_is_another(
        self, tmp_path: Path, column: str, values: list[object]
    ) -> None:
        def change(table: pd.DataFrame) -> pd.DataFrame:
            same = {"image_name": "a.jpg", "noun": "hand", "instance_id": 0}
            for name, value in same.items():
                table = first(table, name, [value, value])
            return first(table, column, values)

        assert not faults_of(changed(tmp_path, change))


class TestTable:
    def test_rows_in_any_order(self, tmp_path: Path) -> None:
        source = write_source(tmp_path, n_masks=60, sorted_rows=False)
        with MaskSource(tmp_path) as masks:
            masks.check()
            assert masks.table["mask_row"].tolist() == source.table["mask_row"].tolist()
            pd.testing.assert_frame_equal(masks.by_row(), source.by_row, check_dtype=False)

    def test_by_row_is_a_copy(self, source: Source) -> None:
        with MaskSource(source.folder) as masks:
            copy = masks.by_row()
            copy["noun"] = "other"
            assert masks.by_row()["noun"].tolist() == source.table["noun"].tolist()


class TestPixels:
    def test_good_pixels_are_not_read_to_be_checked(self, source: Source) -> None:
        for row in range(20):
            put_value(source, row, 7)
        with MaskSource(source.folder) as masks:
            masks.check()
            assert masks.pixel_faults()

    @pytest.mark.parametrize("chunks", [(1, 24, 20), (7, 24, 20), (20, 5, 3)], ids=str)
    def test_rows_and_values_are_named(self, tmp_path: Path, chunks: tuple[int, int, int]) -> None:
        source = write_source(tmp_path, n_masks=20, chunks=chunks, sorted_rows=False)
        put_value(source, 4, 255)
        put_value(source, 19, 2)
        heard: list[int] = []
        with MaskSource(tmp_path) as masks:
            assert masks.pixel_faults(heard.append) == [
                (
                    "pixels other than 0 and 1, as (mask_row, values): (4, [255]), (19, [2]);"
                    " normalize=True would take every value but 0 as 1"
                )
            ]
            assert masks.pixel_faults(normalize=True) == []
        assert sum(heard) == 20

    def test_at_most_eight_rows_and_values_are_shown(self, tmp_path: Path) -> None:
        source = write_source(tmp_path, n_masks=300)
        with h5py.File(source.hdf5, "r+") as file:
            file["masks"][3:] = np.arange(480).reshape(24, 20) % 256
        with MaskSource(tmp_path) as masks:
            (fault,) = masks.pixel_faults()
        shown = ", ".join(f"({row}, [2, 3, 4, 5, 6, 7, 8, 9])" for row in range(3, 11))
        assert fault == (
            f"pixels other than 0 and 1, as (mask_row, values): {shown}, ... (297 in all);"
            " normalize=True would take every value but 0 as 1"
        )

    def test_masks_that_cannot_be_read(self, source: Source) -> None:
        put_value(source, 3, 9)
        break_chunk(source, 2)
        break_chunk(source, 19)
        with MaskSource(source.folder) as masks:
            faults = masks.pixel_faults()
            assert masks.pixel_faults(normalize=True) == faults[:2]
        assert [re.sub(r"read: .*", "read", fault) for fault in faults[:2]] == [
            "mask 2 cannot be read",
            "mask 19 cannot be read",
        ]
        assert "(3, [9])" in faults[2]
        assert len(faults) == 3

    @pytest.mark.parametrize("broken", [8, 9, 20])
    def test_at_most_eight_of_them(self, source: Source, broken: int) -> None:
        for row in range(broken):
            break_chunk(source, row)
        with MaskSource(source.folder) as masks:
            faults = masks.pixel_faults()
        assert sum("cannot be read" in fault for fault in faults) == 8
        assert faults[8:] == ([f"... ({broken} such blocks of masks in all)"] if broken > 8 else [])

    @pytest.mark.parametrize(
        ("values", "stray"),
        [([0, 1], []), ([0], []), ([1], []), ([0, 2], [2]), ([255, 1, 0, 7, 7], [7, 255])],
        ids=str,
    )
    def test_stray_values(self, values: list[int], stray: list[int]) -> None:
        mask = np.resize(np.array(values, np.uint8), (4, 5))
        found = stray_values(mask)
        assert found == stray
        assert all(type(value) is int for value in found)


class TestEveryFaultAtOnce:
    @staticmethod
    def spoiled(folder: Path) -> Source:
        def change(table: pd.DataFrame) -> pd.DataFrame:
            table = first(table, "mask_row", [0, 2, 2, 40]).assign(mask_file="")
            table = first(table, "image_name", ["a.jpg", "a.jpg"])
            table = first(table, "noun", ["cup", "cup"])
            return first(table.astype({"score": object}), "score", [0.5, 0.5, 0.5, 0.5, "high"])

        source = changed(folder, lambda table: first(change(table), "instance_id", [0, 0]))
        put_value(source, 17, 128)
        return source

    EXPECTED = (
        f"{CSV}: column 'score' must be a finite number, or empty; as (line, found): (6, 'high')",
        "mask_row outside of the HDF5's 20 masks, as (line, mask_row): (5, 40)",
        "mask_row more than once, as (line, mask_row): (3, 2), (4, 2)",
        (
            "the same image, noun and instance twice: ('a.jpg', 'cup', 0), in lines 2, 3;"
            " allow_duplicates=True accepts them"
        ),
        (
            "pixels other than 0 and 1, as (mask_row, values): (17, [128]);"
            " normalize=True would take every value but 0 as 1"
        ),
    )

    def test_those_of_the_pixels_too(self, tmp_path: Path) -> None:
        source = self.spoiled(tmp_path)
        with MaskSource(source.folder) as masks:
            assert (*masks.faults, *masks.pixel_faults()) == self.EXPECTED
            with pytest.raises(SourceError) as refused:
                masks.check()
        seen = self.EXPECTED[:-1]
        assert refused.value.faults == seen
        assert str(refused.value) == "\n  - ".join([f"{source.hdf5}: 4 faults", *seen])

    def test_by_convert_all_of_them(self, tmp_path: Path) -> None:
        source = self.spoiled(tmp_path)
        with pytest.raises(SourceError) as refused:
            convert(source.folder, tmp_path / "masks.zarr", progress=False)
        assert refused.value.faults == self.EXPECTED

    def test_but_not_what_is_asked_for(self, tmp_path: Path) -> None:
        spoiled = self.spoiled(tmp_path).folder
        options = {"allow_duplicates": True, "normalize": True}
        with pytest.raises(SourceError) as refused:
            convert(spoiled, tmp_path / "masks.zarr", progress=False, **options)  # type: ignore[arg-type]
        assert refused.value.faults == self.EXPECTED[:3]

    def test_those_of_an_hdf5_that_cannot_be_used(self, source: Source) -> None:
        source.hdf5.write_bytes(b"no HDF5")
        source.csv.write_bytes(b"")
        with pytest.raises(SourceError) as refused:
            MaskSource(source.folder)
        assert refused.value.source == str(source.hdf5)
        assert refused.value.faults[0].startswith("cannot be read as HDF5: ")
        assert refused.value.faults[1:] == (f"{CSV}: is empty",)

    def test_numbers_are_shown_as_numbers(self, tmp_path: Path) -> None:
        spoiled = self.spoiled(tmp_path).folder
        with MaskSource(spoiled) as masks, pytest.raises(SourceError) as refused:
            masks.check()
        assert "np." not in str(refused.value)


class TestFingerprint:
    def test_it_says_what_the_files_are(self, source: Source) -> None:
        with MaskSource(source.folder) as masks:
            fingerprint = masks.fingerprint()
        assert fingerprint == {
            "masks": {
                "file": HDF5,
                "size_bytes": source.hdf5.stat().st_size,
                "sha256": hashlib.sha256(source.hdf5.read_bytes()).hexdigest(),
                "shape": [20, 24, 20],
                "chunks": [1, 24, 20],
                "filters": ["shuffle", "gzip"],
            },
            "metadata": {
                "file": CSV,
                "size_bytes": source.csv.stat().st_size,
                "sha256": hashlib.sha256(source.csv.read_bytes()).hexdigest(),
                "order": None,
            },
        }
        assert json.loads(json.dumps(fingerprint)) == fingerprint

    def test_the_order_of_an_unsorted_csv(self, tmp_path: Path) -> None:
        source = write_source(tmp_path, n_masks=30, sorted_rows=False)
        with MaskSource(tmp_path) as masks:
            order = masks.fingerprint()["metadata"]["order"]
            again = masks.by_row().iloc[order].reset_index(drop=True)
        assert order == source.table["mask_row"].tolist()
        assert again["mask_file"].tolist() == source.table["mask_file"].tolist()

    @pytest.mark.parametrize("n_masks", [1, 2])
    def test_few_masks(self, tmp_path: Path, n_masks: int) -> None:
        write_source(tmp_path, n_masks=n_masks)
        with MaskSource(tmp_path) as masks:
            assert masks.fingerprint()["metadata"]["order"] is None

    def test_one_other_pixel_is_another_source(self, source: Source) -> None:
        with MaskSource(source.folder) as masks:
            before = masks.fingerprint()
        put_value(source, 5, 1 - int(source.masks[5, 1, 2]))
        with MaskSource(source.folder) as masks:
            after = masks.fingerprint()
        assert before["masks"]["sha256"] != after["masks"]["sha256"]
        assert before["metadata"] == after["metadata"]


def test_it_is_closed_at_the_end(source: Source) -> None:
    with MaskSource(source.folder) as masks:
        pass
    source.hdf5.write_bytes(b"")
    with pytest.raises(OSError, match="file signature"):
        masks.file.dataset  # noqa: B018 - opens the file again
