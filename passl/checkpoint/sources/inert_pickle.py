"""Reading a pickle as a description: nothing is imported, nothing is called.

A pickle is a program for a small stack machine.  This is that machine without the instructions'
effects: a name becomes a :class:`Name`, a call a :class:`Made` that remembers what would have been
called with what, and only Python's plain containers become themselves.  What the records mean is
decided by whoever asked, after the whole file is known.

Also refused is what makes CPython's own machine fill memory: indices of the memo beyond its
entries, endless instructions, and keys that collide or nest on purpose.

Source: the instructions as documented in CPython's ``pickletools``, whose decoders of arguments are
used.
"""

from __future__ import annotations

import io
import os
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Optional

from passl.checkpoint.sources.spans import Damage, FileSpan, Span, TextSpan

__all__ = ["External", "LazyText", "Made", "Name", "Pickle", "read_pickle", "span_of", "words"]

#: A ViT-L with its optimizer takes about 40,000; reading so many takes two to three seconds.
_MAX_INSTRUCTIONS = 2_000_000
_MAX_EAGER_BYTES = 128 << 20
_MAX_LINE_BYTES = 1 << 16
_MAX_INTEGER_BITS = 4096
_MAX_KEY_PARTS = 16
#: With ``is_lazy``, byte strings from this length on stay in the file.
_LAZY_BYTES = 4096


@dataclass(frozen=True)
class Name:
    """A name of a module, as the file spells it; str() is ``module.name``."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Made:
    """What a call would have made.

    Args:
        maker: what would have been called.
        args: with what.
        state: what the object would have been told afterwards (``__setstate__``).
        entries: what would have been put into it by key, or appended (with its index as the key).
    """

    maker: Name
    args: tuple[Any, ...]
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class External:
    """Something that lies outside the pickle, such as the storage of a tensor."""

    pid: Any


@dataclass(frozen=True, eq=False)
class LazyText:
    """A long text that was left in the file."""

    span: FileSpan


@dataclass
class Pickle:
    """A whole pickle.

    Args:
        value: the object it describes.
        names: every name in it -> whether it would be called as a function.
        externals: everything it speaks of that lies outside.
    """

    value: Any
    names: dict[Name, bool]
    externals: list[External]


def read_pickle(file: BinaryIO, *, is_lazy: bool = False) -> Pickle:
    """Read one pickle from where ``file`` stands, up to and including its last instruction.

    Args:
        file: seekable.
        is_lazy: long byte strings stay in the file as :class:`FileSpan`, long texts as
            :class:`LazyText`.

    Raises:
        Damage: it is no pickle, ends too early, or is absurd.
        Exception: what decoders of ``pickletools`` raise, ``ValueError`` mostly.
    """
    return _Machine(_Limited(file), is_lazy).run()


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


class _Limited:
    """A file as the decoders see it, which never hands out more than it may."""

    def __init__(self, file: BinaryIO) -> None:
        here = file.tell()
        self.file, self.end = file, file.seek(0, os.SEEK_END)
        file.seek(here)
        self._num_left = _MAX_EAGER_BYTES

    def read(self, size: int) -> bytes:
        self.charge(size)
        data = self.file.read(size)
        if len(data) != size:
            raise Damage("it ends too early")
        return data

    def readline(self) -> bytes:
        line = self.file.readline(_MAX_LINE_BYTES)
        self.charge(len(line))
        if not line.endswith(b"\n"):
            raise Damage("it ends too early")
        return line

    def charge(self, num_bytes: int) -> None:
        """Count memory that an instruction takes without reading it from the file."""
        self._num_left -= num_bytes
        if self._num_left < 0:
            raise Damage("it holds too much beside its tensors")

    def skip(self, size: int) -> FileSpan:
        start = self.file.tell()
        if start + size > self.end:
            raise Damage("it ends too early")
        self.file.seek(start + size)
        return FileSpan(self.file, start, size)


_BY_CODE = {op.code.encode("latin-1"): op for op in pickletools.opcodes}
#: Instructions that push their argument.
_PUSHING = words(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES "
    "BINBYTES8 BYTEARRAY8"
)
#: Instructions with long contents -> bytes of the length before it.
_LENGTH_BYTES = {"BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8, "BINUNICODE": 4, "BINUNICODE8": 8}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLE_MAKERS = ("torch.Size", "builtins.tuple", "__builtin__.tuple")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    def __init__(self, file: _Limited, is_lazy: bool) -> None:
        self.file, self.is_lazy = file, is_lazy
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.names: dict[Name, bool] = {}
        self.externals: list[External] = []

    def run(self) -> Pickle:
        for _ in range(_MAX_INSTRUCTIONS):
            op = _BY_CODE.get(self.file.read(1))
            if op is None:
                raise Damage("it is no pickle")
            if op.name == "STOP":
                return Pickle(self.pop(), self.names, self.externals)
            self.step(op)
        raise Damage("it has millions of entries, as no file of weights has")

    def step(self, op: Any) -> None:
        name = op.name
        if self.is_lazy and name in _LENGTH_BYTES:
            self.push(self.long_content(name))
            return
        argument = op.arg.reader(self.file) if op.arg is not None else None
        if name in _PUSHING:
            if type(argument) is int and argument.bit_length() > _MAX_INTEGER_BITS:
                raise Damage("it holds an absurd number")
            self.push(argument)
        elif name in _CONSTANTS:
            self.push(_CONSTANTS[name])
        elif name in _TUPLES:
            self.push(tuple(reversed([self.pop() for _ in range(_TUPLES[name])])))
        else:
            action = _ACTIONS.get(name)
            if action is None:
                raise Damage(f"it holds an instruction {name}, which no file of weights has")
            action(self, argument)

    # -- the stack ---------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Damage("its instructions do not fit together")
        return self.stack.pop()

    def top(self) -> Any:
        value = self.pop()
        self.push(value)
        return value

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise Damage("its instructions do not fit together")
        place = self.marks.pop()
        values = self.stack[place:]
        del self.stack[place:]
        return values

    def long_content(self, name: str) -> Any:
        size = int.from_bytes(self.file.read(_LENGTH_BYTES[name]), "little")
        is_text = "UNICODE" in name
        if size >= _LAZY_BYTES:
            span = self.file.skip(size)
            return LazyText(span) if is_text else span
        data = self.file.read(size)
        return data.decode("utf-8", "surrogatepass") if is_text else data

    def remember(self, index: Optional[int]) -> None:
        self.memo[len(self.memo) if index is None else index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Damage("it speaks of an entry that is not there")
        self.push(self.memo[index])

    # -- names and calls ---------------------------------------------------------------------------

    def named(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damage("it holds a name that is no text")
        found = Name(module, name)
        self.names.setdefault(found, False)
        return found

    def call(self, maker: Any, args: Any, *, is_function: bool) -> None:
        if isinstance(maker, External):  # a class with its source, as old PyTorch wrote models
            maker = next((part for part in _parts(maker.pid) if isinstance(part, Name)), None)
        if not isinstance(maker, Name) or not isinstance(args, tuple):
            raise Damage("it calls something that has no name")
        if is_function:
            self.names[maker] = True
        for part in args:
            if isinstance(part, (str, list, tuple, dict)):
                self.file.charge(len(part) * (1 if isinstance(part, str) else 64))
        self.push(_plain(maker, args))

    def external(self, pid: Any) -> None:
        self.externals.append(External(pid))
        self.push(self.externals[-1])

    def build(self) -> None:
        state = self.pop()
        target = self.top()
        if isinstance(target, Made):
            target.state = state
        elif isinstance(target, (Name, External)):
            raise Damage(f"it changes {target}")

    # -- containers --------------------------------------------------------------------------------

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Made):
            target.entries.update(enumerate(values, len(target.entries)))
        else:
            raise Damage("it appends to what is no list")

    def set_items(self, flat: list[Any]) -> None:
        target = self.top()
        entries = target.entries if isinstance(target, Made) else target
        if not isinstance(entries, dict) or len(flat) % 2:
            raise Damage("it puts entries into what is no dictionary")
        for key, value in zip(flat[::2], flat[1::2]):
            entries[_key(key)] = value

    def add_items(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, set):
            raise Damage("it puts entries into what is no set")
        target.update(_key(value) for value in values)


def _in_order(machine: _Machine, num: int) -> list[Any]:
    return list(reversed([machine.pop() for _ in range(num)]))


def _reduce(machine: _Machine, _: Any) -> None:
    maker, args = _in_order(machine, 2)
    machine.call(maker, args, is_function=True)


def _new_object(machine: _Machine, _: Any) -> None:
    maker, args = _in_order(machine, 2)
    machine.call(maker, args, is_function=False)


def _new_object_with_names(machine: _Machine, _: Any) -> None:
    maker, args, named = _in_order(machine, 3)
    machine.call(maker, (args, named), is_function=False)


def _old_object(machine: _Machine, _: Any) -> None:
    maker, *args = machine.since_mark() or [None]
    machine.call(maker, tuple(args), is_function=True)


def _old_named_object(machine: _Machine, argument: str) -> None:
    maker = machine.named(*_split(argument))
    machine.call(maker, tuple(machine.since_mark()), is_function=True)


def _pop_any(machine: _Machine, _: Any) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()  # POP also takes a mark away
    else:
        machine.pop()


def _split(argument: str) -> tuple[str, str]:
    """``pickletools`` joins the two lines of a name with a space."""
    module, _, name = argument.partition(" ")
    return module, name


def _dict(machine: _Machine, _: Any) -> None:
    flat = machine.since_mark()
    machine.push({})
    machine.set_items(flat)


_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda *_: None,
    "FRAME": lambda *_: None,
    "POP": _pop_any,
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "PUT": lambda machine, index: machine.remember(index),
    "BINPUT": lambda machine, index: machine.remember(index),
    "LONG_BINPUT": lambda machine, index: machine.remember(index),
    "MEMOIZE": lambda machine, _: machine.remember(None),
    "GET": lambda machine, index: machine.recall(index),
    "BINGET": lambda machine, index: machine.recall(index),
    "LONG_BINGET": lambda machine, index: machine.recall(index),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "APPEND": lambda machine, _: machine.append(_in_order(machine, 1)),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "DICT": _dict,
    "SETITEM": lambda machine, _: machine.set_items(_in_order(machine, 2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "ADDITEMS": lambda machine, _: machine.add_items(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.push({_key(v) for v in machine.since_mark()}),
    "GLOBAL": lambda machine, argument: machine.push(machine.named(*_split(argument))),
    "STACK_GLOBAL": lambda machine, _: machine.push(machine.named(*_in_order(machine, 2))),
    "REDUCE": _reduce,
    "NEWOBJ": _new_object,
    "NEWOBJ_EX": _new_object_with_names,
    "OBJ": _old_object,
    "INST": _old_named_object,
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": lambda machine, pid: machine.external(pid),
    "BINPERSID": lambda machine, _: machine.external(machine.pop()),
}


def _key(value: Any) -> Any:
    """A key that can be hashed quickly: no deep tuples, no numbers made to collide."""
    if isinstance(value, tuple) and len(value) <= _MAX_KEY_PARTS:
        is_fine = all(_is_scalar(item) for item in value)
    else:
        is_fine = _is_scalar(value) or isinstance(value, (Name, Made, External))
    if is_fine:
        return value
    raise Damage(f"it uses a {type(value).__name__} as a key")


def _is_scalar(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= 64
    return value is None or isinstance(value, (str, bytes, float))


def _parts(pid: Any) -> tuple[Any, ...]:
    return pid if isinstance(pid, tuple) else ()


def _plain(maker: Name, args: tuple[Any, ...]) -> Any:
    """What a call of Python's own containers makes; a record for every other call."""
    name = str(maker)
    if name in ("collections.OrderedDict", "builtins.dict", "__builtin__.dict"):
        pairs = args[0] if args else []
        if isinstance(pairs, dict):
            return dict(pairs)
        if all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
            return {_key(key): value for key, value in pairs}
    if name == "_codecs.encode" and len(args) == 2 and args[1] == "latin1":
        return _encoded(args[0])
    if name in _TUPLE_MAKERS and len(args) == 1 and isinstance(args[0], (list, tuple)):
        return tuple(args[0])
    if name in ("builtins.bytes", "__builtin__.bytes") and not args:  # empty, in protocol 2
        return b""
    return Made(maker, args)


def _encoded(text: Any) -> Any:
    if isinstance(text, LazyText):
        return TextSpan(text.span, text.span.size)
    return text.encode("latin-1")


def span_of(data: Any) -> Span:
    """Bytes of a pickle, whether left in the file or not, as a place to read from.

    Raises:
        Damage: ``data`` is something else.
    """
    if isinstance(data, str):  # how Python 2 wrote bytes
        data = data.encode("latin-1")
    if isinstance(data, (bytes, bytearray)):
        return FileSpan(io.BytesIO(bytes(data)), 0, len(data))
    if isinstance(data, (FileSpan, TextSpan)):
        return data
    raise Damage("an array without its bytes")
