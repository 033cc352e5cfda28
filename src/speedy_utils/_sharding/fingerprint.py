"""What makes two dataset runs the same run: their dataset, function, arguments and cut.

Everything is compared by fingerprint, made by ``datasets.fingerprint`` the way ``Dataset.map``
makes the names of its cache files.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True)
class Fingerprint:
    """What a run works on and with.

    Attributes:
        dataset: The fingerprint of the dataset.
        num_rows: Its rows.
        function: The name of ``process_func``.
        code: The fingerprint of ``process_func``, or None if it can't be pickled.
        kwargs: The fingerprint of each of its keyword arguments, or None if it can't be pickled.
    """

    dataset: str
    num_rows: int
    function: str
    code: str | None
    kwargs: Mapping[str, str | None]


def fingerprint_run(
    dataset: Dataset, func: Callable[..., Any], kwargs: Mapping[str, Any], helpers: str = ""
) -> Fingerprint:
    """Take the fingerprints of a run.

    A function counts as changed when its own code, its closure, or a global it uses by value has
    changed, or the code that it calls in modules of the project. Values of these modules, and code of
    installed packages, are not looked at.

    Args:
        dataset: The dataset as it will be cut (shuffled and shortened already).
        func: ``process_func``.
        kwargs: Its keyword arguments.
        helpers: A fingerprint of the code that it calls in modules of the project.

    Returns:
        The fingerprints. That of a function or an argument that can't be pickled is None.
    """
    inner = inspect.unwrap(func)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    pickled = _fingerprint(func)
    if pickled is None and inner is not func:
        # A decorator's wrapper may be no more than a proxy that refuses to be pickled.
        pickled = _fingerprint(inner)
    return Fingerprint(
        # Private, but the only name a dataset has for its content.
        dataset=dataset._fingerprint,
        num_rows=len(dataset),
        function=f"{named.__module__}.{named.__qualname__}",
        # A function of an imported module is pickled as its name alone, so its code is added.
        code=None
        if pickled is None
        else "-".join(filter(None, (pickled, _code_fingerprint(inner), helpers))),
        kwargs={str(key): _fingerprint(value) for key, value in kwargs.items()},
    )


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
    unsteady = "if it has not, something in it pickles differently from run to run"
    if was.function != now.function:
        found.append(f"process_func is {now.function}; it was {was.function}")
    elif was.code is None or now.code is None:
        found.append(f"process_func {now.function} can't be pickled, so it is unknown whether it has changed")
    elif was.code != now.code:
        found.append(f"process_func {now.function} has changed ({unsteady})")
    for key in sorted({*was.kwargs, *now.kwargs}):
        if key not in was.kwargs:
            found.append(f"the argument {key!r} is new")
        elif key not in now.kwargs:
            found.append(f"the argument {key!r} is gone")
        elif was.kwargs[key] is None or now.kwargs[key] is None:
            found.append(f"the argument {key!r} can't be pickled, so it is unknown whether it has changed")
        elif was.kwargs[key] != now.kwargs[key]:
            found.append(f"the argument {key!r} has changed ({unsteady})")
    return found


def _fingerprint(value: object) -> str | None:
    """Return the fingerprint of an object, the same in every process, or None if it can't be pickled."""
    from datasets.fingerprint import Hasher

    stream = io.BytesIO()
    try:
        _steady_pickler()(stream, recurse=True).dump(value)
    except _CANT_PICKLE:
        return None
    return str(Hasher.hash_bytes(stream.getvalue()))


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

    def save_frozenset(pickler: Any, value: frozenset[Any]) -> None:
        pickler.save_reduce(frozenset, (sorted(value, key=Hasher.hash),), obj=value)

    SteadyPickler.dispatch[frozenset] = save_frozenset
    return SteadyPickler


def _code_fingerprint(func: Any) -> str:
    """Return the fingerprint of what a callable itself executes; that of nothing for compiled code."""
    func = getattr(func, "__func__", func)
    if not hasattr(func, "__code__"):
        func = type(func).__call__  # an instance that can be called runs its class's method
    code = getattr(func, "__code__", None)
    text = _code_text(code) if isinstance(code, CodeType) else ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code_text(code: CodeType) -> str:
    """Return a code object as text, without the files and lines it comes from."""
    constants = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constants.append(_code_text(constant))
        elif isinstance(constant, frozenset):
            constants.append(str(sorted(map(repr, constant))))  # a set has no order across processes
        else:
            constants.append(repr(constant))
    return repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants))
