"""The screen of a run whose workers load models, print, and hold bars of several libraries."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from support.emulator import Emulator

PROGRAM = """
import os, threading
os.environ["RAY_DEDUP_LOGS"] = "0"
os.environ["RAY_COLOR_PREFIX"] = "0"
from tqdm import tqdm
from speedy_utils import multi_process, report_progress

def answer(shard):
    # What vLLM draws, as to descriptions, totals and postfix.
    pause = threading.Event().wait
    for _ in tqdm(range(8), desc="Loading safetensors checkpoint shards", bar_format="{{l_bar}}{{bar}}"):
        pause(0.01)
    for _ in tqdm(range(35), desc="Capturing CUDA graphs (decode, FULL)"):
        pause(0.002)
    postfix = "est. speed input: 0.00 toks/s"
    prompts = tqdm(total=50, desc="Processed prompts", dynamic_ncols=True, postfix=postfix)
    from ray.experimental import tqdm_ray
    for n in tqdm_ray.tqdm(range(40), desc="Ray"):
        print(f"shard {{shard}} says {{n}} end")
        report_progress(0, tokens=512, refused=1)
        prompts.postfix = f"est. speed input: {{n:.2f}} toks/s, output: 1.00 toks/s"
        prompts.update(1)
        pause(0.005)
    for _ in tqdm(range(5), desc=f"shard-{{shard}}.parquet", leave=False):
        pause(0.01)
    prompts.update(10)
    prompts.close()

if __name__ == "__main__":
    multi_process(answer, range(8), backend={backend!r}, num_workers=8, total_items=lambda _: 50,
                  poll_interval=0.05, desc="Answer")
    print("after end")
"""

OVER = ("Loading safetensors checkpoint shards", "Capturing CUDA graphs (decode, FULL)", "Ray")
NAMES = ("Answer", "Processed prompts", "shard-*.parquet", *OVER)
SAID = re.compile(r"(?:\(\w+ pid=\d+\) ?)?(?:shard \d says \d+ end)?(?:after end)?")


def stage_of(row: str) -> str | None:
    """Return the line that a row is of; a narrow terminal shows less of a name."""
    start = row.partition(":")[0].rstrip("….")
    return next((name for name in NAMES if start and name.startswith(start) and ":" in row), None)


@pytest.mark.parametrize(("name", "columns"), [("threads", 80), ("threads", 140), ("processes", 100)])
def test_a_day_with_models(terminal: Callable[..., Any], name: str, columns: int) -> None:
    """Whatever is printed and drawn: whole lines, the run's first, those over below, at last all counters."""
    program = terminal(PROGRAM.format(backend=name), size=(columns, 30))
    assert program.wait() == 0, program.text[-1000:]
    assert "Traceback" not in program.text
    emulator = Emulator(columns, 30)
    for drawn in re.findall(r"(?s).*?\x1b8|.+", program.text):
        emulator.feed(drawn)
        lines = emulator.lines(history=False)[1:]  # the first may be the end of a wrapped one
        shown = [stage for line in lines if (stage := stage_of(line)) is not None]
        assert len(shown) == len(set(shown)), emulator.rows
        assert "Answer" not in shown[1:], emulator.rows
        assert all(len(line) < columns for line in lines if stage_of(line)), emulator.rows
    lines = emulator.lines()
    ended = [line for line in lines if stage_of(line)]
    assert [stage_of(line) for line in ended] == ["Answer", "Processed prompts", *OVER]
    assert re.search(r"400/400 \[.*8/8 tasks", ended[0])
    at = lines.index(ended[0])
    counters = " ".join(lines[at : at + 2])
    assert "tokens=164k" in counters
    assert "refused=320" in counters
    assert "est. speed input" in ended[1] or columns < 140
    said = [found for line in lines for found in re.findall(r"shard (\d) says (\d+) end", line)]
    for shard in "01234567":
        mine = [int(n) for each, n in said if each == shard]
        assert mine == sorted(mine)
        assert len(mine) == 40
    assert "after end" in lines
