"""Measure, and write the tables to ``benchmarks/results`` (``results/quick`` with ``--quick``).

    python -m benchmarks [TABLE ...] [--quick] [--readme]

Without names all tables are measured but the grid, which takes just under twenty minutes. The peers come
with ``pip install -e '.[bench]'``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time

from . import former
from .measure import end_tree
from .table import Table, results_of, write
from .terminal import HOME

TABLES = (
    *("items", "calls", "adopted", "display", "endtoend", "overhead", "fidelity", "scale", "tasks", "merge"),
)

BY_NAME = ("grid",)
"""What is measured by name only, for its time."""

LIMIT = 360.0
LIMITS = {"endtoend": 720.0, "grid": 2_400.0}
"""Seconds after which a table is given up; those with another limit stop by themselves before."""


def main() -> None:
    known = (*TABLES, *BY_NAME)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"any of {', '.join(known)}")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and few rounds, to see that it runs"
    )
    parser.add_argument(
        "--readme", action="store_true", help="put the figures into the README when all is measured"
    )
    options = parser.parse_args()
    if unknown := set(options.tables) - set(known):
        parser.error(f"no table is called {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    if options.quick and options.readme:
        parser.error("--quick gives no figures for the README")
    failed = []
    if len(options.tables) == 1:
        measure(options.tables[0], options.quick)
    else:
        failed = apart(options.tables or TABLES, options.quick)
    if options.readme:
        from .readme import rewrite

        rewrite()
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")


def measure(name: str, quick: bool) -> None:
    """Measure in this process, with no Ray but its own."""
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder  # a Ray that runs on this machine is not found
        os.environ["PYTHONPATH"] = str(HOME)  # workers import this package
        start = time.monotonic()
        tables: list[Table] = importlib.import_module(f".{name}", __package__).run(quick)
    took = time.monotonic() - start
    for table in tables:
        table.took = took
        print(f"\n{table.markdown()}")
    print(f"({took:.0f} s)", flush=True)
    write(tables, results_of(quick))


def apart(names: tuple[str, ...] | list[str], quick: bool) -> list[str]:
    """Measure each table in a process of its own.

    Returns:
        What could not be measured.
    """
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, former.SHARED: f"{folder}/former"}
        for name in names:
            print(f"{name} …", flush=True)
            command = [sys.executable, "-m", "benchmarks", name, *(["--quick"] if quick else [])]
            program = subprocess.Popen(command, env=env)
            try:
                ended = program.wait(LIMITS.get(name, LIMIT))
            except subprocess.TimeoutExpired as error:
                print(f"{name} is given up after {error.timeout:.0f} s", flush=True)
                ended = None
            finally:
                if program.poll() is None:
                    end_tree(program.pid)
                    program.wait()
            if ended != 0:
                failed.append(name)
    return failed


if __name__ == "__main__":
    main()
