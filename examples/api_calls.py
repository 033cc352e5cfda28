"""Make 2,000 calls to a server that fails now and then, and try those again.

    python examples/api_calls.py [--calls 2000] [--at-once 64]

The server is one of this program's own. It turns 3 calls in 100 away twice, as too many, and does not answer
one in 200 the first time. The line ends with `130 retried`, and no answer is missing. Started again, with
`--checkpoint FOLDER`, it makes no call that has an answer.
"""

import argparse
import asyncio
import time
from collections import Counter

from speedy_utils import multi_process

tries: Counter[int] = Counter()


class TooManyCallsError(Exception):
    """What a server answers with code 429."""

    retry_after = 0.2  # seconds: it is waited for that long at the least


async def ask(number: int) -> int:
    """Stand for a call of a model: answer after 50 ms, or not."""
    tries[number] += 1
    await asyncio.sleep(0.05)
    if number % 100 in (7, 41, 83) and tries[number] <= 2:
        raise TooManyCallsError(f"call {number} is one too many")
    if number % 200 == 150 and tries[number] == 1:
        await asyncio.sleep(600)
    return number * number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--checkpoint")
    options = parser.parse_args()

    begin = time.monotonic()
    answers = multi_process(
        ask,
        range(options.calls),
        backend="threads",
        num_workers=options.at_once,
        retry_on=(TooManyCallsError, TimeoutError),
        retry_wait=0.1,
        max_retries=5,
        task_timeout=1.0,
        checkpoint=options.checkpoint,
        desc="Asking",
        unit="calls",
    )
    right = sum(answer == number * number for number, answer in enumerate(answers))
    took = time.monotonic() - begin
    print(f"{right:,} of {options.calls:,} answers are right; {sum(tries.values()):,} calls in {took:.1f} s")


if __name__ == "__main__":
    main()
