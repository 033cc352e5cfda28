"""What a program asks while a run has its lines in the terminal, with keys typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.emulator import Emulator

PROGRAM = """
import getpass, threading
from speedy_utils import multi_process, track

asked = threading.Event()

def ask():
    print("name is", input("Name? "))
    print("word is", getpass.getpass("Word? "))
    breakpoint()
    asked.set()

def work(n):
    for i in track(range(30)):
        threading.Event().wait(0.01)
        if (n, i) == (1, 5) and {where!r} == "task":
            ask()
        elif i % 10 == 0 and {others}:
            print(f"other {{n}} {{i}}")
    while {others} and n == 2 and not asked.wait(0):
        threading.Event().wait(0.01)

def run():
    multi_process(work, range(4), backend={backend!r}, num_workers=2, total_items=lambda _: 30,
                  desc="Run", poll_interval=0.02)

if {where!r} == "task":
    run()
else:
    thread = threading.Thread(target=run)
    thread.start()
    threading.Event().wait(0.1)
    ask()
    thread.join()
print("after")
"""


@pytest.mark.parametrize(
    ("backend", "where", "others"),
    [("seq", "task", False), ("threads", "task", True), ("threads", "driver", True)],
)
def test_what_is_asked_is_seen_and_what_is_typed_is_not_drawn_over(
    terminal: Callable[..., Any], until: Callable[..., Any], backend: str, where: str, others: bool
) -> None:
    """A question stands last until it is answered, and the lines of the run come back after it."""
    program = terminal(PROGRAM.format(backend=backend, where=where, others=others), size=(80, 24))

    def last_line() -> str:
        emulator = Emulator(80, 24)
        emulator.feed(program.text)
        return emulator.lines()[-1] if emulator.lines() else ""

    def answer(question: str, keys: str, shown: str) -> None:
        until(lambda: last_line() == question)
        program.type(keys)
        until(lambda: last_line() in (question + shown, question))
        program.type("\n")

    answer("Name?", "Bob", " Bob")
    answer("Word?", "secret", "")
    answer("(Pdb)", "p 6 * 7", " p 6 * 7")
    until(lambda: "42" in program.text)
    until(lambda: last_line() == "(Pdb)")
    program.type("c\n")
    assert program.wait() == 0, program.text[-2000:]
    emulator = Emulator(80, 24)
    emulator.feed(program.text)
    lines = emulator.lines()
    assert "secret" not in [line.partition(" ")[0] for line in lines]
    assert {"name is Bob", "word is secret", "42"} <= {*lines}
    printed = [line for line in lines if line.startswith("other ")]
    assert len(printed) == len({*printed}) == 12 * others
    assert [line for line in lines if line.startswith("Run:")] == lines[-2:-1]
    assert "120/120" in lines[-2]
    assert lines[-1] == "after"
