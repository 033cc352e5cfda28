"""What can go wrong with the files of a dataset run.

An ``output_path`` that exists is no class of its own: it raises the built-in ``FileExistsError``.
"""

from __future__ import annotations

__all__ = ["BusyError", "MergeError", "ResumeError", "ShardError"]


class ShardError(RuntimeError):
    """What ``process_func`` gave back for a shard can't be used."""


class MergeError(ShardError):
    """The shards' outputs don't fit together; nothing was merged and every finished shard is kept."""


class ResumeError(RuntimeError):
    """An unfinished run lies beside ``output_path`` and can't simply be taken up again."""


class BusyError(ResumeError):
    """Another run is at work on the same ``output_path``."""
