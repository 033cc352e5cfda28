"""Modules of a project that tests write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def forgetting_modules(folder: Path) -> Iterator[None]:
    """Forget at the end the modules that were loaded from a folder."""
    try:
        yield
    finally:
        for name, module in list(sys.modules.items()):
            places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
            if any(str(place).startswith(str(folder)) for place in places):
                del sys.modules[name]
