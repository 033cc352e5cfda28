"""Ctrl-C that arrives while a library runs which swallows it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def keeping_ctrl_c() -> Iterator[None]:
    """Raise again what the block swallows: a KeyboardInterrupt that a library takes for its own error.

    Ray does so while it starts, ``datasets`` while it hashes the arguments of a transform, and fsspec while
    it looks whether a file exists.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    pressed, here = False, os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if os.getpid() != here:
            # A child that is about to be another program: Python would print what is raised in it.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        try:
            handler(number, frame)
        except KeyboardInterrupt:
            pressed = True
            raise

    try:
        signal.signal(signal.SIGINT, note)
        yield
    except Exception as error:
        if pressed:  # it is what came of it
            raise KeyboardInterrupt from error
        raise
    finally:
        try:
            signal.signal(signal.SIGINT, handler)
        except KeyboardInterrupt:  # it strikes before it is changed
            signal.signal(signal.SIGINT, handler)
            raise
    if pressed:
        raise KeyboardInterrupt
