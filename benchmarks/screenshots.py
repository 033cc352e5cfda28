"""Draw the README's pictures: one function's terminal under plain Ray tasks, and under a run.

    python -m benchmarks.screenshots

It needs ``pip install -e '.[bench,test]'``. Both programs run in a terminal of their own. What they wrote is
replayed in a terminal emulator, and its screen is drawn as an SVG, in the middle of the work.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import pyte

from .terminal import run_in_terminal

RESULTS = Path(__file__).parent / "results"
COLUMNS, ROWS = 100, 18

FUNCTION = """
import logging, os, time
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
from tqdm import tqdm

def tokenise(rows):
    kept = []
    for row in tqdm(rows, desc="Format & filter"):
        time.sleep(0.004)
        if row % 7:
            kept.append(row)
    print(f"kept {len(kept)} of {len(rows)} rows")
    for row in tqdm(kept, desc="Tokenize"):
        time.sleep(0.006)

parts = [range(at, at + 700) for at in range(0, 5_600, 700)]
"""

BEFORE = f"""{FUNCTION}
import ray
ray.init(num_cpus=8, include_dashboard=False, logging_level=logging.ERROR)
task = ray.remote(tokenise)
ray.get([task.remote(part) for part in parts])
"""

AFTER = f"""{FUNCTION}
from speedy_utils import multi_process
multi_process(tokenise, parts, num_workers=8, backend="ray", total_items=len)
"""


def screen_in_the_middle(program: str) -> list[str]:
    """The screen when two thirds of what the program draws is there."""
    pieces: list[str] = []
    run_in_terminal(["-c", program], seen=lambda _, text: pieces.append(text))
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    for piece in pieces[: len(pieces) * 2 // 3]:
        stream.feed(piece)
    return [row.rstrip() for row in screen.display]


def draw(lines: list[str], name: str) -> None:
    """Write a screen as an SVG."""
    wide, high = 8.4, 19
    rows = "\n".join(
        f'<text x="12" y="{20 + high * number}" xml:space="preserve">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    size = f'width="{COLUMNS * wide + 24:.0f}" height="{len(lines) * high + 16}"'
    (RESULTS / name).write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n'
        f'<rect width="100%" height="100%" rx="6" fill="#1e1e1e"/>\n'
        f'<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" fill="#d4d4d4">\n'
        f"{rows}\n</g>\n</svg>\n"
    )


if __name__ == "__main__":
    for name, program in (("before.svg", BEFORE), ("after.svg", AFTER)):
        lines = screen_in_the_middle(program)
        while lines and not lines[-1]:
            lines.pop()
        draw(lines, name)
        print("\n".join(lines))
