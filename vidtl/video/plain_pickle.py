"""Plain data out of a Python pickle without running any of it.

A pickle is a program: loading one may call any function. CIFAR-10 is published as pickles of dictionaries of numbers,
texts and one array, so here the instructions are only taken apart (`pickletools`, which runs nothing) and those that
build such values are followed. A call becomes a `Call` that nobody makes; the two that stand for a NumPy array are
recognised by name and their bytes are taken from the file.
"""

import mmap
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidtl.video.reader import UnreadableVideo

MAX_BYTES = 1 << 30


@dataclass
class Call:
    """A function by name, its arguments, and the state given to what it would return."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


_MARK = object()

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: _MARK,
}
_LITERALS = re.compile(r"((BIN)?INT[12]?|LONG[14]?|(BIN)?FLOAT|(SHORT_)?(BIN)?(STRING|UNICODE8?|BYTES8?)|BYTEARRAY8)")
_IGNORED = frozenset({"PROTO", "FRAME"})


def read_plain_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle file, with its arrays as read-only NumPy arrays.

    Raises:
        UnreadableVideo: no pickle, cut short, larger than `MAX_BYTES`, or with anything but plain values and arrays.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UnreadableVideo(path, f"{path.stat().st_size} bytes; at most {MAX_BYTES} are read")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            value = _Machine().run(content)
        if not isinstance(value, dict):
            raise ValueError(f"it holds {type(value).__name__}, not a dictionary")
        return {key: _array(entry) if isinstance(entry, Call) else entry for key, entry in value.items()}
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableVideo(path, f"not a pickle of plain values and arrays: {error}") from error


class _Machine:
    """The stack of a pickle program, for the instructions that plain data needs."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: mmap.mmap) -> Any:
        for opcode, argument, _ in pickletools.genops(content):  # type: ignore[arg-type]
            name = opcode.name
            if name == "STOP":
                return self._stack[-1]
            if _LITERALS.fullmatch(name):
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name not in _IGNORED:
                self._follow(name, argument)
        raise ValueError("it is cut short")

    def _follow(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[int(argument)] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[int(argument)])
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple([stack.pop() for _ in range(int(name[-1]))][::-1]))
            case "LIST":
                stack.append(self._marked())
            case "DICT":
                items = self._marked()
                stack.append({})
                self._set(items)
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = self._marked()
                stack[-1].extend(items)
            case "SETITEM":
                item, key = stack.pop(), stack.pop()
                self._set([key, item])
            case "SETITEMS":
                self._set(self._marked())
            case "GLOBAL":
                stack.append(Call(argument.replace(" ", "."), ()))
            case "STACK_GLOBAL":
                function, module = stack.pop(), stack.pop()
                stack.append(Call(f"{_text(module)}.{_text(function)}", ()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(Call(function.name, arguments))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case _:
                raise ValueError(f"it has the instruction {name}")

    def _set(self, items: list[Any]) -> None:
        """Keys and values in turn into the dictionary on top. Keys are texts: others can take for ever to hash."""
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._stack[-1][_text(key)] = value

    def _marked(self) -> list[Any]:
        """Everything above the last mark, which goes too."""
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def _array(call: Call) -> np.ndarray:
    """The array that NumPy's own unpickling would give, for whole numbers and floats in C order."""
    if call.name in ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"):
        _, shape, dtype, fortran, data = call.state
    elif call.name in ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"):  # protocol 5
        data, dtype, shape, order = call.arguments
        fortran = order != "C"
    else:
        raise ValueError(f"it calls {call.name}")
    code = _text(dtype.arguments[0])
    if dtype.name != "numpy.dtype" or code not in ("u1", "i4", "i8", "f4", "f8") or fortran:
        raise ValueError(f"it has an array of {code}, or one in Fortran order")
    if isinstance(data, Call) and data.name == "_codecs.encode":  # how Python 3 writes bytes by protocol 2
        data = data.arguments[0]
    if not isinstance(data, str | bytes | bytearray) or not whole_numbers(shape):
        raise ValueError("it has an array without bytes or shape")
    data = data.encode("latin-1") if isinstance(data, str) else data
    return np.frombuffer(data, np.dtype(code).newbyteorder("<")).reshape(shape)


def whole_numbers(value: Any) -> bool:
    """Whether a value is a list or tuple of whole numbers; anything else may be nested without end."""
    return isinstance(value, list | tuple) and all(isinstance(each, int) for each in value)


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise ValueError(f"it has {type(value).__name__} where a text belongs")
    return value.decode("latin-1") if isinstance(value, bytes) else value
