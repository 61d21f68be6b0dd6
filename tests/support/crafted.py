"""Files of numpy that would run code, or take all memory, when they are unpickled."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

__all__ = ["Crafted", "crafted", "npy_of", "write_npy"]


class Crafted(NamedTuple):
    """A file that must be refused."""

    name: str
    pickled: bytes
    told: str
    """A part of what must be said of it."""
    fires: bool = False
    """Whether it runs its command where it is unpickled."""


def npy_of(pickled: bytes, shape: tuple[int, ...] = ()) -> bytes:
    """Return a .npy of an array of objects."""
    header = f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}"
    text = header.ljust(117).encode() + b"\n"
    return npy.magic(1, 0) + struct.pack("<H", len(text)) + text + pickled


def write_npy(path: Path, tree: object, protocol: int = 4) -> bytes:
    """Write what ``np.save`` writes of an object, by any protocol; return the bytes."""
    whole = np.empty((), object)
    whole[()] = tree
    data = npy_of(pickle.dumps(whole, protocol))
    path.write_bytes(data)
    return data


class _Call:
    """What is pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def _whole(tree: object, protocol: int = 4) -> bytes:
    whole = np.empty((), object)
    whole[()] = tree
    return pickle.dumps(whole, protocol)


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _named(module: str, name: str) -> bytes:
    return _text(module) + _text(name) + b"\x93"


_DTYPE = _named("numpy", "dtype") + _text("f8") + b"\x89\x88\x87R"
_STATE = b"(K\x03" + _text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
_F8 = _DTYPE + _STATE + b"b"
_ARRAY = _named("numpy._core.multiarray", "_reconstruct") + _named("numpy", "ndarray")
_ARRAY += b"K\x00\x85C\x01b\x87R"


def _dtype(name: str, state: bytes = _STATE) -> bytes:
    return _named("numpy", "dtype") + _text(name) + b"\x89\x88\x87R" + state + b"b"


def _array(
    shape: bytes, dtype: bytes = _F8, order: bytes = b"\x89", data: bytes = b"C\x00"
) -> bytes:
    return _ARRAY + b"(K\x01" + shape + dtype + order + data + b"tb"


def _integer(value: int) -> bytes:
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + data


def crafted(command: str) -> Iterator[Crafted]:
    """Yield files that would run a command of the shell, or do other harm."""
    yield from _calls(command)
    yield from _opcodes(command)
    yield from _bombs()
    yield from _arrays()


def _calls(command: str) -> Iterator[Crafted]:
    system = _Call(os.system, command)
    code = f"__import__('os').system({command!r})"
    for protocol in (2, 3, 4, 5):
        told = f"{os.system.__module__}.system"
        yield Crafted(f"system by protocol {protocol}", _whole(system, protocol), told, fires=True)
    deep = {"scaler_param": [({"mean_": np.ones(3)}, [system])], "pca_param": {}}
    yield Crafted("system deep inside", _whole(deep), ".system", fires=True)
    yield Crafted("after an array", _whole([np.ones(9), system]), ".system", fires=True)
    yield Crafted("eval", _whole(_Call(eval, code)), "builtins.eval", fires=True)
    yield Crafted("exec", _whole(_Call(exec, code)), "builtins.exec", fires=True)
    nested = _Call(getattr, _Call(__import__, "os"), "system")
    yield Crafted("getattr", _whole(_Call(map, nested, [command])), "builtins.map")
    got = _named("builtins", "getattr") + _named("builtins", "__import__") + _text("os") + b"\x85R"
    got += _text("system") + b"\x86R" + _text(command) + b"\x85R."
    yield Crafted("system by getattr", b"\x80\x04" + got, "builtins.getattr", fires=True)
    dotted = b"\x80\x04" + _named("shutil", "os.system") + _text(command) + b"\x85R."
    yield Crafted("a dotted name", dotted, "shutil.os.system", fires=True)
    hidden = b"\x80\x04" + _named("numpy", "_core.multiarray.scalar") + b")R."
    yield Crafted("a known name, cut elsewhere", hidden, "'numpy._core.multiarray.scalar'")
    names = "numpy.load numpy.fromfile numpy.f2py.compile numpy.matrix numpy.loadtxt"
    names += " numpy.testing._private.utils.runstring numpy.lib._npyio_impl.load numpy.core.records"
    names += " pickle.loads builtins.open builtins.getattr builtins.type functools.partial"
    names += " operator.attrgetter nibabel.load nibabel.loadsave.load joblib.load this.s nt.system"
    names += (
        " os.execv posix.system importlib.import_module builtins.bytearray copyreg.add_extension"
    )
    for name in names.split():
        module, _, attribute = name.rpartition(".")
        for asked in (_named(module, attribute), f"c{module}\n{attribute}\n".encode()):
            yield Crafted(f"{name} {asked[:1]!r}", b"\x80\x04" + asked + b")R.", f"{name!r}")


def _opcodes(command: str) -> Iterator[Crafted]:
    old = f"cposix\nsystem\n(S{command!r}\ntR.".encode()
    yield Crafted("protocol 0", old, "'posix.system'", fires=True)
    inst = f"(S{command!r}\niposix\nsystem\n.".encode()
    yield Crafted("INST", inst, "the opcode b'S'", fires=True)
    inst = b"(" + _text(command) + b"iposix\nsystem\n."
    yield Crafted("INST of a text", inst, "the opcode b'i'", fires=True)
    made = b"(cposix\nsystem\n" + _text(command) + b"o."
    yield Crafted("OBJ", made, "'posix.system'", fires=True)
    known = b"\x80\x04(" + _named("nibabel.nifti1", "Nifti1Header") + b"o."
    yield Crafted("OBJ of a known name", known, "the opcode b'o'")
    new = b"\x80\x04" + _named("nibabel.nifti1", "Nifti1Header") + b")}\x92."
    yield Crafted("NEWOBJ_EX", new, r"the opcode b'\x92'")
    for code in (b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"Pid\n", b"NQ"):
        yield Crafted(f"opcode {code!r}", b"\x80\x04" + code + b".", "the opcode")
    for code in (b"\x97", b"\x98", b"N0", b"N2", b"(1", b"\x8f", b"I1\n", b"\x00", b"\xff"):
        yield Crafted(f"opcode {code!r}", b"\x80\x05" + code + b".", "the opcode")
    state = b"\x80\x04" + _named("nibabel.nifti1", "Nifti1Header") + b"}b."
    yield Crafted("a state for a class", state, "a state for a Global")
    record = _named("nibabel.nifti1", "Nifti1Header") + b")\x81"
    yield Crafted("two states", b"\x80\x04" + record + b"}b}b.", "a state for a Record")
    yield Crafted("a state for a list", b"\x80\x04]}b.", "a state for a list")
    yield Crafted("a call of a text", b"\x80\x04" + _text("os.system") + b")R.", "a call of what")
    yield Crafted("a call of an object", b"\x80\x04" + record + b")R.", "a call of what")
    for name in ("numpy.ndarray", "numpy.memmap", "builtins.object"):
        made = b"\x80\x04" + _named(*name.split(".")) + b")\x81."
        yield Crafted(f"new {name}", made, f"a call of {name}")
    rebuilt = _named("copyreg", "_reconstructor") + _named("numpy", "dtype")
    rebuilt += _named("builtins", "object") + b"N\x87R."
    yield Crafted("a rebuilt type", b"\x80\x04" + rebuilt, "copyreg._reconstructor of")
    for encoding in ("rot13", "zlib", "idna"):
        made = _named("_codecs", "encode") + _text("a" * 99) + _text(encoding) + b"\x86R."
        yield Crafted(f"encoding {encoding}", b"\x80\x04" + made, "_codecs.encode of")
    yield Crafted("a protocol to come", b"\x80\x06N.", "a protocol that is not known")
    yield Crafted("no name", b"\x80\x02cos", "a name that does not end")
    yield Crafted("a number as a name", b"\x80\x04K\x01K\x02\x93.", "a name that is no text")


def _bombs() -> Iterator[Crafted]:
    huge = struct.pack("<Q", 2**63 - 1), struct.pack("<Q", 2**40), struct.pack("<Q", 2**64 - 1)
    for size in huge:
        for code in (b"\x8e", b"\x8d", b"\x96", b"\x95"):
            yield Crafted(f"{code!r} {size!r}", b"\x80\x04" + code + size + b"N.", "are left")
    for code in (b"B", b"X"):
        yield Crafted(f"{code!r} of 4 GiB", b"\x80\x04" + code + b"\xff" * 4 + b".", "are left")
    for digits in (2**31 - 1, 10_000, -1, -(2**31)):
        number = b"\x80\x04\x8b" + struct.pack("<i", digits) + bytes(20_000) + b"."
        yield Crafted(f"a number of {digits} bytes", number, f"a number of {digits:,} bytes")
    many = 100_000
    yield Crafted("lists in lists", b"\x80\x04" + b"]" * many + b"a" * many + b".", "deep")
    yield Crafted("tuples in tuples", b"\x80\x04)" + b"\x85" * many + b".", "deep")
    yield Crafted("marks", b"\x80\x04" + b"(" * many + b"t" * many + b".", "deep")
    laughs = b"]\x94" + b"".join(
        b"]\x94h" + bytes([n]) + b"h" + bytes([n]) + b"\x86a" for n in range(200)
    )
    yield Crafted("a billion laughs", b"\x80\x04" + laughs + b".", "deep")
    dicts = b"}" + _text("a") + b"}" + _text("b") + b"N"
    yield Crafted("dictionaries", b"\x80\x04" + (dicts + b"ss") * 200_000 + b".", "opcodes")
    yield Crafted("a million things", b"\x80\x04(" + b"N" * 10**6 + b"t.", "opcodes")
    told = "bytes of small things"
    texts = (b"X" + struct.pack("<I", 2**20) + bytes(2**20)) * 33
    yield Crafted("33 MiB of texts", b"\x80\x04(" + texts + b"t.", told)
    objects = _dtype("O8", _STATE.replace(_text("<"), _text("|"))) + b"\x94"
    listed = b"(](" + b"K\x00" * 50_000 + b"e\x94" + objects
    again = _ARRAY + b"(K\x01M\x50\xc3\x85h\x01\x89h\x00tb"
    yield Crafted("one list, often", b"\x80\x04" + listed + again * 500 + b"t.", told)
    text = b"(" + _text("a" * 2**16) + b"\x94"
    again = _named("_codecs", "encode") + b"h\x00" + _text("latin1") + b"\x86R"
    yield Crafted("one text, often", b"\x80\x04" + text + again * 1000 + b"t.", told)
    keys = b"}" + b")" + b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(30)) + b"Ns."
    yield Crafted("a key that takes for ever", b"\x80\x04" + keys, "a key of the type tuple")
    yield Crafted(
        "a huge key", b"\x80\x04}" + _integer(2**61 - 1 << 8) + b"Ns.", "a key of the type int"
    )
    deeper = (
        b"(" + _named("numpy._core.numeric", "_frombuffer") + b"q\x01" + objects[:-1] + b"q\x02"
    )
    deeper += b"]Naq\x03"
    step = b"h\x01(h\x03h\x02K\x01\x85" + _text("C") + b"tRq\x04]h\x04aq\x03"
    yield Crafted("arrays in arrays", b"\x80\x04" + deeper + step * 100 + b"t.", "deep")
    yield Crafted("a list in itself", b"\x80\x04]\x94h\x00a.", "holds itself")
    yield Crafted("in itself, later", b"\x80\x04]\x94]\x94h\x00aa0.", "holds itself")
    yield Crafted("changed later", b"\x80\x04]\x94\x85h\x00Na.", "changed when it is complete")
    yield Crafted("nothing remembered", b"\x80\x04h\x07.", "never there")
    for code in (b".", b"a.", b"N\x86.", b"t.", b"e.", b"s.", b"R.", b"b.", b"\x94.", b"(\x85t."):
        yield Crafted(f"too few for {code!r}", b"\x80\x04" + code, "needs more than there is")
    yield Crafted("two ends", b"\x80\x04NN.", "an end before")
    yield Crafted("an open mark", b"\x80\x04(N.", "an end before")
    yield Crafted("bytes after the end", b"\x80\x04N.N", "1 more bytes after its end")
    yield Crafted("nothing", b"", "0 are left")
    yield Crafted("a dictionary by itself", b"\x80\x04}.", "its header promises")
    yield Crafted("keys for a list", b"\x80\x04](NNu.", "keys and values for what")
    yield Crafted("an odd number", b"\x80\x04}(Nu.", "keys and values for what")
    yield Crafted(
        "items for a text", b"\x80\x04" + _text("a") + b"Na.", "items for what is no list"
    )
    yield Crafted("no text", b"\x80\x04X\x01\x00\x00\x00\xff.", "says what cannot be")


def _arrays() -> Iterator[Crafted]:
    start = b"\x80\x04"
    eight = b"C\x08" + bytes(8)
    shapes = {
        "too large": b"M\xff\xff\x85",
        "an overflow": _integer(2**62) + _integer(2**62) + b"\x86",
        "an overflow to 0": _integer(2**32) + _integer(2**32) + b"\x86",
        "hidden by 0": _integer(2**62) + b"K\x00\x86",
        "negative": b"J\xff\xff\xff\xff\x85",
        "two negatives": b"J\xff\xff\xff\xff" * 2 + b"\x86",
        "a float": b"G" + struct.pack(">d", 1.0) + b"\x85",
        "a bool": b"\x88\x85",
        "a list": b"]",
        "a text": _text("1"),
        "none": b"N",
        "of 40 axes": b"(" + b"K\x01" * 40 + b"t",
        "of the wrong size": b"K\x02\x85",
    }
    for name, shape in shapes.items():
        yield Crafted(
            f"a shape {name}", start + _array(shape, data=eight) + b".", "an array of shape"
        )
    one = b"K\x01\x85"
    objects = _dtype("O8", _STATE.replace(_text("<"), _text("|")))
    told = "an array of objects of shape"
    yield Crafted("pointers", start + _array(one, objects, data=eight) + b".", told)
    yield Crafted(
        "too few objects", start + _array(b"M\xff\xff\x85", objects, data=b"]") + b".", told
    )
    for data in (b"]", b"N", _text("a" * 8), b"}"):
        yield Crafted(
            f"an array of {data!r}", start + _array(one, data=data) + b".", "in the place of"
        )
    yield Crafted("an array of no type", start + _array(one, _text("f8")) + b".", "of the type")
    yield Crafted("an array unordered", start + _array(one, order=b"N") + b".", "of the type")
    yield Crafted(
        "an array, two states", start + _array(one, data=eight) + b"}b.", "a state for a ndarray"
    )
    yield Crafted("an array, no state", start + _ARRAY + b".", "before it is described")
    yield Crafted("in a list, no state", start + b"]" + _ARRAY + b"a.", "before it is described")
    yield Crafted("in a tuple, no state", start + b"(" + _ARRAY + b"t.", "before it is described")
    yield Crafted("a short state", start + _ARRAY + b")b.", "an array with the state")
    other = _named("numpy._core.multiarray", "_reconstruct") + _named(
        "nibabel.nifti1", "Nifti1Image"
    )
    yield Crafted("another kind", start + other + b"K\x00\x85C\x01b\x87R.", "an array made of")
    for name in (
        "O,O",
        "f8,f8",
        "g",
        "f16",
        "M8[s]",
        "m8",
        "V0",
        "i3",
        "V99999",
        "U20000",
        "T",
        "f8\n",
        "<f8",
        "",
        "a",
    ):
        yield Crafted(f"type {name!r}", start + _dtype(name) + b".", f"the numpy type {name!r}")
    yield Crafted("no name of a type", start + _named("numpy", "dtype") + b")R.", "the numpy type")
    meta = b"(K\x04" + _text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00}t"
    yield Crafted("a type with metadata", start + _dtype("f8", meta) + b".", "with the state")
    for order in ("x", "<>", ""):
        state = _STATE.replace(_text("<"), _text(order))
        yield Crafted(
            f"byte order {order!r}", start + _dtype("f8", state) + b".", "in the byte order"
        )
    lies = b"(K\x03" + _text("<") + b"NNNK\x04K\x04K\x00t"
    yield Crafted("a size that lies", start + _dtype("f8", lies) + b".", "of 4 bytes")
    fields = {
        "of objects": objects + b"K\x00\x86",
        "outside": _F8 + b"K\x09\x86",
        "before": _F8 + b"J\xff\xff\xff\xff\x86",
        "far": _F8 + _integer(2**62) + b"\x86",
        "of no type": _text("f8") + b"K\x00\x86",
        "alone": b"N",
        "with a title": _F8 + b"K\x00" + _text("t") + b"\x87",
    }
    for name, field in fields.items():
        state = b"(K\x03" + _text("|") + b"N" + _text("a") + b"\x85}" + _text("a") + field + b"s"
        state += b"K\x10K\x01K\x10t"
        yield Crafted(f"a field {name}", start + _dtype("V16", state) + b".", "whose field 'a' is")
    sub = b"(K\x03" + _text("|") + _F8 + _integer(2**40) + b"\x85\x86NNK\x10K\x01K\x00t"
    yield Crafted("a huge type", start + _dtype("V16", sub) + b".", "a numpy type of shape")
    scalar = _named("numpy._core.multiarray", "scalar")
    yield Crafted(
        "a scalar object", start + scalar + objects + eight + b"\x86R.", "a scalar that is"
    )
    yield Crafted("a short scalar", start + scalar + _F8 + b"C\x01a\x86R.", "an array of shape ()")
    buffer = _named("numpy._core.numeric", "_frombuffer")
    made = buffer + b"(" + eight + _F8 + one + _text("A") + b"tR."
    yield Crafted("another order", start + made, "in the order 'A'")
    made = buffer + b"(" + eight + _F8 + one + _text("K") + b"K\x05\x85tR."
    yield Crafted("other axes", start + made, "in the order 'K'")
    wide = _dtype("U1", b"(K\x03" + _text("<") + b"NNNK\x04K\x04K\x08t")
    yield Crafted(
        "no characters",
        start + _array(one, wide, data=b"C\x04\xff\xff\xff\x7f") + b".",
        "texts that are none",
    )
