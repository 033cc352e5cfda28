"""Threads that tests start beside their own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def in_thread(work: Callable[[], Any]) -> None:
    """Call a function in a thread that inherits nothing, and wait for it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """Let another thread hold a lock until the block ends."""
    holding, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holding.set()
            over.wait(240)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(240)
    try:
        yield
    finally:
        over.set()
        holder.join()


def in_threads(work: Callable[[], None], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Call a function in eight threads at once, which take turns as often as Python allows."""
    start = threading.Barrier(9)
    threads = [threading.Thread(target=lambda: (start.wait(), work())) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        start.wait()
        while any(thread.is_alive() for thread in threads):
            meanwhile()
    finally:
        sys.setswitchinterval(interval)
