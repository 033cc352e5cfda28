"""The whole screen of a run whose workers print, hold bars of their own and map datasets."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.emulator import Emulator

RESIZED = "\x1b]resized\x07"
"""Marks where in its output the program has got another size."""

PROGRAM = """
import fcntl, logging, os, signal, struct, sys, termios, threading, warnings
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # in all threads to come
os.environ["RAY_DEDUP_LOGS"] = "0"
os.environ["RAY_COLOR_PREFIX"] = "0"
from datasets import Dataset
from tqdm import tqdm
from speedy_utils import multi_process, track

def work(worker):
    rows = Dataset.from_dict({{"n": list(range(100))}})
    rows.map(lambda row: {{"n": row["n"] + 1}}, desc="Map", new_fingerprint=f"map{{worker}}")
    warnings.formatwarning = lambda message, *_: f"{{message}} end\\n"
    warnings.warn(f"warning {{worker}}")
    for n in track(range(50), desc="Tokenize"):
        print(f"out {{worker}} {{n}} end")
        print(f"err {{worker}} {{n}} end", file=sys.stderr)
        for _ in tqdm(range(20), desc="Load", leave=False):
            threading.Event().wait(0.0005)
    for _ in tqdm(range(100), desc="Pack"):
        threading.Event().wait(0.002)

def resize():
    signal.sigwait([signal.SIGUSR1])
    with tqdm.get_lock():  # what another thread is drawing is drawn for the old size
        os.write(1, b"\\x1b]resized\\x07")
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 30, {columns}, 0, 0))

if __name__ == "__main__":
    threading.Thread(target=resize, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format="log %(message)s end")
    def speak():
        for n in range(20):
            print(f"driver {{n}} end")
            logging.warning("%d", n)
            threading.Event().wait(0.05)
    speaker = threading.Thread(target=speak)
    speaker.start()
    multi_process(work, range(8), backend={backend!r}, num_workers=8, total_items=lambda _: 50,
                  poll_interval=0.05)
    speaker.join()
    print("after end")
"""

STAGES = ("Processing 400 items", "Tokenize", "Map", "Pack", "Load")
WORDS = r"((?:out|err) \d \d+|(?:driver|log|warning) \d+|after) end"
# Ray forwards a line's end as an empty line if it comes to read between the two. After the run it prints by
# itself, a line and then its end: the program's last word may come between.
SAID = re.compile(rf"(?:\(\w+ pid=\d+\) ?)?(?:{WORDS})?(?:(?<=end)after end)?")

SUMMARY = re.compile(r"400 items in .*|  8/8 tasks")
"""The last line, which takes two rows of a narrow terminal."""


def states(text: str, *sizes: tuple[int, int]) -> Iterator[Emulator]:
    """The terminal after each time that the block is drawn or erased, and at the end.

    Args:
        text: What was written to it.
        sizes: Its columns and rows, at first and each time when it was resized.
    """
    emulator = Emulator(*sizes[0])
    for size, part in zip(sizes, text.split(RESIZED), strict=True):
        if size != emulator.size:
            emulator.resize(*size)
        for drawn in re.findall(r"(?s).*?\x1b\[J(?:\x1b8|\r)|.+", part):
            emulator.feed(drawn)
            yield emulator


def stage_of(row: str) -> str | None:
    """Return the stage that a row is of; a narrow terminal shows less of a name."""
    for name in STAGES:
        start = row.partition(":")[0].rstrip("….")
        if start and name.startswith(start) and ":" in row:
            return name
    return None


@pytest.mark.parametrize(
    ("name", "columns"),
    [pytest.param("ray", 80, marks=[pytest.mark.ray, pytest.mark.slow]), ("processes", 40), ("threads", 80)],
)
def test_each_stage_has_one_row_at_any_moment(
    terminal: Callable[..., Any], until: Callable[..., Any], name: str, columns: int
) -> None:
    """Whatever workers print and draw, each stage has one whole row, below all lines, also after a resize."""
    program = terminal(PROGRAM.format(backend=name, columns=120 - columns), size=(columns, 24))
    until(lambda: "Tokenize" in program.text)
    program.send(signal.SIGUSR1)
    assert program.wait() == 0, program.text[-1000:]
    text = program.text
    assert "Traceback" not in text
    final = None
    for emulator in states(text, (columns, 24), (120 - columns, 30)):
        final = emulator
        seen: list[str] = []
        below = emulator.lines(history=False)[1:]  # the first may be the end of a wrapped one
        # Ray goes on printing until the program ends, and the block is ordinary text by then.
        late = name == "ray" and any(line.startswith("400 items in ") for line in below)
        for line in below:
            stage = stage_of(line)
            if stage is not None:
                assert len(line) < emulator.size[0], line
                assert re.search(r"\d+/\d+\+?( \[.*\])?$|\d+%$|\[.*\]$", line), line
                seen.append(stage)
            else:
                assert SAID.fullmatch(line) or SUMMARY.fullmatch(line), emulator.rows
                assert not seen or late or not line or line[:3] in ("400", "  8", "aft", "dri", "log"), (
                    emulator.rows
                )
        assert len(seen) == len(set(seen)), emulator.rows
    assert final is not None
    lines = final.lines()
    said = [text for line in lines if SAID.fullmatch(line) for text in re.findall(WORDS, line)]
    assert len(said) == len(set(said))
    assert "after" in (said if name == "ray" else said[-1:])
    expected = {
        f"{stream} {worker} {n}" for stream in ("out", "err") for worker in range(8) for n in range(50)
    }
    expected |= {f"{stream} {n}" for stream in ("driver", "log") for n in range(20)} | {"after"}
    expected |= {f"warning {worker}" for worker in range(8)}
    assert set(said) <= expected
    # What Ray would bring after the end of the program is lost with it.
    assert len(said) == len(expected) or (name == "ray" and len(said) > 0.3 * len(expected))
    ended = [stage for line in lines if (stage := stage_of(line)) is not None]
    assert ended == list(STAGES[1:4])  # the run has no line of its own, but a summary; and "Load" leaves none
    assert sum(line.startswith("400 items in ") for line in lines) == 1


LOOP = """
import sys, threading
from tqdm import tqdm
from speedy_utils import multi_process, track

both = threading.Barrier(2)

def work(worker, fails=False):
    for n in track(range(20)):
        print(f"out {worker} {n} end")
        threading.Event().wait(0.005)
    if fails:
        both.wait(240)  # the first that fails stops the other, which has to have printed all its lines
        raise ValueError(worker)

def run(name, **more):
    multi_process(work, range(2), backend="threads", total_items=lambda _: 20, desc=name, poll_interval=0.02,
                  **more)
"""

IN_A_LOOP = """
for epoch in tqdm(range(3), desc="epoch"):
    run(f"run {epoch}")
print("after end")
"""

AT_ONCE = """
threads = [threading.Thread(target=run, args=(f"run {n}",)) for n in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("after end")
"""

FAILING = """
before = sys.stdout, sys.stderr
try:
    run("run 0", fails=True)
except Exception:
    assert (sys.stdout, sys.stderr) == before
    print("after end")
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(IN_A_LOOP, ["run 0", "run 1", "run 2", "epoch", "after"], id="in a loop under a bar"),
        pytest.param(AT_ONCE, ["run 0", "run 1", "run 2", "after"], id="three at once"),
        pytest.param(FAILING, ["run 0", "after"], id="one that fails"),
    ],
)
def test_runs_and_bars_share_the_screen(terminal: Callable[..., Any], body: str, expected: list[str]) -> None:
    """Runs under a bar of the program's own, at once in threads, or that fail, have each their row."""
    program = terminal(LOOP + body, size=(80, 24))
    assert program.wait() == 0, program.text[-1000:]
    final = None
    printed = re.compile(r"out \d \d+ end|after end|")
    for emulator in states(program.text, (80, 24)):
        final = emulator
        drawn = [line for line in emulator.lines(history=False) if not printed.fullmatch(line)]
        names = [line.partition(":")[0] for line in drawn]
        assert len(names) == len(set(names)), emulator.rows
        assert all(re.fullmatch(r"(run \d|epoch): +\d+%\|.*\| \d+/\d+ \[.*\]", line) for line in drawn), drawn
    assert final is not None
    lines = final.lines()
    ends = [line for line in lines if not line.startswith("out ")]
    assert sorted(line.partition(":")[0].removesuffix(" end") for line in ends) == sorted(expected)
    assert ends[-1] == "after end"
    runs = sum(name.startswith("run") for name in expected)
    assert len([line for line in lines if line.startswith("out ")]) == 40 * runs


CALL = """
from tqdm import tqdm
from speedy_utils import tracked

@tracked(total="rows", desc="Call")
def call(rows):
    for _ in tqdm(rows):
        for _ in tqdm("abc", desc="Letters", leave=False):
            print("out end")

call("a" * 50)
"""


def test_a_call_that_is_a_run_takes_in_its_bars(terminal: Callable[..., Any]) -> None:
    """A tracked call with tqdm bars inside has its own row and one a name, while that has bars."""
    program = terminal(CALL, size=(80, 24))
    assert program.wait() == 0, program.text[-1000:]
    final = None
    for emulator in states(program.text, (80, 24)):
        final = emulator
        drawn = [line.partition(":")[0] for line in emulator.lines(history=False) if "out end" not in line]
        assert [name for name in drawn if name] in ([], ["Call"], ["Call", "Letters"]), emulator.rows
    assert final is not None
    ends = [line for line in final.lines() if line != "out end"]
    assert [re.split(r": +|\|", line)[:2] for line in ends] == [["Call", "100%"]]
    assert "50/50" in ends[0]
