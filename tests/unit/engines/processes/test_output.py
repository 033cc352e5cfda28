"""What workers print is written by the driver, line by line, whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest

from speedy_utils._engines.processes.output import WorkerOutput


class Printer:
    """A worker's ends of the pipes."""

    def __init__(self, output: WorkerOutput, pid: int) -> None:
        stdout, self.stdout = Pipe(duplex=False)
        stderr, self.stderr = Pipe(duplex=False)
        output.add(pid, stdout, stderr)

    def close(self) -> None:
        """End as a process does."""
        self.stdout.close()
        self.stderr.close()


def write(end: Connection, text: bytes) -> None:
    """Write to a pipe as a process does that has it as its descriptor 1."""
    os.write(end.fileno(), text)


@pytest.fixture
def output() -> Iterator[WorkerOutput]:
    """Return what reads, closed at the end."""
    made = WorkerOutput("all")
    yield made
    made.close()


def test_lines_are_written_whole(
    output: WorkerOutput, capsys: pytest.CaptureFixture[str], until: Callable[..., Any]
) -> None:
    """A line appears once its end is there, on the stream that it was printed on."""
    one, other = Printer(output, 1), Printer(output, 2)
    output.start()
    seen: list[str] = []

    def shown(*lines: str) -> bool:
        seen.extend(capsys.readouterr().out.splitlines(keepends=True))
        return seen == [*lines]

    write(one.stdout, b"half of ")
    write(other.stdout, b"another\n")
    until(lambda: shown("another\n"))
    write(one.stdout, b"a line\nand a rest")
    until(lambda: shown("another\n", "half of a line\n"))
    write(one.stderr, b"an error\n")
    one.close()
    other.close()
    output.close()
    found = capsys.readouterr()
    assert (found.out, found.err) == ("and a rest\n", "an error\n")


def test_all_that_was_written_before_the_close_is_shown(
    output: WorkerOutput, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of a run loses nothing, also if a process that a task has started still has the pipe open."""
    printer = Printer(output, 1)
    output.start()
    for number in range(1000):
        write(printer.stdout, f"line {number}\n".encode())
    output.close()
    output.close()
    assert capsys.readouterr().out.splitlines() == [f"line {number}" for number in range(1000)]
    printer.close()


@pytest.mark.parametrize(("choice", "shown"), [("none", ""), ("first", "one\n")])
def test_only_the_chosen_workers_are_shown(
    choice: Any, shown: str, capsys: pytest.CaptureFixture[str], until: Callable[..., Any]
) -> None:
    """The lines of other workers are read and left out."""
    output = WorkerOutput(choice)
    one, other = Printer(output, 1), Printer(output, 2)
    output.start()
    write(one.stdout, b"one\n")
    seen: list[str] = []
    until(lambda: seen.append(capsys.readouterr().out) or "".join(seen) == shown)
    write(other.stdout, b"two\n")
    one.close()
    other.close()
    output.close()
    assert capsys.readouterr().out == ""


def test_bytes_that_are_no_text_are_shown(output: WorkerOutput, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no UTF-8 is escaped."""
    printer = Printer(output, 1)
    output.start()
    write(printer.stdout, b"caf\xe9\n")
    printer.close()
    output.close()
    assert capsys.readouterr().out == "caf\\xe9\n"
