"""Let the bars that a task's code makes with tqdm count for its run, without drawing.

While a task runs, a few methods of tqdm do a little more: a new bar is made silent, and gets a
:class:`~.bar.CapturedBar` that reads what it has counted. None of these methods is called for an
item. tqdm counts by itself, and its ``n`` is read by the thread that sends the task's counts. So a loop costs
what it costs with tqdm alone, and the bar behaves as ever.

Bars of ``ray.experimental.tqdm_ray`` are captured too, once that module is imported.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import wrapt
from tqdm import std

from ..._interrupts import after_fork_in_child
from ..._state.stage_limit import StageLimit
from ..._worker import context, joining
from ..._worker.context import current, tally_here
from ..._worker.event_loop import is_awaited_by_worker
from ..._worker.process import in_ray_worker
from ..._worker.reporter import Reporter
from ..._worker.tally import Tally
from ..batches import may_be_all
from . import bar as bars
from .bar import MAX_STAGES, CapturedBar, stage_name
from .ray_bars import MODULE, RayBar
from .silence import draws_elsewhere, is_silenced, options_by_name, silence_bar

_ATTRIBUTE = "_speedy_utils_captured"
"""The attribute of a bar that holds its :class:`CapturedBar`."""

_VIEW = "_speedy_utils_view"
"""The attribute of a bar of Ray's that holds its :class:`RayBar`."""

_FILE_BARS = (
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
"""How ``datasets`` describes its bars for reading and writing files. All its others are for work on rows."""

_enclosing: ContextVar[tuple[CapturedBar, ...]] = ContextVar("speedy_utils_bars", default=())
"""The bars that were made in this context and may still be open: a new bar may be inside them."""

_tasks: dict[Reporter, list[_TaskBars]] = {}
"""The tasks whose bars are captured, each with its bars once it has made one: most make none."""

_threads_belong_to_task = False
"""Whether a thread without a context works for the task of this process, though this is no Ray worker."""

_forked_by_task = False
"""Whether a task forked this process. Then its bars draw nothing, and only its parent counts."""


class _TaskBars:
    """The open bars of one task.

    It is a part of the task's tally, so whatever reads the tally samples the bars first. It adds nothing
    itself: each bar counts for the tally of its stage.

    Attributes:
        open: The bars, each with whether it was made beside the task's own code.
        enclosing: Those of its own code that are around what it does now.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.thread = reporter.thread or threading.get_ident()
        self.stage_limit = StageLimit(MAX_STAGES)
        self.enclosing: tuple[CapturedBar, ...] = ()
        self.open: dict[CapturedBar, bool] = {}
        reporter.own.open(self, counts=False)

    def capture(self, bar: Any, tally: Tally, *, silent: bool, leave: bool) -> CapturedBar:
        """Let a new bar count for a tally."""
        tally.reporter.has_more = True
        open_here = [captured for captured in _enclosing.get() if not captured.closed]
        mine = [captured for captured in open_here if captured in self.open]  # and not around the task
        elsewhere = threading.get_ident() != self.thread and not is_awaited_by_worker()
        with bars.lock:
            # A thread that the task started has no context of its own, but it works for the loop that the
            # task is in meanwhile. An asyncio task may have a context from before that loop.
            around = (*mine, *self.enclosing) if elsewhere else mine
            nested = any(outer.encloses(tally) for outer in around)
            captured = CapturedBar(
                bar,
                tally,
                self.stage_limit,
                nested=nested,
                may_be_all=not nested and not stage_name(bar.desc) and may_be_all(tally.bars),
                silent=silent,
                leave=leave,
                on_close=self.discard,
            )
            _enclosing.set((*open_here, captured))
            if not elsewhere:
                self.enclosing = (*mine, captured)
                # In ``tqdm(pool.map(...))`` the threads are at work before the bar is there.
                for other, beside in list(self.open.items()):
                    if beside:
                        other.mark_nested(tally)
            self.open[captured] = elsewhere
        return captured

    def discard(self, captured: CapturedBar) -> None:
        """Forget a bar that was closed."""
        self.open.pop(captured, None)

    def read(self) -> int:
        """Sample the bars; return 0, as they count elsewhere."""
        for captured in list(self.open):
            captured.sample()
        return 0

    def share(self, whole: int) -> int:  # noqa: ARG002 - as of all parts
        """Return 0, as it counts nothing."""
        return 0

    def close(self) -> None:
        """Close the bars that the task left open."""
        for captured in list(self.open):
            captured.close()


def _capturing_tally() -> Tally | None:
    """Return the tally that a bar made here counts for; None if it is not captured."""
    tally = tally_here() if _threads_belong_to_task or in_ray_worker() else current.get()
    return tally if tally is not None and tally.reporter in _tasks else None


def _bars_of(reporter: Reporter) -> _TaskBars:
    """Return the bars of a task."""
    of_task = _tasks.get(reporter, [])  # it may be ending, as this thread outlives it
    with bars.lock:
        if not of_task:
            of_task.append(_TaskBars(reporter))
    return of_task[0]


def _captured(bar: Any) -> CapturedBar | None:
    captured = vars(bar).get(_ATTRIBUTE)
    return captured if isinstance(captured, CapturedBar) else None


def _view(bar: Any) -> Any:
    """Return what reads like a bar of tqdm."""
    return vars(bar).get(_VIEW, bar)


def _init(original: Callable[..., None], bar: Any, *args: Any, **kwargs: Any) -> None:
    tally = _capturing_tally()
    options = options_by_name(args, kwargs)
    if not (tally or _forked_by_task) or options is None or options.get("disable") or is_silenced(options):
        original(bar, *args, **kwargs)
        return
    silent, leave = not draws_elsewhere(options), options.get("leave") is not False
    # Not given, None (no bar off a terminal) or the environment's default: all are about the display alone.
    options["disable"] = False
    if silent:
        silence_bar(bar, options)
    _patch(std.tqdm, _METHODS)
    original(bar, **options)
    if tally and _captured(bar) is None and not _reads_or_writes_files(bar, options.get("desc")):
        task = _bars_of(tally.reporter)
        setattr(bar, _ATTRIBUTE, task.capture(bar, tally, silent=silent, leave=leave))


def _reads_or_writes_files(bar: Any, desc: Any) -> bool:
    """Return whether it is a bar of ``datasets`` for files, which are not the items of the task."""
    if not (isinstance(desc, str) and desc.startswith(_FILE_BARS)):
        return False
    return any(kind.__module__.startswith("datasets.") for kind in type(bar).__mro__)


def _iter(original: Callable[[Any], Iterator[Any]], bar: Any) -> Iterator[Any]:
    if (captured := _captured(bar)) is not None:
        captured.start(_view(bar))
    return original(bar)


def _set_description(original: Callable[..., None], bar: Any, *args: Any, **kwargs: Any) -> None:
    if (captured := _captured(bar)) is not None:
        captured.sample(_view(bar))  # what it has counted by now, it has counted under the old description
    original(bar, *args, **kwargs)


def _reset(original: Callable[..., None], bar: Any, *args: Any, **kwargs: Any) -> None:
    if (captured := _captured(bar)) is None:
        original(bar, *args, **kwargs)
    else:
        with captured.on_reset(bar):
            original(bar, *args, **kwargs)


def _close(original: Callable[[Any], None], bar: Any) -> None:
    if (captured := _captured(bar)) is not None:
        captured.close(_view(bar))
    original(bar)


def _init_ray_bar(original: Callable[..., None], bar: Any, *args: Any, **kwargs: Any) -> None:
    _patch(sys.modules[MODULE].tqdm, _RAY_BAR_METHODS)
    original(bar, *args, **kwargs)
    tally = _capturing_tally()
    if tally and _captured(bar) is None:
        view = RayBar(bar)
        setattr(bar, _VIEW, view)
        captured = _bars_of(tally.reporter).capture(view, tally, silent=False, leave=True)
        setattr(bar, _ATTRIBUTE, captured)
        # As tqdm's bars close when they are collected. At the end of the program all tasks have ended.
        weakref.finalize(bar, captured.close, view).atexit = False


def _draw_ray_bar(original: Callable[..., None], bar: Any, *args: Any, **kwargs: Any) -> None:
    if _captured(bar) is None and not _forked_by_task:
        original(bar, *args, **kwargs)


_METHODS: dict[str, Callable[..., Any]] = {
    "__init__": _init,
    "__iter__": _iter,
    "close": _close,
    "reset": _reset,
    "set_description": _set_description,
    "set_description_str": _set_description,
}
"""What runs in place of methods of tqdm: each is called with the original, and then like it."""

_RAY_BAR_METHODS: dict[str, Callable[..., Any]] = {
    "__init__": _init_ray_bar,
    "__iter__": _iter,
    "_dump_state": _draw_ray_bar,  # which each of its methods calls, once an item at the most
    "close": _close,
    "set_description": _set_description,
}
"""The same for the bars of Ray."""

_patches: set[object] = set()
"""The functions that were put in place of methods of tqdm."""

_waits_for_ray_bars = threading.Lock()
"""Taken once, by the thread that has the bars of Ray patched when their module is imported."""


def _patch_tqdm() -> None:
    """Put :data:`_METHODS` into tqdm, unless they are there.

    They stay. Without a task they call the original and nothing else. They are plain functions and not
    wrappers of wrapt, which make a bar outside tasks cost 3 µs more instead of 1, and can't be pickled.

    Code that patches tqdm as well may remove ours with its own patch, or hide it. It is then put on top once
    more. That it may be there twice changes nothing: each of :data:`_METHODS` may run twice for a call.
    """
    if vars(std.tqdm)["__init__"] not in _patches:  # the others are looked at once a bar is made
        _patch(std.tqdm, _METHODS)
    if (ray_bars := sys.modules.get(MODULE)) is not None:
        # Another thread may be importing it.
        if hasattr(ray_bars, "tqdm") and vars(ray_bars.tqdm)["__init__"] not in _patches:
            _patch(ray_bars.tqdm, _RAY_BAR_METHODS)
    elif not _waits_for_ray_bars.locked() and _waits_for_ray_bars.acquire(blocking=False):
        wrapt.register_post_import_hook(lambda _: _patch_tqdm(), MODULE)


def _patch(bars: type, methods: Mapping[str, Callable[..., Any]]) -> None:
    if _patches.issuperset(map(vars(bars).get, methods)):
        return
    for name, method in methods.items():
        if name in vars(bars) and vars(bars)[name] not in _patches:
            patch = _while_tasks_run(method, getattr(bars, name))
            _patches.add(patch)  # before it can be seen by another thread that comes here
            setattr(bars, name, patch)


def _while_tasks_run(method: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def patch(bar: Any, *args: Any, **kwargs: Any) -> Any:
        if _tasks or _forked_by_task:
            return method(original, bar, *args, **kwargs)
        return original(bar, *args, **kwargs)

    return patch


def _after_fork() -> None:
    global _forked_by_task
    _forked_by_task = _forked_by_task or bool(_tasks)
    _tasks.clear()
    _expect_run()


def _expect_run() -> None:
    """Capture the bars of a process that counts for a run which did not start it, from its first count on."""
    global _forked_by_task, _threads_belong_to_task
    if context.process_tally is not None:
        _forked_by_task = _threads_belong_to_task = True
        _patch_tqdm()


def _capture_for_good(reporter: Reporter) -> None:
    """Let all bars that are made in this process from now on count for a reporter."""
    _tasks[reporter] = []


after_fork_in_child(_after_fork)
joining.on_join.append(_capture_for_good)
_expect_run()


class capturing_tqdm:  # noqa: N801 - used like a function; as a generator it takes twice as long for each task
    """Let bars of tqdm count for a task, and draw nothing, until the block ends.

    These are the bars that are made where the task counts: in its context and, in a Ray worker, in threads
    that it starts. Each counts for the stage that its description names. A bar without a name counts for the
    task itself, as long as nothing else counts for it, and unless it is inside another bar.

    Args:
        tally: What counts for the task; if it is None, what counts in this context.
    """

    __slots__ = ("_reporter",)

    def __init__(self, tally: Tally | None = None) -> None:
        tally = current.get() if tally is None else tally
        self._reporter = None if tally is None or tally.reporter in _tasks else tally.reporter

    def __enter__(self) -> None:
        if self._reporter is not None:
            start_capturing(self._reporter)

    def __exit__(self, *exception: object) -> None:
        if self._reporter is not None:
            stop_capturing(self._reporter)


def start_capturing(reporter: Reporter) -> None:
    """Do what :func:`capturing_tqdm` does, until :func:`stop_capturing`."""
    _tasks[reporter] = []
    _patch_tqdm()


def stop_capturing(reporter: Reporter) -> None:
    """End what was begun for a task. Idempotent."""
    for task in _tasks.pop(reporter, ()):
        task.close()
        reporter.own.close(task, 0)
        # A generator may be closed in another context than it was started in.
        _enclosing.set(tuple(captured for captured in _enclosing.get() if not captured.closed))


def captured_here() -> bool:
    """Return whether a bar that is made here is captured."""
    return _capturing_tally() is not None
