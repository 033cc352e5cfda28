"""Whether other code reads from the terminal or draws on it, so that a block would be in the way."""

from __future__ import annotations

import builtins
import functools
import getpass
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from .redirect import is_taken, is_terminal

_ASKING = ((builtins, "input", ""), (getpass, "getpass", "Password: "))
"""The functions that ask, and what each asks by default. A debugger asks by ``input``."""

_MODES = ("ICANON", "ECHO")
"""What a terminal does for programs that don't do it themselves: it hands on whole lines, and shows keys."""

_MARKERS = dict.fromkeys((1, 2))
"""What surrounds the colours of a prompt, for readline alone."""


def input_mode(terminal: TextIO) -> int:
    """Return which of these a terminal does, as flags; 0 if that can't be known."""
    try:
        import termios

        flags = termios.tcgetattr(terminal.fileno())[3]
        return int(flags & sum(getattr(termios, mode) for mode in _MODES))
    except Exception:  # Windows has no termios; it is no terminal, or closed
        return 0


class Readers:
    """Who has the terminal at the moment.

    Python's ``input`` and ``getpass`` are watched. Others are known by what they set: who asks for a password
    turns the echo off, an editor of lines takes each key as it comes. Live displays of others are known by
    the streams that they put in place.
    """

    def __init__(self) -> None:
        self._prompts: dict[object, str] = {}
        self._usual_mode = 0
        self._others = False
        self._watched: list[Any] = []

    @property
    def prompt(self) -> str | None:
        """The last line of what is asked at the moment, if that is known."""
        prompts = [*self._prompts.values()]
        return prompts[-1] if prompts else None

    def start(self, terminal: TextIO, step_aside: Callable[[], object]) -> None:
        """Watch a terminal from now on. Idempotent.

        Args:
            terminal: The terminal.
            step_aside: Called before something is asked.
        """
        if not self._watched:
            self._usual_mode = input_mode(terminal)
            for module, name, prompt in _ASKING:
                self._watched.append(self._watch(getattr(module, name), prompt, step_aside))
                setattr(module, name, self._watched[-1])

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        for (module, name, _), watched in zip(_ASKING, self._watched, strict=False):
            if getattr(module, name) is watched:
                setattr(module, name, watched.__wrapped__)
        self._watched = []

    def look(self, terminal: TextIO) -> None:
        """Look whether other code reads from the terminal or draws on it; a print does not each time."""
        self._others = bool(self._usual_mode & ~input_mode(terminal)) or any(
            is_taken(stream) and is_terminal(stream) for stream in (sys.stdout, sys.stderr)
        )

    @property
    def there(self) -> bool:
        """Whether something is asked, or there were others when it was last looked."""
        return bool(self._prompts) or self._others

    def _watch(
        self, ask: Callable[..., str], default: str, step_aside: Callable[[], object]
    ) -> Callable[..., str]:
        @functools.wraps(ask)
        def watched(*args: Any, **kwargs: Any) -> str:
            prompt = str(args[0] if args else kwargs.get("prompt", default))
            with self._asking(prompt.rpartition("\n")[2].translate(_MARKERS)):
                step_aside()
                return ask(*args, **kwargs)

        return watched

    @contextmanager
    def _asking(self, prompt: str) -> Iterator[None]:
        reader = object()
        try:
            self._prompts[reader] = prompt
            yield
        finally:
            self._prompts.pop(reader, None)
