"""The options that all ways to run share, validated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import InitVar, dataclass
from typing import Any, Literal

from ..._display.base import Display, Progress, checked_progress
from ..._engines.base import ENGINES, Engine, WorkSpec, default_backend, engine_class
from ..._engines.chunk_sizes import MAX_CHUNK_S, ChunkSizes
from ..._engines.limits.retries import RetryOn, RetryWait, checked_retries
from ..._engines.task import TaskSettings
from ..._engines.worker_logs import WorkerLogs, checked_worker_logs
from ..._instrument.decorator import (
    is_async_generator_function,
    is_coroutine_function,
    is_generator_function,
)
from ..._interrupts import ending_on_sigterm
from ..._run.forwarding import display_here
from ..._validation import (
    checked_choice,
    checked_count,
    checked_interval,
    checked_name,
    checked_optional,
    shorten,
)

Backend = Literal["ray", "processes", "threads", "seq", "process", "mp"]

ALIASES = {"mp": "threads", "process": "processes"}
"""Other names of backends, which are accepted and not mentioned."""

RESERVED_RAY_OPTIONS = {
    "max_retries": "use max_retries= of this call",
    "retry_exceptions": "use retry_on= of this call",
    "num_returns": "a task has one result",
}
"""Options of Ray's tasks that a run sets itself, and what to do instead."""

ONE_TASK = ("num_gpus", "max_calls")
"""Options of Ray's tasks that are meant for each item: none travels together with others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What each way to run takes; :func:`~speedy_utils.multi_process` documents the options.

    The constructor takes them as the user gave them. The attributes then hold the name of a backend and not
    its alias, plain integers, None for an empty name, and a dict for ``ray_options``.

    Args:
        asks_for_ray: Whether a backend of None is Ray in any case, as the function is Ray's.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option has a value that is not allowed.

    Example:
        >>> options = RunOptions(backend="mp", desc="", num_workers=2)
        >>> options.backend, options.desc, options.workers()
        ('threads', None, 2)
        >>> RunOptions(poll_interval=0)
        Traceback (most recent call last):
        ...
        ValueError: poll_interval must be above 0 seconds, and finite, not 0
    """

    backend: str | None = None
    num_workers: int | None = None
    desc: str | None = None
    unit: str | None = None
    leave: bool = True
    poll_interval: float = 0.3
    progress: Progress = True
    adopt_tqdm: bool = True
    worker_logs: WorkerLogs = "all"
    max_retries: int = 3
    retry_on: RetryOn = ()
    retry_wait: RetryWait = 1.0
    task_timeout: float | None = None
    stall_after: float | None = 300.0
    chunksize: int | None = None
    ray_options: Mapping[str, Any] | None = None
    asks_for_ray: InitVar[bool] = False

    def __post_init__(self, asks_for_ray: bool) -> None:
        checked_progress(self.progress)
        checked_worker_logs(self.worker_logs)
        ray_options = checked_ray_options(self.ray_options)
        checked = {
            "backend": checked_backend(self.backend, asks_for_ray=asks_for_ray or bool(ray_options)),
            "num_workers": checked_optional(self.num_workers, "num_workers", least=1),
            "desc": checked_name(self.desc),
            "unit": checked_name(self.unit, "unit"),
            "poll_interval": checked_interval(self.poll_interval),
            "max_retries": checked_count(self.max_retries, "max_retries"),
            "stall_after": None
            if self.stall_after is None
            else checked_interval(self.stall_after, "stall_after"),
            "chunksize": checked_optional(self.chunksize, "chunksize", least=1),
            "ray_options": ray_options,
        }
        if self.backend == "ray" and any((self.ray_options or {}).get(name) for name in ONE_TASK):
            checked["chunksize"] = 1
        checked_retries(self.retry_on, self.retry_wait)
        if self.task_timeout is not None:
            checked["task_timeout"] = checked_interval(self.task_timeout, "task_timeout")
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # as the class is frozen

    def workers(self, function: Callable[..., Any] | None = None) -> int:
        """Return how many tasks may run at once, at most.

        Args:
            function: What they call. More coroutines than functions run at once in threads.
        """
        awaits = function is not None and is_coroutine_function(function)
        return self.num_workers or self._engine_class().default_workers(awaits=awaits)

    def display(self) -> Display:
        """Return the display of a run that starts here."""
        return display_here(self.progress, leave=self.leave)

    def ending_on_sigterm(self) -> AbstractContextManager[None]:
        """Return a block in which SIGTERM ends a run as Ctrl-C does; Ray sees to that by itself."""
        return nullcontext() if self.backend == "ray" else ending_on_sigterm()

    def small_tasks(self, *, raises: bool, counts_apart: bool = False) -> tuple[ChunkSizes, TaskSettings]:
        """Return how many tasks travel together, and what holds for all of them.

        Args:
            raises: Whether the first task that fails ends the run.
            counts_apart: Whether it must be known what each task counts.
        """
        sizes = ChunkSizes(self.chunksize)
        settings = TaskSettings(
            adopt_tqdm=self.adopt_tqdm,
            stall_after=self.stall_after,
            stop_at_failure=raises,
            most_seconds=MAX_CHUNK_S if self.task_timeout is not None else sizes.most_seconds,
            counts_apart=counts_apart,
            task_timeout=self.task_timeout,
        )
        return sizes, settings

    def engine(
        self,
        function: Callable[..., Any],
        kwargs: Mapping[str, Any],
        workers: int,
        settings: TaskSettings,
        items: Sequence[Any] = (),
    ) -> Engine:
        """Return an engine, not started yet.

        Args:
            function: What it calls for each item.
            kwargs: The function's arguments besides the item.
            workers: How many tasks run at once.
            settings: What holds for all of them.
            items: Their items; empty if looking one up makes it.
        """
        work = WorkSpec(
            function,
            kwargs,
            workers,
            self.ray_options or {},
            self.worker_logs,
            may_grow=self.num_workers is None,
            settings=settings,
            retries=checked_retries(self.retry_on, self.retry_wait),
            items=items,
        )
        return self._engine_class()(work)

    def _engine_class(self) -> type[Engine]:
        return engine_class(str(self.backend))  # it is not None any more


def checked_function(function: Any, name: str, *, rows: bool = False) -> None:
    """Check what a run calls.

    Args:
        function: The function.
        name: The name of the argument.
        rows: Whether it may be a generator function, which yields rows.

    Raises:
        TypeError: It can't be called, or its calls would run none of its code.
    """
    if not callable(function):
        raise TypeError(f"{name} must be callable, not {shorten(function)}")
    if is_async_generator_function(function):
        raise TypeError(
            f"{name} is an async generator function, {shorten(function)}: a call of it runs none of its "
            "code. Make it an async function that returns a list: return [row async for row in rows()]"
        )
    if not rows and is_generator_function(function):
        raise TypeError(
            f"{name} is a generator function, {shorten(function)}: a call of it runs none of its code. Make "
            "it return a list in place of yielding, or pass a dataset to multi_process_dataset, which takes "
            "generator functions"
        )


def checked_backend(backend: Any, *, asks_for_ray: bool = False) -> str:
    """Return the name of a backend, of which an alias may have been given; None for the default one.

    Args:
        backend: The name.
        asks_for_ray: Whether the default is Ray in any case.

    Raises:
        ValueError: There is no such backend.
    """
    if backend is None:
        return default_backend(asks_for_ray=asks_for_ray)
    if isinstance(backend, str):
        backend = ALIASES.get(backend, backend)
    checked_choice(backend, "backend", ENGINES)
    name: str = backend
    return name


def checked_ray_options(ray_options: Any) -> dict[str, Any]:
    """Return options for Ray's tasks as a dict of its own.

    Raises:
        TypeError: They are neither a mapping nor None.
        ValueError: There is one among them that a run sets itself.
    """
    if ray_options is not None and not isinstance(ray_options, Mapping):
        raise TypeError(f"ray_options must be a mapping of options to values, not {shorten(ray_options)}")
    options = dict(ray_options or {})
    for name, instead in RESERVED_RAY_OPTIONS.items():
        if name in options:
            raise ValueError(f"ray_options may not hold {shorten(name)}: {instead}")
    return options
