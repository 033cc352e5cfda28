"""The former speedy-utils from the package index, in an environment of its own."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

VERSION = "1.1.48"
LIMIT = 180
"""Seconds that pip may take."""


class NotInstalled(RuntimeError):
    """It could not be installed; the message says why."""


SHARED = "SPEEDY_UTILS_FORMER"
"""The variable that names a folder for the environment, where several benchmarks need it."""


def install(folder: Path) -> str:
    """Make an environment with it, and the very Ray and datasets that are used here.

    Args:
        folder: Where to, unless all share one that an earlier benchmark may have made.

    Returns:
        The interpreter.

    Raises:
        NotInstalled: pip could not, or took too long.
    """
    folder = Path(os.environ.get(SHARED, folder))
    python, done_before = str(folder / "bin" / "python"), folder / "complete"
    if done_before.exists():
        return python
    _run([sys.executable, "-m", "venv", str(folder)])
    # What is installed here comes after what is installed there: so nothing big is installed twice, and
    # both have the same peers. The editable speedy_utils of here is not found that way.
    there, here = (Path(sysconfig.get_path("purelib", vars=base)) for base in (_bases(folder), None))
    (there / "peers.pth").write_text(f"{here}\n", encoding="utf-8")
    same = [f"{name}=={importlib.metadata.version(name)}" for name in ("ray", "datasets", "tqdm", "pyarrow")]
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _run([*pip, f"speedy-utils=={VERSION}", *same])
    done_before.touch()
    return python


def _bases(folder: Path) -> dict[str, str]:
    return {"base": str(folder), "platbase": str(folder)}


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"not finished in {LIMIT} s") from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr]
        raise NotInstalled(errors[-1].strip())
