"""Bars that a task's code makes with tqdm count for its run, and do not draw.

While a task runs, a few methods of tqdm have hooks. None of them is called for an item: tqdm counts by
itself, and what it has counted is read where it keeps it. So a loop costs what it costs with tqdm alone, and
the bar behaves as ever.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from tqdm import std

from .._interrupts import after_fork_in_child
from .._state.stage_limit import StageLimit
from .._worker.context import current, tally_here
from .._worker.process import in_ray_worker
from .._worker.reporter import Reporter, Tally
from . import tqdm_bar
from .tqdm_bar import MAX_STAGES, CapturedBar
from .tqdm_silence import draws_elsewhere, options_by_name, silence_bar

_PART = "_speedy_utils_part"
"""Where a bar keeps what counts for it."""


_FILES = (
    "Computing checksums",
    "Counting rows for split=",
    "Creating CSV from",
    "Creating SQL from",
    "Creating json from",
    "Creating parquet from",
    "Downloading ",
    "Extracting data files",
    "Flattening the indices",
    "Generating ",
    "Indexing TsFile",
    "Loading dataset ",
    "Resolving data files",
    "Saving the dataset",
    "Uploading the dataset",
)
"""How ``datasets`` begins to describe the reading and writing of files."""


_around: ContextVar[tuple[CapturedBar, ...]] = ContextVar("speedy_utils_bars", default=())
"""The bars made in this context that may be open."""


_tasks: dict[Reporter, _Task] = {}
"""The tasks whose bars are adopted."""


_worker = False
"""Whether this process is a Ray worker: then every thread in it is its task's."""


_child = False
"""Whether this process was forked by a task: its bars stay quiet, and it is the parent that counts."""


class _Task:
    """A task and the bars that it has open: a part of its own tally, as which it is looked at regularly."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.stage_limit = StageLimit(MAX_STAGES)
        self.around: tuple[CapturedBar, ...] = ()
        self.open: dict[CapturedBar, bool] = {}  # each with whether another thread than the task's made it

    def adopt(self, bar: Any, tally: Tally, *, quiet: bool) -> CapturedBar:
        mine = [part for part in _around.get() if not part.closed]
        elsewhere = threading.get_ident() != self.thread
        with tqdm_bar.lock:
            # A thread has no context of the task's, but it works for the loop that the task is in meanwhile.
            nested = any(part.covers(tally) for part in (*mine, *(self.around if elsewhere else ())))
            part = CapturedBar(bar, tally, self.stage_limit, nested=nested, quiet=quiet, forget=self.forget)
            _around.set((*mine, part))
            if not elsewhere:
                self.around = _around.get()
                # In ``tqdm(pool.map(...))`` the threads are at work before the bar is there.
                for other, away in list(self.open.items()):
                    if away:
                        other.enclose(tally)
            self.open[part] = elsewhere
        return part

    def forget(self, part: CapturedBar) -> None:
        self.open.pop(part, None)

    def read(self) -> int:
        """Let bars find out whether they have begun to count; they count elsewhere."""
        for part in list(self.open):
            part.look()
        return 0

    def close(self) -> None:
        for part in list(self.open):
            part.close()


def _here() -> tuple[_Task, Tally] | None:
    """The task that a bar made here belongs to, and the tally that counts here."""
    # Outside Ray's workers a thread without a context need not be the task's: its bars are left alone.
    tally = tally_here() if _worker else current.get()
    task = _tasks.get(tally.reporter) if tally is not None else None
    return None if task is None or tally is None else (task, tally)


def _init(original: Callable[..., None], bar: Any, *args: Any, **kwargs: Any) -> None:
    here = _here()
    options = options_by_name(args, kwargs)
    if not (here or _child) or options is None or options.get("disable"):
        original(bar, *args, **kwargs)
        return
    quiet = not draws_elsewhere(options)
    options["disable"] = False  # where nobody said so, or where the environment says so of the display
    if quiet:
        silence_bar(bar, options)
    original(bar, **options)
    if here and not _moves_files(bar, options.get("desc")):
        task, tally = here
        setattr(bar, _PART, task.adopt(bar, tally, quiet=quiet))


def _moves_files(bar: Any, desc: Any) -> bool:
    """Whether a bar of ``datasets`` tells of files read or written, which is not what the task is for."""
    theirs = any(kind.__module__.startswith("datasets.") for kind in type(bar).__mro__)
    return theirs and isinstance(desc, str) and desc.startswith(_FILES)


def _iter(original: Callable[[Any], Iterator[Any]], bar: Any) -> Iterator[Any]:
    part = _part(bar)
    if part is not None:
        part.start(bar)
    return original(bar)


def _describe(original: Callable[..., None], bar: Any, *args: Any, **kwargs: Any) -> None:
    part = _part(bar)
    if part is not None:
        part.look(bar)  # what it has counted by now, it has counted under the old name
    original(bar, *args, **kwargs)


def _reset(original: Callable[..., None], bar: Any, *args: Any, **kwargs: Any) -> None:
    part = _part(bar)
    if part is None:
        original(bar, *args, **kwargs)
    else:
        with part.restarting(bar):
            original(bar, *args, **kwargs)


def _close(original: Callable[[Any], None], bar: Any) -> None:
    part = _part(bar)
    if part is not None:
        part.close(bar)
    original(bar)


def _part(bar: Any) -> CapturedBar | None:
    part = vars(bar).get(_PART)
    return part if isinstance(part, CapturedBar) else None


_HOOKS: dict[str, Callable[..., Any]] = {
    "__init__": _init,
    "__iter__": _iter,
    "close": _close,
    "reset": _reset,
    "set_description": _describe,
    "set_description_str": _describe,
}


class TqdmPatch:
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


_hooks = TqdmPatch(_HOOKS)


def _after_fork() -> None:
    """A child's bars stay quiet, and nobody holds its locks."""
    global _child
    _child = _child or bool(_tasks)
    _tasks.clear()
    tqdm_bar.renew_lock()
    _hooks.renew_lock()


after_fork_in_child(_after_fork)


@contextmanager
def capturing_tqdm(tally: Tally | None = None) -> Iterator[None]:
    """Let bars of tqdm count for a task, and draw nothing, until the block ends.

    They are the bars that are made where the task counts: in its context and, in a Ray worker, in threads
    that it starts. Each counts for the stage that its description names. One without a name counts where
    the task's unnamed counts go, as long as nothing else does, and unless it is inside another bar.

    Args:
        tally: What counts for the task; what counts here where None.
    """
    global _worker
    tally = current.get() if tally is None else tally
    if tally is None or tally.reporter in _tasks:
        yield
        return
    _worker = _worker or in_ray_worker()
    task = _Task()
    token = _around.set(())
    tally.reporter.own.open(task)
    _tasks[tally.reporter] = task
    _hooks.install(tally.reporter)
    try:
        yield
    finally:
        stop_capturing(tally.reporter)
        # A generator may be closed in a context other than the one it was begun in, and need not reset that.
        with suppress(ValueError):
            _around.reset(token)
        # Generators may end in another order than they began: then these are of one that has ended.
        _around.set(tuple(part for part in _around.get() if not part.closed))


def stop_capturing(reporter: Reporter) -> None:
    """End what :func:`capturing_tqdm` has begun for a task; to do so twice does no harm."""
    _hooks.remove(reporter)
    task = _tasks.pop(reporter, None)
    if task is not None:
        task.close()
        reporter.own.close(task, 0)


def captured_here() -> bool:
    """Whether a bar that is made here is adopted."""
    return _here() is not None
