"""Programs that tests start in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def unignore_signals() -> None:
    """Let what the tests start end by SIGINT and SIGHUP, also if the tests were started with these ignored.

    A shell does so for its background jobs, and ``nohup`` does. A program inherits that a signal is ignored,
    but no handler: so this process gets handlers. That of SIGHUP does nothing.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return the environment of a program: this one, without what would change a run, and with changes."""
    # Ray sets the last one in a program that has connected to it, such as this one.
    unset = dict.fromkeys(("RAY_ADDRESS", "TQDM_DISABLE", "PYTHONBREAKPOINT"))
    changes = {**unset, **(changes or {})}
    env = {**os.environ, **changes}
    return {name: value for name, value in env.items() if value is not None}


def run_program(
    script: Path, code: str, *, env: Mapping[str, str | None] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a program in the folder of its script, with its output captured.

    Args:
        script: Where its code is written to.
        code: The program.
        env: Changes to its environment; None removes a variable.
        timeout: After how many seconds it counts as hung.
    """
    script.write_text(code)
    return subprocess.run(
        [sys.executable, str(script)],
        env=environment(env),
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
