"""Puts streams in place of ``sys.stdout`` and ``sys.stderr``, and takes them away again.

Ray looks both up each time it prints what its workers say, so that arrives there too. Handlers of ``logging``
keep what they found when they were made; they get the streams as well.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TextIO

from ..._interrupts import after_fork_in_child
from .lines import StreamProxy, StreamWriter

_NAMES = ("stdout", "stderr")


_lock = threading.Lock()


_writers: list[StreamWriter] = []
"""Who draws."""


_holders = 0
"""How many others need the streams."""


_kept: dict[str, StreamProxy] = {}
"""What stood last in place of each stream. Up to Python 3.12.9 and 3.13.2 ``print`` holds no reference to its
stream (https://github.com/python/cpython/issues/130163): were it freed meanwhile, that would crash."""


def real_terminal(file: TextIO | None) -> TextIO:
    """A file, or what is ``sys.stderr`` by rights where it is None."""
    stream = sys.stderr if file is None else file
    return stream.real if isinstance(stream, StreamProxy) else stream


def take_streams(writer: StreamWriter, file: TextIO) -> None:
    """Let what is printed on a terminal go to a writer.

    Args:
        writer: Where it goes.
        file: The terminal that the writer draws on.
    """
    with _lock:
        if writer not in _writers:
            _writers.append(writer)
        for name in _NAMES:
            stream = getattr(sys, name)
            if _is_terminal(stream):
                printed = _printed(name, stream)
                if printed.writer is not writer:
                    printed.attach(writer, shared=_same_terminal(printed.real, file))
                # Not before: another thread may print at any moment.
                _replace(name, printed)


def give_streams_back(writer: StreamWriter) -> None:
    """End what :func:`take_streams` began."""
    with _lock:
        if writer in _writers:
            _writers.remove(writer)
        _restore()


def hold_streams() -> None:
    """Let all that is printed pass through :class:`StreamProxy`, also where it is no terminal."""
    global _holders
    with _lock:
        _holders += 1
        for name in _NAMES:
            stream = getattr(sys, name)
            if stream is not None:  # a daemon has none
                _replace(name, _printed(name, stream))


def release_streams() -> None:
    """End what :func:`hold_streams` began."""
    global _holders
    with _lock:
        _holders -= 1
        _restore()


def _printed(name: str, stream: Any) -> StreamProxy:
    """What stands, or will stand, in place of a stream."""
    if isinstance(stream, StreamProxy):
        return stream
    kept = _kept.get(name)
    if kept is None or kept.real is not stream:
        kept = _kept[name] = StreamProxy(stream)
    return kept


def _replace(name: str, printed: StreamProxy) -> None:
    if getattr(sys, name) is not printed:
        setattr(sys, name, printed)
        _divert(printed.real, printed)


def _restore() -> None:
    """Take away what nobody needs any more."""
    for name in _NAMES:
        stream = getattr(sys, name)
        # Who put a stream of their own there meanwhile will put back what they found.
        if isinstance(stream, StreamProxy) and not _holders and stream.writer not in _writers:
            setattr(sys, name, stream.real)
            _divert(stream, stream.real)
            stream.attach(None, shared=False)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def _same_terminal(one: Any, other: Any) -> bool:
    """Whether one write to ``one`` may hold what belongs to either."""
    if one is other:
        return True
    # Anything but Python's own streams may do more with a text than write it; and an encoding that lacks
    # a character of the block would raise in the thread of somebody who prints.
    if type(one) is not type(other) or type(one).__module__ != "_io":
        return False
    if not one.encoding.lower() == other.encoding.lower() == "utf-8":
        return False
    try:
        return os.ttyname(one.fileno()) == os.ttyname(other.fileno())
    except (OSError, ValueError):
        return False


def _divert(former: Any, stream: Any) -> None:
    """Let the handlers of ``logging`` that took one stream when they were made write to another."""
    for handler in _stream_handlers():
        if handler.stream is former:
            # Not setStream(): it waits for the handler, which may be waiting for the terminal.
            with suppress(AttributeError):  # one that looks its stream up each time
                handler.stream = stream


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    # A logger's place in the dictionary may be held by a placeholder.
    for logger in [logging.root, *list(logging.root.manager.loggerDict.values())]:
        for handler in list(getattr(logger, "handlers", ())):
            if isinstance(handler, logging.StreamHandler):
                yield handler


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


after_fork_in_child(_after_fork)
