"""Children that tests fork."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any


def in_fork(work: Callable[[], Any], seconds: float = 120.0) -> int:
    """Call a function in a forked child, and return its exit code: 0 if nothing was raised.

    Args:
        work: The function.
        seconds: After how many seconds the child counts as hung; it is then killed, and the code is -9.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn if threads are running
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -9
