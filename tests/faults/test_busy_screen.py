"""A screen on which all happens at once: bars of engines, loggers, prints of many workers, counters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.emulator import Emulator

RESIZED = "\x1b]resized\x07"
"""Marks where in its output the program has got another width."""

WIDTHS = (80, 100, 140)

PROGRAM = """
import fcntl, os, struct, sys, termios, threading
from speedy_utils import multi_process, report_progress, track

FIRST, SECOND = ("ka", "lo", "mi", "ne", "pu", "ra", "so", "ti"), ("x", "dor", "fen", "gul", "hum")
WORDS = [first + second for first in FIRST for second in SECOND]

def work(worker):
    from ray.experimental import tqdm_ray
    from tqdm import tqdm

    pause = threading.Event().wait
    sink = sys.stderr.write  # as a sink of loguru that holds it
    for _ in tqdm(range(4), desc="Loading safetensors checkpoint shards"):
        pause(0.005)
    for _ in tqdm(range(5), desc="Capturing CUDA graphs", leave=False):
        pause(0.005)
    embed = tqdm_ray.tqdm(total=40, desc="Embed")
    prompts = tqdm(total=40, desc="Processed prompts", dynamic_ncols=True)
    for n in track(range(40)):
        print(f"out {{worker}} {{n}} {{WORDS[n]}} end")
        if n % 10 == 5:
            sink(f"2026-11-30 | INFO | log {{worker}} {{n}} end\\n")
        embed.update(1)
        prompts.update(1)
        prompts.set_postfix({{"est. speed input": f"{{n}}.00 toks/s"}})
        report_progress(0, tokens=1_000, skipped=1)
        pause(0.01)
    embed.close()
    prompts.close()

if __name__ == "__main__":
    held = sys.stderr.write
    for width in {widths}:
        os.write(1, b"\\x1b]resized\\x07")
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        over = threading.Event()
        def speak():
            for n in range(10):
                held(f"driver {{n}} end\\n")
                over.wait(0.05)
        speaker = threading.Thread(target=speak)
        speaker.start()
        multi_process(work, range(8), num_workers=8, total_items=lambda _: 40, desc="Label",
                      poll_interval=0.05, backend="ray")
        over.set()
        speaker.join()
        print(f"after {{width}} end", flush=True)
"""

SAID = re.compile(
    r"(?:\(work pid=\d+\) )?(?P<what>out|2026-11-30 \| INFO \| log|driver|after)"
    r"(?P<who> \d(?= \d))? (?P<n>\d+)(?: [a-z]+)? end"
)
STAGES = (
    "Label",
    "Loading safetensors checkpoint shards",
    "Capturing CUDA graphs",
    "Embed",
    "Processed prompts",
)


def states(text: str, emulator: Emulator) -> Iterator[Emulator]:
    """The terminal after each time that the block is drawn or erased, and at the end."""
    for drawn in re.findall(r"(?s).*?\x1b\[J(?:\x1b8|\r)|.+", text):
        emulator.feed(drawn)
        yield emulator


def check_state(lines: list[str]) -> list[str]:
    """Check that there are whole lines above, and below them one whole line a stage; return the stages."""
    names: list[str] = []
    for line in lines:
        if SAID.fullmatch(line):
            assert not names, lines
        elif line:
            assert re.search(r"[\d%\]]$", line), lines
            names.append(line.partition(":")[0].rstrip(".…"))
    assert all(any(stage.startswith(name) for stage in STAGES) for name in names), lines
    assert len(names) == len({*names}), lines
    return names


@pytest.mark.slow
@pytest.mark.ray
def test_all_lines_are_whole_and_in_order_above_the_bars(terminal: Callable[..., Any]) -> None:
    """At any width each printed line stands whole above the bars, in order; that of the run is the first."""
    program = terminal(PROGRAM.format(widths=WIDTHS), size=(WIDTHS[0], 24))
    assert program.wait() == 0, program.text[-2000:]
    before, *parts = program.text.split(RESIZED)
    assert before == ""
    for width, part in zip(WIDTHS, parts, strict=True):
        emulator = Emulator(width, 24)
        for state in states(part, emulator):
            below = state.lines(history=False)[1:]  # the first may be the end of a wrapped one
            if not any(" end" in line and "after" in line for line in below):
                names = check_state(below)
                assert names[:1] in ([], ["Label"]), below
        lines = emulator.lines()
        said = [match for line in lines if (match := SAID.fullmatch(line))]
        order: dict[tuple[str, str | None], list[int]] = {}
        for match in said:
            order.setdefault((match["what"], match["who"]), []).append(int(match["n"]))
        assert order.pop(("after", None)) == [width]
        assert order.pop(("driver", None)) == [*range(10)]
        assert len(order) == 16
        for (what, _), numbers in order.items():
            assert numbers == ([*range(40)] if what == "out" else [5, 15, 25, 35])
        last = [line for line in lines if line and not SAID.fullmatch(line)]
        assert last[0].startswith("Label:")
        assert "320/320" in last[0]
        counters = " ".join(last)
        assert "tokens=320k" in counters
        assert "skipped=320" in counters
