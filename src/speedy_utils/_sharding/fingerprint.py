"""What makes two runs the same run: their dataset or items, function, arguments and cut.

Values are compared by fingerprint, made by ``datasets.fingerprint`` the way ``Dataset.map`` makes the names
of its cache files. What a function is made of comes from :mod:`.._engines.identity`.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import io
import itertools
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datasets import Dataset

# What pickling raises for an object that can't be pickled. The hasher documents nothing.
_CANT_PICKLE = (
    pickle.PickleError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    RuntimeError,
    ImportError,
)

_CODE, _ARGUMENT = "the code of ", "the argument "
"""How the names of parts begin that are code, or arguments of ``process_func``."""

_MODULE = f"{_CODE}the module "
"""How the name of a part begins that is a module which the function imports in its body."""

_MAX_DIFFERENCES = 8
"""The differences of a function that are named."""

_UNSTEADY = "; if it has not, something in it pickles differently from run to run"


class Part(NamedTuple):
    """A part of what a run works with: a function's code, a value, the version of a package.

    Attributes:
        digest: Its fingerprint, or several of them, separated by spaces: two parts are the same if they have
            one in common. None if it can't be taken.
        text: What it is, in short.
    """

    digest: str | None
    text: str

    def equals(self, other: Part) -> bool:
        """Return whether two parts are known to be the same."""
        return not set((self.digest or "").split()).isdisjoint((other.digest or "").split())


@dataclass(frozen=True)
class Fingerprint:
    """What a run works on and with.

    Attributes:
        dataset: The fingerprint of the dataset, or of the items.
        num_rows: How many rows or items there are.
        function: The name of the function.
        parts: What the function and its arguments are made of, such as ``"the global 'SEP' of clean"``. None
            in the manifest of a version that did not note it.
    """

    dataset: str
    num_rows: int
    function: str
    parts: Mapping[str, Part] | None


def fingerprint_run(
    dataset: Dataset, func: Callable[..., Any], parts: Mapping[str, tuple[str | None, str]]
) -> Fingerprint:
    """Take the fingerprint of a run.

    Args:
        dataset: The dataset as it will be cut (shuffled and shortened already).
        func: ``process_func``.
        parts: What it and its arguments are made of.
    """
    return Fingerprint(
        # Private, but the only name a dataset has for its content.
        dataset=dataset._fingerprint,
        num_rows=len(dataset),
        function=full_name(func),
        parts={name: Part(*part) for name, part in parts.items()},
    )


def full_name(func: Callable[..., Any]) -> str:
    """Return the module and the name of a function, or of the class of a callable object."""
    inner = inspect.unwrap(func)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{named.__module__}.{named.__qualname__}"


def differences(was: Fingerprint, now: Fingerprint) -> list[str]:
    """Say what differs between two runs, one sentence for each difference; none if they are the same."""
    found = []
    if was.num_rows != now.num_rows:
        found.append(f"the dataset has {now.num_rows:,} rows; it had {was.num_rows:,}")
    elif was.dataset != now.dataset:
        found.append(
            f"the dataset is another one: its fingerprint is {now.dataset}; it was {was.dataset} "
            "(a shuffle without a seed gives another order each time)"
        )
    return found + function_differences(was, now)


def function_differences(was: Fingerprint, now: Fingerprint, name: str = "process_func") -> list[str]:
    """Say what differs between the functions and arguments of two runs, as :func:`differences` does.

    Args:
        was: The earlier run.
        now: This one.
        name: What the function is called.
    """
    if was.function != now.function:
        changed = _part_differences(_arguments(was.parts), _arguments(now.parts))
        return [f"{name} is {now.function}; it was {was.function}", *changed]
    if was.parts is None:
        return [f"what {name} is made of was not noted, so it is unknown whether it has changed"]
    return _part_differences(was.parts, now.parts or {})


def _arguments(parts: Mapping[str, Part] | None) -> dict[str, Part]:
    return {name: part for name, part in (parts or {}).items() if name.startswith(_ARGUMENT)}


def _part_differences(was: Mapping[str, Part], now: Mapping[str, Part]) -> list[str]:
    """Say which parts differ; code first, as the rest may follow from it."""
    changed = [
        name for name in {**was, **now} if name in was and name in now and not was[name].equals(now[name])
    ]
    changed.sort(key=lambda name: not name.startswith(_CODE))
    found = [_difference(name, was[name], now[name]) for name in changed]
    by_code = any(name.startswith(_CODE) for name in changed)
    excused = _known_once_loaded(was, now)
    for name in {**was, **now}:
        if name.startswith(_MODULE) or (excused and re.search(excused, name)):
            continue  # a module that is new is so by a change of other code, if that is read at all
        # Changed code uses other things, which need not be said.
        if (name in was) != (name in now) and (not by_code or name.startswith(_ARGUMENT)):
            text = (now if name in now else was)[name].text
            shown = "" if name.startswith(_CODE) or not text else f" ({text})"
            found.append(f"{name}{shown} is {'new' if name in now else 'gone'}")
    if len(found) > _MAX_DIFFERENCES:
        found[_MAX_DIFFERENCES - 1 :] = [f"and {len(found) - _MAX_DIFFERENCES + 1} more"]
    return found


def _known_once_loaded(was: Mapping[str, Part], now: Mapping[str, Part]) -> str:
    """Return a pattern for parts that only one of two runs knows, as only it had a module loaded.

    The module's source is the same in both. Empty if there is no such module.
    """
    modules = [
        re.escape(name.removeprefix(_MODULE))
        for name in was
        if name.startswith(_MODULE) and name in now and was[name].equals(now[name]) and was[name] != now[name]
    ]
    names = "|".join(modules)
    return rf"^the package |[ ]({names})\.| of ({names})$" if modules else ""


def _difference(name: str, was: Part, now: Part) -> str:
    if was.digest is None or now.digest is None:
        return f"{name} can't be pickled, so it is unknown whether it has changed"
    if was.text == now.text or not (was.text and now.text):
        unsteady = "" if name.startswith(_CODE) else f" ({now.text}{_UNSTEADY})"
        return f"{name} has changed{unsteady}"
    if not name.startswith(_CODE):
        return f"{name} is {now.text}; it was {was.text}"
    lines = list(difflib.unified_diff(was.text.splitlines(), now.text.splitlines(), n=0, lineterm=""))
    hunk = next(place for place, line in enumerate(lines) if line.startswith("@@")) + 1
    kept = list(itertools.takewhile(lambda line: not line.startswith("@@"), lines[hunk:]))
    came, went = ([line[1:].strip() for line in kept if line.startswith(sign)] for sign in "+-")
    # The first line that came, and of those that went the one that it most likely was.
    old_line = next(iter(difflib.get_close_matches(came[0], went, 1, 0) if came else went), "")
    new, old = (f"`{shorten_text(line)}`" if line else "" for line in ((came or [""])[0], old_line))
    if not old:
        return f"{name} has {new} now"
    return f"{name} has {new}; it was {old}" if new else f"{name} no longer has {old}"


def shorten_text(line: str, width: int = 100) -> str:
    """Return a line of code, cut to what fits in a message."""
    return line if len(line) <= width else f"{line[: width - 1]}…"


def hash_value(value: object) -> tuple[str | None, list[Any]]:
    """Return the fingerprint of an object, the same in every process, or None if it can't be pickled.

    Functions, classes and modules in it count by their names, and are returned beside it.
    """
    from datasets.fingerprint import Hasher

    stream = io.BytesIO()
    found: list[Any] = []
    try:
        pickler = _steady_pickler()(stream, recurse=True)
        pickler.definitions = found
        pickler.dump(value)
    except _CANT_PICKLE:
        return None, found
    return str(Hasher.hash_bytes(stream.getvalue())), found


@functools.lru_cache(maxsize=1)
def _steady_pickler() -> Any:
    """Return the pickler behind ``Hasher.hash``, with a fixed order for frozensets.

    Private, for want of a public way: ``Hasher.hash`` sorts sets but not frozensets, and every
    ``word in {"a", "b"}`` is compiled into one. Their order changes with the hash seed, so such a
    function would count as changed in the next process.
    """
    from datasets.fingerprint import Hasher
    from datasets.utils import _dill

    table = _dill.Pickler.dispatch

    class SteadyPickler(_dill.Pickler):  # type: ignore[misc]  # datasets has no types
        # A copy of the same class: other libraries' hashes must not change with ours.
        dispatch = type(table)(table)
        definitions: list[Any]

        def persistent_id(self, value: Any) -> str | None:
            if isinstance(value, (FunctionType, type, ModuleType)):
                self.definitions.append(value)
                name = getattr(value, "__qualname__", "")
                return f"{getattr(value, '__module__', None)}.{name or value.__name__}"
            return None

    def save_frozenset(pickler: Any, value: frozenset[Any]) -> None:
        pickler.save_reduce(frozenset, (sorted(value, key=Hasher.hash),), obj=value)

    SteadyPickler.dispatch[frozenset] = save_frozenset
    return SteadyPickler
