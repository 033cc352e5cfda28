"""How a tqdm bar is kept from drawing: it is made with other options, and counts and times as ever."""

from __future__ import annotations

import functools
import inspect
import io
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import std

OFFSCREEN_POSITION = 1_000_000
"""The line that quiet bars are on. No terminal has it: they take none from other bars, and write nothing."""


_INTERVAL = 0.1
"""Seconds between two looks of a quiet bar at how far its loop is: tqdm's default."""


class NullStream(io.TextIOBase):
    """Where quiet bars write."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)


_null_stream = NullStream()


class _NoWidget:
    """Stands where a bar of ``tqdm.notebook`` keeps its widgets."""

    @property
    def children(self) -> tuple[_NoWidget, ...]:
        return self, self, self

    def __getattr__(self, name: str) -> _NoWidget:
        return self

    def __call__(self, *_: Any, **__: Any) -> _NoWidget:
        return self


def options_by_name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a bar is made with, by name; None where tqdm will not take it."""
    options = {**dict(zip(_parameters(), args)), **kwargs}  # noqa: B905 - too many arguments are tqdm's to tell
    return options if len(options) == len(args) + len(kwargs) else None


@functools.cache
def _parameters() -> tuple[str, ...]:
    """The parameters of ``tqdm.__init__`` that may be given by position, without the bar itself."""
    parameters = inspect.signature(std.tqdm.__init__).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)[1:]


def draws_elsewhere(options: Mapping[str, Any]) -> bool:
    """Whether tqdm would draw a bar with these options, and not on the screen: in a file of its own."""
    file = options.get("file")
    if any(file is screen for screen in (None, sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
        return False
    if "disable" in options:
        disable = options["disable"]
    else:  # the environment may have changed the default
        disable = inspect.signature(std.tqdm.__init__).parameters["disable"].default
    return bool(getattr(file, "isatty", lambda: True)()) if disable is None else not disable


def silence_bar(bar: Any, options: dict[str, Any]) -> None:
    """Change what a bar is about to be made with, so that it draws nothing."""
    options |= {
        "file": _null_stream,
        "position": OFFSCREEN_POSITION,
        "nrows": OFFSCREEN_POSITION,
        "dynamic_ncols": False,
    }
    options |= {"delay": 0, "leave": False}  # nor is there a last line to format
    interval = options.get("mininterval", _INTERVAL)
    if interval:  # without one, the bar is made to be read at each item
        options |= {"mininterval": min(interval, _INTERVAL), "miniters": None}
    notebook = sys.modules.get("tqdm.notebook")
    if notebook is not None and isinstance(bar, notebook.tqdm_notebook):
        bar.status_printer = lambda *_, **__: _NoWidget()
        bar.display = lambda *_, **__: None
        options["delay"] = 1e-9  # it shows its widgets at once otherwise
