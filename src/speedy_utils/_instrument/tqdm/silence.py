"""Keep a tqdm bar from drawing: it is made with other options, and counts and measures time as ever."""

from __future__ import annotations

import inspect
import io
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import std

OFFSCREEN_POSITION = 1_000_000
"""The first position of silent bars. No terminal has it, so they take none from others and write nothing.

Each has one of its own: tqdm compares bars by their positions, as in ``bars.remove(bar)``.
"""

_positions = itertools.count(OFFSCREEN_POSITION)

_MAX_INTERVAL_S = 0.1
"""How often a silent bar writes down how far its loop is, at least: tqdm's default ``mininterval``."""


class NullStream(io.TextIOBase):
    """A stream that drops what is written, for silent bars."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)


_null_stream = NullStream()


class _NoWidget:
    """A stand-in for the widgets of a bar of ``tqdm.notebook``: anything may be done with it."""

    @property
    def children(self) -> tuple[_NoWidget, ...]:
        return self, self, self

    def __getattr__(self, name: str) -> _NoWidget:
        return self

    def __call__(self, *_: Any, **__: Any) -> _NoWidget:
        return self


_PARAMETERS = tuple(
    name
    for name, parameter in inspect.signature(std.tqdm.__init__).parameters.items()
    if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
)
"""The parameters of a bar that may be given by position."""


def options_by_name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of a new bar by name, or None if tqdm will refuse them."""
    options = {**dict(zip(_PARAMETERS, args)), **kwargs}  # noqa: B905 - tqdm complains of too many itself
    return options if len(options) == len(args) + len(kwargs) else None


def draws_elsewhere(options: Mapping[str, Any]) -> bool:
    """Return whether a bar with these options would write to a file of its own, not to the screen."""
    file = options.get("file")
    if file is None or any(file is s for s in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
        return False
    disable = options["disable"] if "disable" in options else _disabled_by_default()
    return bool(getattr(file, "isatty", lambda: True)()) if disable is None else not disable


def _disabled_by_default() -> bool | None:
    """Return the default of ``disable``, which TQDM_DISABLE changes."""
    parameter = inspect.signature(std.tqdm.__init__).parameters.get("disable")
    return False if parameter is None else parameter.default  # another patch of tqdm may take just anything


def is_silenced(options: Mapping[str, Any]) -> bool:
    """Return whether :func:`silence_bar` has changed these options."""
    position = options.get("position")
    return isinstance(position, int) and position >= OFFSCREEN_POSITION


def silence_bar(bar: Any, options: dict[str, Any]) -> None:
    """Change the options of a bar that is about to be made, so that it draws nothing."""
    options |= {
        "file": _null_stream,
        "position": next(_positions),
        "nrows": OFFSCREEN_POSITION,
        "dynamic_ncols": False,
        "delay": 0,
        "leave": False,  # saves formatting a last line
    }
    interval = options.get("mininterval", _MAX_INTERVAL_S)
    if interval:  # 0 makes a bar that can be read at each item
        options |= {"mininterval": min(interval, _MAX_INTERVAL_S), "miniters": None}
    notebook = sys.modules.get("tqdm.notebook")
    if notebook is not None and isinstance(bar, notebook.tqdm_notebook):
        bar.status_printer = lambda *_, **__: _NoWidget()
        bar.display = lambda *_, **__: None
        options["delay"] = 1e-9  # without a delay it shows its widgets at once
