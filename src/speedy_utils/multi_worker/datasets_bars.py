"""The progress bars of ``datasets``, where it works for the library itself and not for the user."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..progress.adopt import adopted_here, hushed


class _Quiet:
    """How many ``quiet_datasets`` blocks are open in this process, and what the last one has to undo."""

    lock = threading.Lock()
    depth = 0
    undo = False


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Keep ``datasets`` from drawing progress bars inside the block, and restore its setting after it.

    The setting is global to the process, so blocks of several threads are counted: the first one in
    turns the bars off, the last one out turns them on again. A user who set the environment variable
    ``HF_DATASETS_DISABLE_PROGRESS_BARS`` has decided already, and nothing is touched. Where a task's bars are
    adopted those of the block are hushed instead: that is a matter of its own thread only.
    """
    if adopted_here():
        with hushed():
            yield
        return
    from datasets import config
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    with _Quiet.lock:
        _Quiet.depth += 1
        if (
            _Quiet.depth == 1
            and config.HF_DATASETS_DISABLE_PROGRESS_BARS is None
            and not are_progress_bars_disabled()
        ):
            disable_progress_bars()
            _Quiet.undo = True
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.depth -= 1
            if _Quiet.depth == 0 and _Quiet.undo:
                enable_progress_bars()
                _Quiet.undo = False
