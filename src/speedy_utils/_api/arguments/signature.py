"""Whether a function can be called with an item and its arguments: found before any worker starts."""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from inspect import Parameter
from typing import Any

from ..._engines.task import Arguments
from ..._validation import shorten

logger = logging.getLogger("speedy_utils")

_MEANT = {
    **dict.fromkeys(
        (
            *("workers", "n_workers", "max_workers", "n_jobs", "njobs", "jobs", "processes", "num_processes"),
            *("n_processes", "num_proc", "nproc", "concurrency", "max_concurrency", "threads", "num_threads"),
        ),
        "num_workers",
    ),
    **dict.fromkeys(("chunk_size", "batch_size"), "chunksize"),
    **dict.fromkeys(("total", "length"), "total_items"),
    **dict.fromkeys(("description", "title"), "desc"),
    **dict.fromkeys(("retries", "max_attempts"), "max_retries"),
    **dict.fromkeys(("timeout", "time_limit"), "task_timeout"),
    **dict.fromkeys(("engine", "executor"), "backend"),
    **dict.fromkeys(("disable", "verbose", "show_progress", "progress_bar"), "progress"),
    "starmap": "star",
}
"""What other libraries call what a run takes."""


class _Unread:
    def __repr__(self) -> str:
        return "not read yet"


UNREAD = _Unread()
"""Stands for the first item of a source that is not read before the run starts."""


def checked_call(
    func: Any, item: Any, kwargs: Mapping[str, Any], run: inspect.Signature, given: Mapping[str, Any]
) -> None:
    """Check that ``func(item, **kwargs)`` is a call that the function takes.

    Nothing is said of functions that have no signature, such as some that are written in C.

    Args:
        func: The function.
        item: The first item, or :class:`~speedy_utils._engines.task.Arguments`.
        kwargs: The function's arguments besides.
        run: The signature of what runs it.
        given: The arguments that this was given.

    Raises:
        TypeError: The function can't be called like that.
    """
    try:
        signature = inspect.signature(func)
    except Exception:  # a `__signature__` is the user's code
        return
    args, keywords = item.unpack() if isinstance(item, Arguments) else ((item,), {})
    name = f"{getattr(func, '__qualname__', type(func).__qualname__)}{_without_types(signature)}"
    takes_any = any(each.kind is Parameter.VAR_KEYWORD for each in signature.parameters.values())
    by_name = {key for key, each in signature.parameters.items() if each.kind in _BY_NAME}
    taken = {key for key, each in run.parameters.items() if each.kind is Parameter.KEYWORD_ONLY}
    for key, value in kwargs.items():
        if key in keywords:
            raise TypeError(
                f"{key!r} is both in the first item, {shorten(item, 80)}, and an argument of the call"
            )
        if key not in by_name and not takes_any:
            meant = _MEANT.get(key) or next(iter(difflib.get_close_matches(key, taken | by_name, 1)), "")
            value = not value if key == "disable" else value  # as tqdm has it
            hint = f": did you mean {meant}={shorten(value, 40)}?" if meant in taken | by_name else ""
            raise TypeError(f"neither the run nor {name} has a parameter {key!r}{hint}")
    try:
        bound = signature.bind(*args, **{**keywords, **kwargs})
    except TypeError as error:
        hint = _hint(str(error), args, item, kwargs, by_name & taken)
        raise TypeError(f"{name} can't be called with {_shown(item, kwargs)}: {error}{hint}") from None
    for key in by_name & taken - bound.arguments.keys():
        default = run.parameters[key].default
        if given[key] is not default and given[key] != default:
            logger.warning(
                "%s=%s is the run's own argument, and the parameter %r of %s keeps its default: to set "
                "that, pass functools.partial(func, %s=...)",
                key,
                shorten(given[key], 40),
                key,
                name,
                key,
            )


_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def _without_types(signature: inspect.Signature) -> str:
    """Return a signature without its annotations: ``(text, *, model='small')``."""
    plain = [each.replace(annotation=Parameter.empty) for each in signature.parameters.values()]
    return str(inspect.Signature(plain))


def _shown(item: Any, kwargs: Mapping[str, Any]) -> str:
    """Return how a function is called: ``an item, 'text', and model=...``."""
    names = ", ".join(f"{key}=..." for key in kwargs)
    if isinstance(item, Arguments) and not item.item:  # it makes what is called with items
        return names or "no arguments"
    return f"an item, {shorten(item, 80)}{f', and {names}' if names else ''}"


def _hint(
    error: str, args: Sequence[Any], item: Any, kwargs: Mapping[str, Any], hidden: Collection[str]
) -> str:
    """Return what to do where a call does not fit, as far as that is known."""
    missing = re.search(r"missing a required (?:keyword-only )?argument: '(\w+)'", error)
    if missing and missing[1] in hidden:
        key = missing[1]
        return (
            f". The run takes {key}= itself: rename the parameter, or pass functools.partial(func, {key}=...)"
            " in place of func"
        )
    repeated = re.search(r"multiple values for argument '(\w+)'", error)
    if repeated and repeated[1] in kwargs:
        return (
            f". Each item is the first argument, which is {repeated[1]!r}: make the item's parameter the"
            " first one, or pass a lambda that calls func"
        )
    if missing and not isinstance(item, Arguments) and type(args[0]) in (tuple, dict):
        kind = "a tuple of arguments" if type(args[0]) is tuple else "a mapping of keywords"
        return f". If each item is {kind}, pass star=True"
    if "too many positional" in error and not isinstance(item, Arguments):
        return ". Each item is the first argument: give the function a positional parameter for it"
    return ""
