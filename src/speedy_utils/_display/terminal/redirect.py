"""Puts a :class:`StreamProxy` in place of ``sys.stdout`` and ``sys.stderr``, and restores them.

Ray looks both up each time it prints what its workers say, so that arrives there too. Others keep the stream
that they found once, or its ``write``: the sinks of loguru, handlers of ``logging``, ``sys.__stderr__``. What
they write reaches the buffer of the stream, and is caught there. Of streams that have no such buffer, the
handlers of ``logging`` get the proxies.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BufferedWriter, FileIO, TextIOBase, TextIOWrapper
from typing import Any, TextIO

from ..._interrupts import after_fork_in_child
from .lines import StreamProxy, StreamWriter, called_by_tqdm

_NAMES = ("stdout", "stderr")

_lock = threading.RLock()  # a signal handler may end a run that is being drawn

_users: dict[int, tuple[object, StreamWriter | None]] = {}
"""What needs the proxies, with its writer, by identity: screens, and runs whose threads print."""

_kept: dict[str, StreamProxy] = {}
"""The last proxy of each stream. Up to Python 3.12.9 and 3.13.2 ``print`` holds no reference to its stream
(https://github.com/python/cpython/issues/130163): were it freed meanwhile, that would crash."""

_joined: list[StreamProxy] = []
"""The proxies that pass on whole lines; perhaps several times."""

_caught: dict[int, tuple[StreamProxy, Callable[[bytes], object]]] = {}
"""The proxy of a stream whose buffer is watched, and what writes to that, by the identity of the stream."""


def write_directly(file: TextIO, text: str) -> None:
    """Write a text to a terminal, past what is caught there."""
    caught = _caught.get(id(file))
    if caught is None:
        file.write(text)
        file.flush()
    else:
        caught[1](text.encode(file.encoding, file.errors or "strict"))
        file.buffer.flush()


def is_taken(stream: Any) -> bool:
    """Return whether code of others that draws stands in for a stream, such as a live display of rich.

    It would take what moves the cursor for text, or draw in the same rows.
    """
    return not isinstance(stream, TextIOBase) or hasattr(stream, "rich_proxied_file")


def unwrap(file: TextIO | None) -> TextIO:
    """Return a file that may be a proxy, or ``sys.stderr`` if it is None, unwrapped."""
    stream = sys.stderr if file is None else file
    return stream.wrapped if isinstance(stream, StreamProxy) else stream


def redirect_streams(
    user: object, *, writer: StreamWriter | None = None, terminal: TextIO | None = None
) -> None:
    """Put proxies in place of the streams until all users have restored them.

    A user may call it again, to redirect what the program has put in place of the streams meanwhile.

    Args:
        user: What needs the proxies; known by its identity.
        writer: Where printed texts go. With a writer only streams that lead to a terminal are redirected;
            without one all are, and their texts pass through ``output_filter`` and in whole lines.
        terminal: The file that the writer draws on.
    """
    with _lock:
        _users[id(user)] = user, writer
        for name in _NAMES:
            stream = getattr(sys, name)
            if stream is None:  # a daemon has none
                continue
            if writer is not None and (not is_terminal(stream) or is_taken(stream)):
                continue
            proxy = _proxy_of(name, stream)
            if writer is None:
                proxy.join_lines()
                _joined.append(proxy)
            elif proxy.writer is not writer:
                proxy.attach(writer, shared=_same_terminal(proxy.wrapped, terminal))
            # Last, as another thread may print at any moment.
            if writer is not None:
                _catch_writes(proxy)
            if stream is not proxy:
                _replace(name, stream, proxy)


def restore_streams(user: object) -> None:
    """Restore the streams if no other user needs the proxies. Idempotent."""
    with _lock:
        _users.pop(id(user), None)
        joining = any(writer is None for _, writer in _users.values())
        beginnings = [] if joining else _release_lines()
        for proxy, _ in [*_caught.values()]:
            if proxy.writer is user:
                _release_writes(proxy.wrapped)
        for name in _NAMES:
            proxy = getattr(sys, name)
            # If it is another stream, the code that has put it there restores what it found.
            if isinstance(proxy, StreamProxy):
                if not _users:
                    _replace(name, proxy, proxy.wrapped)
                if proxy.writer is user:
                    proxy.attach(None, shared=False)
    _write_beginnings(beginnings)  # without the lock: the screen that shows them has one of its own


def _release_lines() -> list[tuple[StreamProxy, dict[int, list[str]]]]:
    """Let the proxies join lines no more, and return the beginnings of lines that each has."""
    released = [(proxy, proxy.release_lines()) for proxy in _joined]
    _joined.clear()
    return released


def _write_beginnings(released: list[tuple[StreamProxy, dict[int, list[str]]]]) -> None:
    for proxy, beginnings in released:
        proxy.write_beginnings(beginnings)


atexit.register(lambda: _write_beginnings(_release_lines()))  # of threads that the program leaves behind


def _proxy_of(name: str, stream: Any) -> StreamProxy:
    if isinstance(stream, StreamProxy):
        return stream
    kept = _kept.get(name)
    if kept is None or kept.wrapped is not stream:
        kept = _kept[name] = StreamProxy(stream)
    return kept


def _replace(name: str, former: Any, stream: Any) -> None:
    """Set a stream, also for the handlers of ``logging`` that took the former one when they were made."""
    setattr(sys, name, stream)
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


def _catch_writes(proxy: StreamProxy) -> None:
    """Let what is written to the wrapped stream itself go the way of what is printed. Idempotent."""
    file: Any = proxy.wrapped
    if type(file) is not TextIOWrapper or type(file.buffer) not in (BufferedWriter, FileIO):
        return
    # Others may have put a function of their own in place of one of them, to keep what the program prints.
    if "write" in vars(file) or "write" in vars(file.buffer) or os.linesep != "\n":
        return
    # The stream looks the method up at each write, also for code that has kept the stream's own.
    write = file.buffer.write
    _caught[id(file)] = proxy, write

    def catch(data: bytes) -> int:
        if proxy.writer is None or called_by_tqdm():
            write(data)
        else:
            text = bytes(data).decode(file.encoding, "replace")
            proxy.write(text)
            if not text.endswith("\n"):
                proxy.flush()
        return len(data)

    file.buffer.write = catch


def _release_writes(file: Any) -> None:
    del file.buffer.write
    del _caught[id(file)]


def is_terminal(stream: Any) -> bool:
    """Return whether a stream says that it leads to a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # it is no stream, or closed
        return False


def _same_terminal(one: Any, other: Any) -> bool:
    """Return whether one write to ``one`` may hold what belongs to either."""
    if one is other:
        return True
    # Streams other than Python's own may do more with a text than write it; and an encoding that lacks a
    # character of the block would raise in the thread that prints.
    if type(one) is not type(other) or type(one).__module__ != "_io":
        return False
    if not one.encoding.lower() == other.encoding.lower() == "utf-8":
        return False
    try:
        return os.ttyname(one.fileno()) == os.ttyname(other.fileno())
    except (AttributeError, OSError, ValueError):  # Windows has no ttyname()
        return False


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # a thread of the parent may have held the former one
    _release_lines()


after_fork_in_child(_after_fork)
