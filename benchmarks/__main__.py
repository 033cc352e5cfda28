"""Measure, and write the tables to ``benchmarks/results`` (``results/quick`` with ``--quick``).

    python -m benchmarks [TABLE ...] [--quick] [--documents]

Without names all tables are measured, which takes a quarter of an hour. The peers come with
``pip install -e '.[bench]'``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time

from .measure import end_tree
from .table import Table, results_of, write
from .terminal import HOME

MODULES = {
    "items": "loops:run_items",
    "calls": "loops:run_calls",
    **{
        name: f"{name}:run"
        for name in (
            "captured",
            "display",
            "endtoend",
            "overhead",
            "fidelity",
            "scale",
            "state_files",
            "eta",
            "tasks",
            "small_items",
            "any_engine",
            "streams",
            "merge",
            "memory",
        )
    },
}
"""What measures each table."""

LIMIT = 360.0
LIMITS = {"endtoend": 720.0, "memory": 720.0}
"""Seconds after which a table is given up; those with another limit stop by themselves before."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"any of {', '.join(MODULES)}")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and few rounds, to see that it runs"
    )
    parser.add_argument("--documents", action="store_true", help="write the figures into docs/figures.md")
    options = parser.parse_args()
    if unknown := set(options.tables) - set(MODULES):
        parser.error(f"no table is called {', '.join(sorted(unknown))}: choose from {', '.join(MODULES)}")
    if options.quick and options.documents:
        parser.error("--quick gives no figures for the documents")
    failed = []
    if len(options.tables) == 1:
        measure(options.tables[0], options.quick)
    else:
        failed = apart(options.tables or [*MODULES], options.quick)
    if options.documents:
        from .documents import rewrite

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
        module, function = MODULES[name].split(":")
        run = getattr(importlib.import_module(f".{module}", __package__), function)
        tables: list[Table] = run(quick)
    took = time.monotonic() - start
    for table in tables:
        table.took = took
        print(f"\n{table.markdown()}")
    print(f"({took:.0f} s)", flush=True)
    write(tables, results_of(quick))


def apart(names: list[str], quick: bool) -> list[str]:
    """Measure each table in a process of its own.

    Returns:
        What could not be measured.
    """
    failed = []
    for name in names:
        print(f"{name} …", flush=True)
        program = subprocess.Popen(
            [sys.executable, "-m", "benchmarks", name, *(["--quick"] if quick else [])]
        )
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
