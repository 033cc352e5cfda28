"""Hooks in ``tqdm.std.tqdm``, on which all of tqdm's classes and what derives from them stand."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import std


class Hooks:
    """Functions in place of some methods, there as long as anybody wants them.

    Args:
        hooks: What stands in for each method, by its name: called with the method itself, and then as it.
    """

    def __init__(self, hooks: Mapping[str, Callable[..., Any]]) -> None:
        self._hooks = hooks
        self._lock = threading.Lock()
        self._users: set[object] = set()
        self._placed: dict[str, tuple[Any, Any]] = {}  # what each took the place of, and itself

    def install(self, user: object) -> None:
        """Put them there for a user, unless they are."""
        with self._lock:
            others = bool(self._users)
            self._users.add(user)
            if others:
                return
            for name, hook in self._hooks.items():
                before = vars(std.tqdm)[name]
                if self._placed.get(name, (None,))[0] is not before:
                    self._placed[name] = before, self._hooked(name, hook)
                setattr(std.tqdm, name, self._placed[name][1])

    def remove(self, user: object) -> None:
        """Undo :meth:`install` for a user; the last takes them away. To do so twice does no harm."""
        with self._lock:
            self._users.discard(user)
            if self._users:
                return
            for name, (before, after) in self._placed.items():
                if vars(std.tqdm).get(name) is after:  # else somebody has put theirs over it
                    setattr(std.tqdm, name, before)

    def renew_lock(self) -> None:
        """Make a lock that nobody holds, in a forked child."""
        self._lock = threading.Lock()

    def _hooked(self, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        original = getattr(std.tqdm, name)

        @functools.wraps(original)
        def hooked(bar: Any, *args: Any, **kwargs: Any) -> Any:
            # Where somebody kept it, it may be called although it was removed, or although another is there.
            wanted = self._users and self._placed[name][1] is hooked
            return hook(original, bar, *args, **kwargs) if wanted else original(bar, *args, **kwargs)

        return hooked
