"""One progress bar for work that runs in many workers, exact to the item.

The names are loaded on first use: importing the package imports neither Ray nor datasets.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import BusyError as BusyError
    from .errors import FailedShardsError as FailedShardsError
    from .errors import MergeError as MergeError
    from .errors import ResumeError as ResumeError
    from .errors import ShardError as ShardError
    from .errors import TaskError as TaskError
    from .multi_worker.dataset_sharding import multi_process_dataset as multi_process_dataset
    from .multi_worker.process import multi_process as multi_process
    from .progress.actor import ProgressActor as ProgressActor
    from .progress.actor import create_progress_tracker as create_progress_tracker
    from .progress.context import set_progress_context as set_progress_context
    from .progress.instrument import report_progress as report_progress
    from .progress.instrument import track as track
    from .progress.poller import ProgressPoller as ProgressPoller
    from .progress.snapshot import Snapshot as Snapshot
    from .progress.snapshot import StageSnapshot as StageSnapshot
    from .progress.tracked import tracked as tracked

_HOMES = {
    "ProgressActor": ".progress.actor",
    "ProgressPoller": ".progress.poller",
    "Snapshot": ".progress.snapshot",
    "StageSnapshot": ".progress.snapshot",
    "BusyError": ".errors",
    "FailedShardsError": ".errors",
    "MergeError": ".errors",
    "ResumeError": ".errors",
    "ShardError": ".errors",
    "TaskError": ".errors",
    "create_progress_tracker": ".progress.actor",
    "multi_process_dataset": ".multi_worker.dataset_sharding",
    "multi_process": ".multi_worker.process",
    "report_progress": ".progress.instrument",
    "set_progress_context": ".progress.context",
    "track": ".progress.instrument",
    "tracked": ".progress.tracked",
}

__all__ = [  # noqa: RUF022 - in the order in which people meet them
    "report_progress",
    "track",
    "tracked",
    "multi_process",
    "multi_process_dataset",
    "TaskError",
    "ShardError",
    "ResumeError",
    "MergeError",
    "FailedShardsError",
    "BusyError",
    "ProgressActor",
    "ProgressPoller",
    "Snapshot",
    "StageSnapshot",
    "create_progress_tracker",
    "set_progress_context",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
