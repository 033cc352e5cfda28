"""One progress bar for work that runs in many workers, exact to the item.

The names are loaded on first use: importing the package imports neither Ray nor datasets.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._api.multi_process import multi_process as multi_process
    from ._api.multi_process_dataset import multi_process_dataset as multi_process_dataset
    from ._api.multi_process_iter import multi_process_iter as multi_process_iter
    from ._api.tracking import tracking as tracking
    from ._instrument.decorator import tracked as tracked
    from ._instrument.loops import report_progress as report_progress
    from ._instrument.loops import track as track
    from ._ray.actor import ProgressActor as ProgressActor
    from ._ray.own_tasks import ProgressPoller as ProgressPoller
    from ._ray.own_tasks import create_progress_tracker as create_progress_tracker
    from ._ray.own_tasks import set_progress_context as set_progress_context
    from ._sharding.shards import Shard as Shard
    from ._sharding.shards import current_shard as current_shard
    from ._state.snapshot import Snapshot as Snapshot
    from ._state.snapshot import StageSnapshot as StageSnapshot
    from ._state.snapshot import TaskSnapshot as TaskSnapshot
    from .errors import UNFINISHED as UNFINISHED
    from .errors import BusyError as BusyError
    from .errors import FailedShardsError as FailedShardsError
    from .errors import Interrupted as Interrupted
    from .errors import MergeError as MergeError
    from .errors import ResumeError as ResumeError
    from .errors import ShardError as ShardError
    from .errors import TaskError as TaskError

__version__ = "0.1.0"

_HOMES = {
    "report_progress": "._instrument.loops",
    "track": "._instrument.loops",
    "tracked": "._instrument.decorator",
    "tracking": "._api.tracking",
    "multi_process": "._api.multi_process",
    "multi_process_iter": "._api.multi_process_iter",
    "multi_process_dataset": "._api.multi_process_dataset",
    "current_shard": "._sharding.shards",
    "Shard": "._sharding.shards",
    "TaskError": ".errors",
    "Interrupted": ".errors",
    "UNFINISHED": ".errors",
    "ShardError": ".errors",
    "ResumeError": ".errors",
    "MergeError": ".errors",
    "FailedShardsError": ".errors",
    "BusyError": ".errors",
    "ProgressActor": "._ray.actor",
    "ProgressPoller": "._ray.own_tasks",
    "Snapshot": "._state.snapshot",
    "StageSnapshot": "._state.snapshot",
    "TaskSnapshot": "._state.snapshot",
    "create_progress_tracker": "._ray.own_tasks",
    "set_progress_context": "._ray.own_tasks",
}
"""The module of each public name, in the order in which people meet them."""

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
