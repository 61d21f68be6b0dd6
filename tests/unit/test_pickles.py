"""What numpy has pickled, read in place."""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from crafted import npy_of, write_npy
from memory import peak_of
from numpy.lib import format as npy
from numpy.typing import NDArray

from maskcube.insilico.errors import CorruptWeights, ModelLoadError
from maskcube.insilico.pickles import read_npy
from maskcube.insilico.stand_ins import Blob, Record

LARGE = (300, 70)
"""Of an array above 64 KiB."""


def _base(array: NDArray[Any]) -> object:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">i8", "?"])
def test_a_large_array_stays_in_the_file(
    protocol: int, order: Any, dtype: str, tmp_path: Path
) -> None:
    values = np.arange(21_000).reshape(LARGE) % 251
    array = values.astype(dtype, order=order)
    data = write_npy(tmp_path / "a.npy", {"coef_": array, "n": 7}, protocol)
    found = read_npy(tmp_path / "a.npy")
    assert found["n"] == 7
    assert found["coef_"].dtype == np.dtype(dtype)
    assert found["coef_"].flags.f_contiguous is (order == "F")
    np.testing.assert_array_equal(found["coef_"], array)
    if protocol > 2 and array.nbytes > 2**16:
        # In protocol 2 bytes are the characters of a text, and must be turned.
        assert isinstance(_base(found["coef_"]), mmap.mmap)
        path = tmp_path / "a.npy"
        with path.open("r+b") as file:
            file.seek(data.index(array.tobytes(order)))
            file.write(np.full(1, 99, dtype).tobytes())
        assert found["coef_"][0, 0] == np.full(1, 99, dtype)[0]


def test_arrays_cannot_be_written_to(tmp_path: Path) -> None:
    tree = {"small": np.ones(3), "large": np.ones(LARGE), "objects": np.array([1, "a"], object)}
    write_npy(tmp_path / "a.npy", tree)
    for array in read_npy(tmp_path / "a.npy").values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_what_is_the_same_stays_the_same(tmp_path: Path) -> None:
    array, shared = np.ones(3), [1]
    write_npy(tmp_path / "a.npy", {"a": array, "b": array, "c": shared, "d": (shared,)})
    found = read_npy(tmp_path / "a.npy")
    assert found["a"] is found["b"]
    assert found["c"] is found["d"][0]


def test_other_large_bytes_are_left_where_they_are(tmp_path: Path) -> None:
    data = bytes(range(256)) * 300
    whole = write_npy(tmp_path / "a.npy", {"bytes": data, "short": b"a" * 2**16})
    found = read_npy(tmp_path / "a.npy")
    assert found["bytes"] == Blob(whole.index(data), len(data))
    assert found["short"] == b"a" * 2**16


def test_a_header_of_nibabel_is_what_is_said_of_it(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((3, 4, 5)), np.diag([2.5, 2.5, 2.5, 1]))
    image.get_fdata()
    image.header["descrip"] = b"a test"
    write_npy(tmp_path / "a.npy", {"header": image.header, "image": image})
    code = "import sys\nfrom maskcube.insilico.pickles import read_npy\n"
    code += f"read_npy({str(tmp_path / 'a.npy')!r})\nassert 'nibabel' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    found = read_npy(tmp_path / "a.npy")
    assert isinstance(found["header"], Record)
    assert found["header"].name == "nibabel.nifti1.Nifti1Header"
    assert found["header"].state["_structarr"].tobytes() == image.header.binaryblock
    np.testing.assert_array_equal(found["image"].state["_affine"], image.affine)
    assert found["image"].state["_dataobj"].shape == (3, 4, 5)


def test_an_image_of_a_file_is_what_is_said_of_it(tmp_path: Path) -> None:
    nibabel.Nifti1Image(np.ones((3, 4, 5)), np.eye(4)).to_filename(tmp_path / "a.nii")
    image = nibabel.load(tmp_path / "a.nii")
    write_npy(tmp_path / "a.npy", [image])
    (found,) = read_npy(tmp_path / "a.npy")
    assert found.state["_dataobj"].name == "nibabel.arrayproxy.ArrayProxy"


def test_old_ways_to_make_an_object(tmp_path: Path) -> None:
    """By copyreg, as of protocols 0 and 1, and by the type itself."""
    names = b"ccopyreg\n_reconstructor\ncnibabel.nifti1\nNifti1Header\nc__builtin__\nobject\nN\x87R"
    tree = b"\x80\x02" + _object_array(names + b"}b")
    (tmp_path / "a.npy").write_bytes(npy_of(tree))
    found = read_npy(tmp_path / "a.npy")
    assert (found.name, found.state) == ("nibabel.nifti1.Nifti1Header", {})


def _object_array(item: bytes) -> bytes:
    """Return the pickle of an array that holds something."""
    whole = np.empty((), object)
    made = pickle.dumps(whole, 2)[2:]
    assert made.count(b"Na") == 1
    return made.replace(b"Na", item + b"a")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">u2", "?", "<c16"])
def test_numbers_are_mapped(dtype: str, order: Any, tmp_path: Path) -> None:
    array = (np.arange(24).reshape(4, 6) % 2).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    found = read_npy(str(tmp_path / "a.npy"))
    assert isinstance(_base(found), mmap.mmap)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_a_header_of_version_2(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        npy.write_array(file, np.arange(5), (2, 0))
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), np.arange(5))


def _headed(header: str, data: bytes = b"") -> bytes:
    return npy.magic(1, 0) + struct.pack("<H", len(header)) + header.encode() + data


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"

SPOILT = {
    "another magic": b"PK\3\4" + bytes(100),
    "version 3": npy.magic(3, 0) + bytes(100),
    "cut in the magic": b"\x93NUM",
    "cut in the length": npy.magic(2, 0) + b"\1",
    "cut in the header": _headed(GOOD)[:-5],
    "a huge header": npy.magic(2, 0) + struct.pack("<I", 2**32 - 1) + bytes(20_000),
    "a long header": npy.magic(2, 0) + struct.pack("<I", 20_000) + bytes(20_000),
    "no dictionary": _headed("[1, 2]"),
    "no constants": _headed("{'descr': __import__('os')}"),
    "deep": _headed("(" * 5000),
    "null bytes": _headed("\0" * 50),
    "other keys": _headed(GOOD.replace("descr", "dtype"), bytes(8)),
    "more keys": _headed(GOOD.replace("}", ", 'a': 1}"), bytes(8)),
    "too few bytes": _headed(GOOD, bytes(7)),
    "too many bytes": _headed(GOOD, bytes(9)),
    "a huge shape": _headed(GOOD.replace("(2,)", "(2**62,)".replace("2**62", str(2**62)))),
    "a negative shape": _headed(GOOD.replace("(2,)", "(-2, -1)"), bytes(8)),
    "a shape of floats": _headed(GOOD.replace("(2,)", "(2.0,)"), bytes(8)),
    "a shape that is none": _headed(GOOD.replace("(2,)", "2"), bytes(8)),
    "an order that is none": _headed(GOOD.replace("False", "0"), bytes(8)),
    "a type that is none": _headed(GOOD.replace("'<f4'", "4"), bytes(8)),
    "fields": _headed(GOOD.replace("'<f4'", "[('a', '<f4')]"), bytes(8)),
    "another type": _headed(GOOD.replace("<f4", "<M8[s]"), bytes(16)),
    "no such type": _headed(GOOD.replace("<f4", "<f5"), bytes(10)),
    "another shape than its pickle": npy_of(pickle.dumps(np.empty(2, object)), (3,)),
    "another kind than its pickle": npy_of(pickle.dumps(np.empty(2)), (2,)),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(SPOILT[name])
    with pytest.raises(CorruptWeights, match="nothing of it was run") as raised:
        read_npy(path)
    assert str(raised.value).startswith(f"{path}: it")
    assert len(str(raised.value)) < 600


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot be read: No such file"):
        read_npy(tmp_path / "none.npy")
    with pytest.raises(ModelLoadError, match="is no file"):
        read_npy(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelLoadError, match="is no file"):
        read_npy(tmp_path / "pipe")
    (tmp_path / "empty.npy").touch()
    with pytest.raises(CorruptWeights, match="is empty"):
        read_npy(tmp_path / "empty.npy")


def test_a_large_file_takes_no_memory(tmp_path: Path) -> None:
    """Two gigabytes of zeros that are not on the disk."""
    path, size = tmp_path / "a.npy", 2**31
    small = np.ones(2**17, np.uint8)
    data = write_npy(path, {"a": small, "b": "after"})
    head, tail = data.split(small.tobytes())
    # 2**17 as bytes of the array and as its shape become the larger size.
    assert head.endswith(b"B" + struct.pack("<I", 2**17))
    assert head.count(b"J" + struct.pack("<i", 2**17)) == 1
    head = head[:-5] + b"\x8e" + struct.pack("<Q", size)
    larger = b"\x8a\x05" + size.to_bytes(5, "little")
    head = head.replace(b"J" + struct.pack("<i", 2**17), larger)
    with path.open("wb") as file:
        file.write(head)
        file.seek(size, os.SEEK_CUR)
        file.write(tail)
    code = f"from maskcube.insilico.pickles import read_npy\nfound = read_npy({str(path)!r})\n"
    code += f"assert found['a'].shape == ({size},) and found['b'] == 'after'\n"
    code += f"assert found['a'][{size} - 1] == 0"
    assert peak_of(code) < 2**27


@pytest.mark.parametrize("name", ["|O", "<f8"])
def test_a_shape_of_thousands_of_digits_is_refused(name: str, tmp_path: Path) -> None:
    """Python does not even say such a number."""
    shape = f"(0x{'f' * 8000},)"
    text = f"{{'descr': '{name}', 'fortran_order': False, 'shape': {shape}}}".encode()
    whole = np.empty((), object)
    data = npy.magic(1, 0) + struct.pack("<H", len(text)) + text + pickle.dumps(whole, 4)
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(CorruptWeights, match="huge numbers"):
        read_npy(tmp_path / "a.npy")
