"""Whether the user's code may come to the same call again is read from its bytecode."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress

import pytest
from support.tasks import Task, run_task

from speedy_utils._worker.code.user_code import called_in_a_loop
from speedy_utils._worker.event_loop import awaited

asked = called_in_a_loop


def after_other_loops() -> bool:
    """Ask behind loops and handlers that lead back to before the call."""
    with nullcontext():
        pass
    for text in ["1", "x"]:
        try:
            int(text)
        except ValueError:
            continue
    with nullcontext():
        return asked()


def before_a_loop() -> bool:
    """Ask for what a loop then goes through."""
    for answer in [asked()]:  # noqa: SIM110 - the loop is what is tested
        if answer:
            return True
    return False


def in_a_for_loop() -> bool:
    """Ask in the body of a loop."""
    answer = False
    for _ in range(1):
        answer = asked()
    return answer


def in_a_while_loop() -> bool:
    """Ask in the body of another kind of loop."""
    answers: list[bool] = []
    while not answers:
        with suppress(ValueError):
            answers.append(asked())
    return answers[0]


def in_a_loop_that_never_goes_on() -> bool:
    """Ask in a loop whose first round is its last."""
    for _ in range(3):
        return asked()
    return True


def in_a_comprehension() -> bool:
    """Ask for each element."""
    answers = [asked() for _ in range(1)]
    return answers[0]


def in_a_call_in_a_loop() -> bool:
    """Ask in a function that a loop calls."""
    answers = [after_other_loops() for _ in range(1)]
    return answers[0]


def answers_once() -> Iterator[bool]:
    """Ask in a generator, and go on."""
    yield asked()
    yield False


def in_a_generator() -> bool:
    """Ask in a generator that a loop goes through."""
    answers = []
    for answer in answers_once():
        answers.append(answer)
    return answers[0]


def in_generators_in_a_loop() -> bool:
    """Ask in several generators that a loop goes through one after another."""
    answers = []
    for _ in range(1):
        for answer in answers_once():
            answers.append(answer)
    return answers[0]


def behind_an_await() -> bool:
    """Ask in a coroutine, beside which others may run."""

    async def ask() -> bool:
        await asyncio.sleep(0)
        return asked()

    return asyncio.run(ask())


async def answer_later() -> bool:
    """Ask behind an ``await``."""
    await asyncio.sleep(0)
    return asked()


async def answer_in_a_call() -> bool:
    """Ask in a coroutine that this one awaits."""
    return await answer_later()


async def answer_in_a_loop() -> bool:
    """Ask in a coroutine that is awaited in a loop."""
    answers = []
    for _ in range(1):
        answers.append(await answer_later())
    return answers[0]


async def answer_in_a_task() -> bool:
    """Ask in an asyncio task, beside which others may run."""
    return await asyncio.create_task(answer_later())


def in_a_thread() -> bool:
    """Ask in a thread, beside which others may run."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(asked()))
    thread.start()
    thread.join()
    return answers[0]


@pytest.mark.parametrize(
    ("ask", "repeats"),
    [
        (after_other_loops, False),
        (before_a_loop, False),
        (in_a_for_loop, True),
        (in_a_while_loop, True),
        (in_a_loop_that_never_goes_on, False),
        (in_a_comprehension, True),
        (in_a_call_in_a_loop, True),
        (in_a_generator, False),
        (in_generators_in_a_loop, True),
        (behind_an_await, True),
        (in_a_thread, True),
        (lambda: awaited(answer_later()), False),
        (lambda: awaited(answer_in_a_call()), False),
        (lambda: awaited(answer_in_a_loop()), True),
        (lambda: awaited(answer_in_a_task()), True),
    ],
)
def test_a_call_in_a_loop_is_told_from_others(ask: Callable[[], bool], repeats: bool) -> None:
    """All calls from the task's function down to the one that asks are looked at."""
    answers: list[bool] = []

    def work(task: Task) -> None:
        answers.append(ask())

    run_task(work, 1)
    assert answers == [repeats]
