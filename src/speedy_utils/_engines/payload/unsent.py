"""What can't be sent, named: where it is, what it is, and what to do instead.

For a function that reads a global ``model`` whose session holds a lock::

    func can't be sent to a worker: the global 'model' that embed reads can't be pickled:
    model.session['lock'] is a _thread.lock. Make it inside embed, put embed in a module, which each worker
    imports, or use backend="threads" where the work waits more than it computes
"""

from __future__ import annotations

import functools
import io
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from ..._validation import first_line, shorten
from ..per_worker import makes_callables
from .pickling import ProjectPickler
from .project_modules import is_project_module

SEARCH_TIMEOUT_S = 1.0
"""Seconds for which the parts of a value are looked through; what was found until then is named."""

_MAX_DEPTH = 30

_PATHS = {"func": "func"}
"""How an expression begins that says where a value is; keyword arguments have names of their own."""

_PLAIN_TYPES = (int, float, complex, bool, str, bytes, type(None))


class UnsentValueError(TypeError):
    """A value can't be pickled. The text names it, and says what to do."""


class UnsentItemError(TypeError):
    """An item of a chunk can't be pickled. The text names what of it, and says what to do.

    Attributes:
        place: Its place in the chunk.
    """

    def __init__(self, place: int, text: str) -> None:
        super().__init__(text)
        self.place = place


class Culprit(NamedTuple):
    """A value that can't be pickled, though all that it consists of can.

    Attributes:
        path: Where it is, as an expression: ``model.session['lock']``.
        value: The value.
        error: What pickling it raises.
    """

    path: str
    value: Any
    error: BaseException

    def __str__(self) -> str:
        text = first_line(self.error)
        # "cannot pickle '_thread.lock' object" says no more than the type.
        why = "" if text.endswith(f"{type(self.value).__qualname__}' object") else f" ({text})"
        return f"{self.path} is {type_name(self.value)}{why}"


def type_name(value: Any) -> str:
    """Return the type of a value with an article.

    Example:
        >>> type_name(1), type_name(sys)
        ('an int', 'a module')
    """
    kind = type(value)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


@contextmanager
def sending(what: str, value: Any, pickler: type[ProjectPickler]) -> Iterator[None]:
    """Raise an error that names what can't be pickled, if a value can't be in the block.

    Args:
        what: What the value is: ``"func"`` or ``"the keyword arguments"``.
        value: The value.
        pickler: Pickles it.

    Raises:
        TypeError: Pickling has raised an exception.
    """
    try:
        yield
    # Their tracebacks are of the pickler, many lines long.
    except UnsentValueError as error:
        raise TypeError(f"{what} can't be sent to a worker: {error}") from None
    except Exception as error:  # pickling is code of the user's classes, and may raise anything
        kind = what.partition(" ")[0]
        found = find_culprit(_PATHS.get(kind, ""), value, error, pickler)
        advice = cure(found)
        if kind == "func" and is_project_module(type(value).__module__) and makes_callables(type(value)):
            advice = f"Pass the class {type(value).__qualname__} as func: each worker makes an instance"
        raise TypeError(f"{what} can't be sent to a worker: {found}.\n{advice}") from None


def unsent_item(
    items: Sequence[Any], pack: Callable[[Any], object], error: Exception, pickler: type[ProjectPickler]
) -> UnsentItemError:
    """Return the error for items that can't be packed, which names the first one that can't.

    Args:
        items: The items.
        pack: Packs one of them.
        error: What packing all of them has raised.
        pickler: Pickles parts of an item.
    """
    place = 0
    for at, item in enumerate(items):
        try:
            pack(item)
        except Exception as cause:  # noqa: PERF203 - pickling is code of the user's classes
            place, error = at, cause
            break
    if isinstance(error, UnsentValueError):  # of a class that the item needs
        text = " ".join(str(error).split("\n"))
    else:
        found = find_culprit("item", items[place], error, pickler)
        text = f"{found}. {cure(found)}"
    return UnsentItemError(place, f"its item can't be sent to a worker: {text}")


def cure(culprit: Culprit, reader: str = "func", *, in_main: bool = False) -> str:
    """Return what to do.

    Args:
        culprit: What can't be pickled.
        reader: What uses it, and could make it.
        in_main: Whether that is a function or a class of the main program, which reads a global.
    """
    make = f"Make it inside {reader}"
    if isinstance(culprit.value, io.IOBase):
        make = f"Open it inside {reader}"
    elif isinstance(culprit.value, Iterator):
        make = "Make a list of it"
    move = f", put {reader} in a module, which each worker imports" if in_main else ""
    return f'{make}{move}, or use backend="threads" where the work waits more than it computes'


def import_of(value: Any) -> str:
    """Return how a value is imported, ``from loguru import logger``, if it is one that a package has made."""
    package = str(type(value).__module__).partition(".")[0]
    if is_project_module(package):
        return ""
    scope = vars(sys.modules.get(package, sys))
    name = next((name for name, each in scope.items() if each is value), "")
    return name and f"from {package} import {name}"


def find_culprit(path: str, value: Any, error: BaseException, pickler: type[ProjectPickler]) -> Culprit:
    """Return the innermost part of a value that can't be pickled.

    Args:
        path: The value, as an expression.
        value: The value.
        error: What pickling it has raised.
        pickler: Pickles the parts.
    """
    found, seen = Culprit(path, value, error), {id(value)}
    deadline = time.monotonic() + SEARCH_TIMEOUT_S
    for _ in range(_MAX_DEPTH):
        # It is no part's fault. A RecursionError comes as the cause of cloudpickle's own error.
        if isinstance(found.error.__cause__ or found.error, (RecursionError, MemoryError)):
            break
        inner = _failing_part(found, pickler, seen, deadline)
        if inner is None:
            break
        found = inner
    return found._replace(path=re.sub(r"^\['(\w+)'\]", r"\1", found.path) or "something in it")


def _failing_part(
    outer: Culprit, pickler: type[ProjectPickler], seen: set[int], deadline: float
) -> Culprit | None:
    parts = _parts(outer.value)
    while time.monotonic() < deadline:
        try:
            step, part = next(parts)
        except Exception:  # there is no other; what yields them is code of the user's classes too
            return None
        if type(part) in _PLAIN_TYPES or id(part) in seen or isinstance(part, type):
            continue
        seen.add(id(part))
        try:
            pickler("item").dump(part)
        except Exception as error:  # as above
            return Culprit(outer.path + step, part, error)
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value consists of, each with how it is reached from the value."""
    kind = type(value)
    if kind is functools.partial:
        yield ".func", value.func
        yield from ((f".args[{index}]", part) for index, part in enumerate(value.args))
        yield from ((f".keywords[{name!r}]", part) for name, part in value.keywords.items())
    elif kind is MethodType:
        yield ".__self__", value.__self__
    elif kind is FunctionType:
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            yield f" (its variable {name!r})", cell.cell_contents
    elif kind not in (dict, list, tuple):
        _, arguments, *state = value.__reduce_ex__(5)
        yield from (("", part) for part in arguments)
        for attributes in state[0] if state and isinstance(state[0], tuple) else state[:1]:
            yield from ((f".{name}", part) for name, part in (attributes or {}).items())
    if isinstance(value, (list, tuple, deque)):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, dict):
        yield from ((f"[{shorten(key, 40)}]", part) for key, part in value.items())
