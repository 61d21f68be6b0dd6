"""The opcodes of a pickle, as far as plain data needs them.

Those of protocols 2 to 5 [1]_. Nothing is imported and nothing of the pickle is called: names are
looked up in `maskcube.insilico.stand_ins`. What a container holds is complete when the container is
put into another one, and is not changed after that, so there are no loops, and none is too deep.

.. [1] https://docs.python.org/3/library/pickletools.html
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from maskcube.insilico.stand_ins import GLOBALS, Blob, Global, PickleFault, Record, Unbuilt

__all__ = ["Machine"]

_LONG_BYTES = 2**16
"""Strings of bytes longer than this are left in the file."""
_MOST_SMALL_BYTES = 2**25
_MOST_OPCODES = 400_000
_MOST_DEPTH = 64
_MOST_DIGITS = 64
_MOST_NAME_BYTES = 512
_LAST_PROTOCOL = 5
_LARGEST_KEY = 2**62


class Machine:
    """What a pickle builds.

    Parameters
    ----------
    file : mmap.mmap
        The file that it is in.
    start : int
        Where it begins; it ends with the file.
    """

    def __init__(self, file: mmap.mmap, start: int) -> None:
        self.at = start
        self._file = file
        self._end = len(file)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._heights: dict[int, int] = {}
        """How deep each container is, by its identity."""
        self._closed: set[int] = set()
        """Containers that are in another one."""
        self._kept: list[Any] = []
        """All containers: an identity is that of one of them only while they live."""
        self._small_bytes = 0

    def run(self) -> Any:  # noqa: ANN401 - whatever was pickled
        """Return what the pickle builds.

        Raises
        ------
        PickleFault
            When it asks for anything but plain data; at `at` bytes into the file.
        """
        for _ in range(_MOST_OPCODES):
            code = self._bytes(1)
            if code == b".":
                return self._result()
            if code not in self._ACTS:
                raise PickleFault(f"the opcode {code!r}")
            act, arguments = self._ACTS[code]
            act(self, *arguments)
        raise PickleFault(f"more than {_MOST_OPCODES:,} opcodes")

    def _result(self) -> Any:  # noqa: ANN401 - whatever was pickled
        value = self._pop()
        if self._stack or self._marks:
            raise PickleFault("an end before all is put together")
        if self.at != self._end:
            raise PickleFault(f"{self._end - self.at:,} more bytes after its end")
        return value

    # Bytes

    def _bytes(self, size: int) -> bytes:
        self._skip(size)
        return self._file[self.at - size : self.at]

    def _skip(self, size: int) -> None:
        if size > self._end - self.at:
            raise PickleFault(f"{size:,} bytes, where only {self._end - self.at:,} are left")
        self.at += size

    def _small(self, size: int) -> bytes:
        """Return bytes that are kept in memory."""
        self._small_bytes += size
        if self._small_bytes > _MOST_SMALL_BYTES and size <= self._end - self.at:
            raise PickleFault(f"more than {_MOST_SMALL_BYTES:,} bytes of small things")
        return self._bytes(size)

    def _number(self, layout: str) -> Any:  # noqa: ANN401 - int or float
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0]

    def _plain(self, layout: str) -> None:
        self._push(self._number(layout))

    def _integer(self, layout: str) -> None:
        size = self._number(layout)
        if not 0 <= size <= _MOST_DIGITS:
            raise PickleFault(f"a number of {size:,} bytes")
        self._push(int.from_bytes(self._bytes(size), "little", signed=True))

    def _string(self, layout: str) -> None:
        size = self._number(layout)
        if size <= _LONG_BYTES:
            self._push(self._small(size))
        else:
            self._skip(size)
            self._push(Blob(self.at - size, size))

    def _text(self, layout: str) -> None:
        self._push(self._small(self._number(layout)).decode("utf-8", "surrogatepass"))

    def _protocol(self) -> None:
        if self._number("B") > _LAST_PROTOCOL:
            raise PickleFault("a protocol that is not known")

    def _frame(self) -> None:
        size = self._number("<Q")
        if size > self._end - self.at:
            raise PickleFault(f"{size:,} bytes, where only {self._end - self.at:,} are left")

    # The stack

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _top(self) -> Any:  # noqa: ANN401 - whatever it is
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise PickleFault("an opcode that needs more than there is")
        return self._stack[-1]

    def _pop(self) -> Any:  # noqa: ANN401 - whatever it is
        value = self._top()
        if isinstance(value, Unbuilt):
            raise PickleFault("an array or a type that is used before it is described")
        return self._stack.pop()

    def _mark(self) -> None:
        if len(self._marks) >= _MOST_DEPTH:
            raise PickleFault(f"things in things, more than {_MOST_DEPTH} deep")
        self._marks.append(len(self._stack))

    def _pop_many(self, count: int | None) -> list[Any]:
        """Return so many values, or those since the last mark."""
        if count is not None:
            return [self._pop() for _ in range(count)][::-1]
        if not self._marks:
            raise PickleFault("an opcode that needs more than there is")
        start = self._marks.pop()
        items = self._stack[start:]
        if any(isinstance(item, Unbuilt) for item in items):
            raise PickleFault("an array or a type that is used before it is described")
        del self._stack[start:]
        return items

    # The memo

    def _put(self, layout: str | None = None) -> None:
        value = self._top()
        place = len(self._memo) if layout is None else self._number(layout)
        self._memo[place] = value
        if isinstance(value, Unbuilt):
            value.places.append(place)

    def _get(self, layout: str) -> None:
        place = self._number(layout)
        if place not in self._memo:
            raise PickleFault("something remembered that was never there")
        self._push(self._memo[place])

    # Containers

    def _holds(self, holder: Any, items: list[Any]) -> None:  # noqa: ANN401 - any container
        """Note that a container, new or on the stack, holds some items from now on."""
        height = self._heights.get(id(holder), 0)
        for item in items:
            if id(item) in self._heights:
                self._closed.add(id(item))
                height = max(height, self._heights[id(item)] + 1)
        if id(holder) in self._closed:
            raise PickleFault("something that holds itself, or is changed when it is complete")
        if height > _MOST_DEPTH:
            raise PickleFault(f"things in things, more than {_MOST_DEPTH} deep")
        if id(holder) not in self._heights:
            self._kept.append(holder)
        self._heights[id(holder)] = height

    def _new(self, holder: Any, items: list[Any]) -> None:  # noqa: ANN401 - any container
        self._holds(holder, items)
        self._push(holder)

    def _empty(self, kind: type[Any]) -> None:
        self._new(kind(), [])

    def _tuple(self, size: int | None = None) -> None:
        items = self._pop_many(size)
        if items:  # the empty tuple is always the same
            self._new(tuple(items), items)
        else:
            self._push(())

    def _append(self, count: int | None = None) -> None:
        items = self._pop_many(count)
        holder = self._top()
        if not isinstance(holder, list | Record):
            raise PickleFault("items for what is no list")
        self._holds(holder, items)
        (holder.items if isinstance(holder, Record) else holder).extend(items)

    def _set_items(self, count: int | None = None) -> None:
        items = self._pop_many(count)
        holder = self._top()
        if not isinstance(holder, dict) or len(items) % 2:
            raise PickleFault("keys and values for what is no dictionary")
        for key in items[::2]:
            # The hash of others may take for ever.
            is_number = type(key) is int and abs(key) < _LARGEST_KEY
            if not isinstance(key, str | bytes) and not is_number:
                raise PickleFault(f"a {type(key).__name__} as a key")
        self._holds(holder, items[1::2])
        holder.update(zip(items[::2], items[1::2], strict=True))

    # Names

    def _global(self) -> None:
        names = self._file[self.at : self.at + _MOST_NAME_BYTES].split(b"\n", 2)
        if len(names) < 3:  # noqa: PLR2004 - module, name, and what follows
            raise PickleFault("a name that does not end")
        self.at += len(names[0]) + len(names[1]) + 2
        self._named(*(name.decode("utf-8", "replace") for name in names[:2]))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._named(module, name)

    def _named(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleFault("a name that is no text")
        found = GLOBALS.get(f"{module}.{name}")
        if found is None or found.name.rpartition(".")[0] != module:
            raise PickleFault(f"{f'{module}.{name}'[:200]!r}, a name that weights have no need of")
        self._push(found)

    def _reduce(self) -> None:
        arguments, known = self._pop(), self._pop()
        if not isinstance(known, Global) or type(arguments) is not tuple:
            raise PickleFault("a call of what is no name")
        made = known.made(known.name, arguments, self._file)
        if isinstance(made, dict | Record):
            self._holds(made, [arguments])
        self._push(made)

    def _build(self) -> None:
        state, made = self._pop(), self._top()
        if isinstance(made, Record) and made.state is None:
            self._holds(made, [state])
            made.state = state
        elif isinstance(made, Unbuilt):
            self._stack[-1] = built = made.build(state, self._file)
            if isinstance(built, np.ndarray) and built.dtype.hasobject:
                self._holds(built, [state])
            for place in made.places:
                self._memo[place] = built
        else:
            raise PickleFault(f"a state for a {type(made).__name__}")

    _ACTS: ClassVar[dict[bytes, tuple[Callable[..., None], tuple[Any, ...]]]] = {
        b"\x80": (_protocol, ()),
        b"\x95": (_frame, ()),
        b"(": (_mark, ()),
        b"N": (_push, (None,)),
        b"\x88": (_push, (True,)),
        b"\x89": (_push, (False,)),
        b"J": (_plain, ("<i",)),
        b"K": (_plain, ("B",)),
        b"M": (_plain, ("<H",)),
        b"G": (_plain, (">d",)),
        b"\x8a": (_integer, ("B",)),
        b"\x8b": (_integer, ("<i",)),
        b"C": (_string, ("B",)),
        b"B": (_string, ("<I",)),
        b"\x8e": (_string, ("<Q",)),
        b"\x96": (_string, ("<Q",)),
        b"\x8c": (_text, ("B",)),
        b"X": (_text, ("<I",)),
        b"\x8d": (_text, ("<Q",)),
        b")": (_push, ((),)),
        b"]": (_empty, (list,)),
        b"}": (_empty, (dict,)),
        b"\x85": (_tuple, (1,)),
        b"\x86": (_tuple, (2,)),
        b"\x87": (_tuple, (3,)),
        b"t": (_tuple, ()),
        b"a": (_append, (1,)),
        b"e": (_append, ()),
        b"s": (_set_items, (2,)),
        b"u": (_set_items, ()),
        b"q": (_put, ("B",)),
        b"r": (_put, ("<I",)),
        b"\x94": (_put, ()),
        b"h": (_get, ("B",)),
        b"j": (_get, ("<I",)),
        b"c": (_global, ()),
        b"\x93": (_stack_global, ()),
        b"R": (_reduce, ()),
        b"\x81": (_reduce, ()),
        b"b": (_build, ()),
    }
    """What each opcode does, and with what."""
