"""Texts of one row, no wider than there is room for."""

from __future__ import annotations

import os
import re
from typing import TextIO

from tqdm.utils import disp_len, disp_trim

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[^\[\]]?)")
_CONTROLS = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)))  # all but tabs
_MOVING = {code: None for code in _CONTROLS if code != 27}  # an escape that is left is a colour


def size_of(file: TextIO) -> tuple[int, int]:
    """The columns and rows of a terminal, each 0 where it does not say."""
    try:
        return os.get_terminal_size(file.fileno())
    except (AttributeError, OSError, ValueError):  # it is no terminal, or closed
        return 0, 0


def plain(text: str) -> str:
    """A text without what would move the cursor, colour or ring."""
    return _ESCAPES.sub("", text).translate(_CONTROLS).expandtabs()


def row_of(line: str, width: int, encoding: str) -> str:
    """A line without what would move the cursor or ring, cut to a width; colours stay.

    Args:
        line: The line.
        width: How many columns it may take.
        encoding: Which characters there are; others become question marks.
    """
    if not line.isprintable():
        line = _ESCAPES.sub(_colour, line).translate(_MOVING).expandtabs()
    if not line.isascii():
        line = line.encode(encoding, "replace").decode(encoding)
    cut: str = disp_trim(line, width)
    return cut


def _colour(escape: re.Match[str]) -> str:
    return escape[0] if escape[0].startswith("\x1b[") and escape[0].endswith("m") else ""


def end_of(text: str, width: int) -> str:
    """A text, or its end where it is wider than that."""
    if disp_len(text) <= width:
        return text
    text = text[-width:]
    while disp_len(text) > width - 1:
        text = text[1:]
    return f"…{text}"
