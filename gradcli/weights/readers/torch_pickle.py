"""The pickle of a PyTorch checkpoint, read by a machine of its own that can make plain data and records, nothing else.

Python's own unpickler imports, calls and sets state; an allow-list tames the first of these only, and its memory obeys
the file. Here an instruction that calls something looks it up in a table of `torch_objects`. The instructions are those
of protocols 2 to 5 (Lib/pickletools.py of CPython), without those that no `torch.save` writes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from gradcli.errors import InputFileError, ResourceError
from gradcli.weights.readers.torch_objects import Inert, Malformed, Named, dict_key, known, made, stored

#: Bytes of a pickle; those of state dicts have some hundreds a tensor.
MAX_PICKLE = 32 << 20
#: Instructions of a pickle; state dicts have some fifty a tensor. Each makes one object at most, of some 100 bytes.
MAX_INSTRUCTIONS = 4_000_000
#: Bytes of an integer.
_MAX_INTEGER = 1_000


def read_pickle(text: bytes, file: str, entry_bytes: Mapping[str, int]) -> Any:
    """Return what a pickle holds, with `StridedTensor` for tensors and `Inert` for whatever is left out.

    Args:
        text: the pickle.
        file: what messages call the file.
        entry_bytes: the bytes of each storage of the file, by key.

    Raises:
        InputFileError: a pickle that is damaged, or that needs more than a state dict does.
        ResourceError: one that is too long.
    """
    machine = _Machine(text, entry_bytes)
    try:
        return machine.run()
    except _Unsafe as refused:
        raise InputFileError(
            f"{file}: refused: besides tensors it holds {refused}, as pickles of whole models do, and gradcli runs"
            " nothing in a file; save the weights alone, with torch.save(model.state_dict(), ...)"
        ) from None
    except _TooLong:
        raise ResourceError(
            f"{file}: its pickle has more than {MAX_INSTRUCTIONS:,} instructions; save the weights alone, with"
            " torch.save(model.state_dict(), ...)"
        ) from None
    except Malformed as fault:
        raise InputFileError(f"{file}: refused: its pickle is not one of a state dict: {fault}") from None
    except (IndexError, KeyError, struct.error, UnicodeDecodeError):
        raise InputFileError(f"{file}: its pickle is damaged") from None


class _Unsafe(Exception):
    """A pickle that names an object which no state dict needs; the text is its name."""


class _TooLong(Exception):
    """A pickle with too many instructions."""


class _Stop(Exception):
    """The end of a pickle; its argument is what it holds."""


class _Machine:
    """The stack machine of pickles. A mark on the stack puts what lies below it aside."""

    def __init__(self, text: bytes, entry_bytes: Mapping[str, int]) -> None:
        self.text = text
        self.at = 0
        self.stack: list[Any] = []
        self.aside: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.entry_bytes = entry_bytes

    def run(self) -> Any:
        if self.text[:1] != b"\x80":
            raise Malformed("it is not of protocol 2 or later")
        try:
            for _ in range(MAX_INSTRUCTIONS):
                instruction = _INSTRUCTIONS.get(self.text[self.at])
                if instruction is None:
                    raise Malformed("it has an instruction that torch.save does not write")
                self.at += 1
                instruction(self)
        except _Stop as stop:
            return stop.args[0]
        raise _TooLong

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def number(self, layout: str) -> Any:
        """Return the number that follows, of a layout of `struct`."""
        (value,) = struct.unpack_from(layout, self.text, self.at)
        self.at += struct.calcsize(layout)
        return value

    def take(self, count: int) -> bytes:
        """Return the bytes that follow."""
        if not 0 <= count <= len(self.text) - self.at:
            raise Malformed("it ends before the text that it promises")
        self.at += count
        return self.text[self.at - count : self.at]

    def line(self) -> str:
        """Return the text up to the end of the line that follows."""
        end = self.text.find(b"\n", self.at, self.at + 400)
        if end < 0:
            raise Malformed("it has a name without an end")
        start, self.at = self.at, end + 1
        return self.text[start:end].decode()

    def to_mark(self) -> list[Any]:
        """Return what was pushed since the last mark, and take both off."""
        items, self.stack = self.stack, self.aside.pop()
        return items

    def named(self, module: Any, name: Any) -> Named:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("it has a name that is not a text")
        found = Named(module, name)
        if not known(found):
            text = str(found)
            raise _Unsafe(text if len(text) < 100 and text.isprintable() else repr(text[:80]))
        return found


def _proto(machine: _Machine) -> None:
    if not 2 <= machine.number("B") <= 5:
        raise Malformed("it is not of protocols 2 to 5")


def _stop(machine: _Machine) -> None:
    raise _Stop(machine.stack.pop())


def _mark(machine: _Machine) -> None:
    machine.aside.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.to_mark()


def _integer(machine: _Machine, count: int) -> None:
    if count > _MAX_INTEGER:
        raise Malformed("it has an integer of too many digits")
    machine.push(int.from_bytes(machine.take(count), "little", signed=True))


def _append(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Inert):
        raise Malformed("it appends to something that is not a list")


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if len(items) % 2 or not isinstance(target, dict | Inert):
        raise Malformed("it sets entries of something that is not a dict")
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            usable = dict_key(key)
            if usable in target:
                raise Malformed("it has two entries of one name")
            target[usable] = value


def _dict(machine: _Machine) -> None:
    items = machine.to_mark()
    machine.push({})
    _set_items(machine, items)


def _build(machine: _Machine) -> None:
    # The state of an OrderedDict is the `_metadata` of a state dict: versions of modules, nothing of the weights.
    machine.stack.pop()
    if not isinstance(machine.stack[-1], dict | Inert):
        raise Malformed("it sets the state of something that has none")


def _reduce(machine: _Machine) -> None:
    arguments = machine.stack.pop()
    machine.push(made(machine.stack.pop(), arguments))


def _new_object_with_names(machine: _Machine) -> None:
    machine.stack.pop()
    _reduce(machine)


def _stack_named(machine: _Machine) -> None:
    name = machine.stack.pop()
    machine.push(machine.named(machine.stack.pop(), name))


def _push_set(machine: _Machine) -> None:
    machine.to_mark()
    machine.push(Inert("a frozenset"))


def _add_items(machine: _Machine) -> None:
    machine.to_mark()
    if not isinstance(machine.stack[-1], Inert):
        raise Malformed("it adds to something that is not a set")


def _remember(machine: _Machine, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _push(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    def instruction(machine: _Machine) -> None:
        machine.push(make(machine))

    return instruction


def _text(layout: str, encoding: str = "utf-8", errors: str = "surrogatepass") -> Callable[[_Machine], None]:
    return _push(lambda machine: machine.take(machine.number(layout)).decode(encoding, errors))


def _raw(layout: str) -> Callable[[_Machine], None]:
    return _push(lambda machine: machine.take(machine.number(layout)))


def _tuple(count: int) -> Callable[[_Machine], None]:
    def instruction(machine: _Machine) -> None:
        if len(machine.stack) < count:
            raise IndexError
        items = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.push(items)

    return instruction


_INSTRUCTIONS: dict[int, Callable[[_Machine], None]] = {
    ord(code): instruction
    for code, instruction in {
        b"\x80": _proto,
        b"\x95": lambda machine: machine.number("<Q"),  # the length of a frame, which only matters to a stream
        b".": _stop,
        b"(": _mark,
        b"0": _pop,
        b"1": lambda machine: machine.to_mark(),
        b"2": _push(lambda machine: machine.stack[-1]),
        b"N": _push(lambda machine: None),
        b"\x88": _push(lambda machine: True),
        b"\x89": _push(lambda machine: False),
        b"K": _push(lambda machine: machine.number("B")),
        b"M": _push(lambda machine: machine.number("<H")),
        b"J": _push(lambda machine: machine.number("<i")),
        b"\x8a": lambda machine: _integer(machine, machine.number("B")),
        b"\x8b": lambda machine: _integer(machine, machine.number("<i")),
        b"G": _push(lambda machine: machine.number(">d")),
        b"X": _text("<I"),
        b"\x8c": _text("B"),
        b"\x8d": _text("<Q"),
        b"T": _text("<i", "latin-1"),
        b"U": _text("B", "latin-1"),
        b"B": _raw("<I"),
        b"C": _raw("B"),
        b"\x8e": _raw("<Q"),
        b"\x96": _raw("<Q"),
        b"]": _push(lambda machine: []),
        b"l": lambda machine: machine.push(machine.to_mark()),
        b"a": lambda machine: _append(machine, [machine.stack.pop()]),
        b"e": lambda machine: _append(machine, machine.to_mark()),
        b")": _push(lambda machine: ()),
        b"t": lambda machine: machine.push(tuple(machine.to_mark())),
        b"\x85": _tuple(1),
        b"\x86": _tuple(2),
        b"\x87": _tuple(3),
        b"}": _push(lambda machine: {}),
        b"d": _dict,
        b"s": lambda machine: _set_items(machine, [machine.stack.pop(-2), machine.stack.pop()]),
        b"u": lambda machine: _set_items(machine, machine.to_mark()),
        b"\x8f": _push(lambda machine: Inert("a set")),
        b"\x90": _add_items,
        b"\x91": _push_set,
        b"q": lambda machine: _remember(machine, machine.number("B")),
        b"r": lambda machine: _remember(machine, machine.number("<I")),
        b"\x94": lambda machine: _remember(machine, len(machine.memo)),
        b"h": _push(lambda machine: machine.memo[machine.number("B")]),
        b"j": _push(lambda machine: machine.memo[machine.number("<I")]),
        b"c": _push(lambda machine: machine.named(machine.line(), machine.line())),
        b"\x93": _stack_named,
        b"R": _reduce,
        b"\x81": _reduce,
        b"\x92": _new_object_with_names,
        b"b": _build,
        b"Q": _push(lambda machine: stored(machine.stack.pop(), machine.entry_bytes)),
    }.items()
}
