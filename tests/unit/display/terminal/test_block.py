"""The block by itself: which rows it has, and the text that draws them."""

from __future__ import annotations

import pytest
from support.screen import constant

from speedy_utils._display.terminal.block import Block, Render


def block_of(*renders: Render, columns: int = 20) -> Block:
    """Make a block with an owner for each render function."""
    block = Block()
    for owner, render in enumerate(renders):
        block.put(owner, render, block.fit(render(columns), columns), columns)
    return block


def test_owners_keep_their_order() -> None:
    """Rows come in the order in which owners came, also when one puts its lines again."""
    block = block_of(constant("a", "b"), constant("c"))
    block.put(0, constant("d"), ["d"], 20)
    assert block.rows(20, 24) == ["d", "c"]
    block.remove(0)
    block.remove(0)
    assert (block.rows(20, 24), block.empty) == (["c"], False)
    block.clear()
    assert (block.rows(20, 24), block.empty) == ([], True)


def test_lines_are_made_anew_in_another_width() -> None:
    """A line fills the width that there is; one that can't be made anew is cut."""

    def failing(columns: int) -> list[str]:
        if columns != 20:
            raise ZeroDivisionError
        return ["x" * columns]

    block = block_of(lambda columns: ["=" * columns], failing)
    assert block.rows(20, 24) == ["=" * 20, "x" * 20]
    assert block.rows(9, 24) == ["=" * 9, "x" * 9]


def test_a_character_that_the_encoding_lacks_is_a_question_mark() -> None:
    """Lines are cut to the terminal's encoding, so that writing them can't fail."""
    block = Block()
    block.encoding = "ascii"
    assert block.fit(["語 a\nb\x1b[2J\a"], 20) == ["? ab"]


ERASED = "\x1b[K\x1b[C\x1b[J"
"""The end of a row and all below it: never from the corner of the screen on, which tmux would keep."""


@pytest.mark.parametrize(
    ("lines", "rows_above", "text"),
    [
        ([], 1, f"\x1bD\x1b[1A\x1b7\x1b[1B\r{ERASED}\x1b8"),
        (["a"], 1, f"\x1bD\x1b[1A\x1b7\x1b[1B\ra{ERASED}\x1b8"),
        (["a", "b"], 1, f"\x1bD\x1bD\x1b[2A\x1b7\x1b[1B\ra\x1b[K\nb{ERASED}\x1b8"),
        (["a", "b"], 2, f"\x1bD\x1bD\x1bD\x1b[3A\x1b7\x1b[2B\ra\x1b[K\nb{ERASED}\x1b8"),
        (["a"], 50, "\x1bD" * 23 + f"\x1b[23A\x1b7\x1b[23B\ra{ERASED}\x1b8"),
    ],
)
def test_the_text_leaves_the_cursor_where_it_was(lines: list[str], rows_above: int, text: str) -> None:
    """Drawing makes room, goes below the rows of others, erases what its text has left, and comes back."""
    assert block_of(constant(*lines)).draw(20, 24, rows_above) == f"\x1b[K{text}"
