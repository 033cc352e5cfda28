"""How counts, rates and runs are put into words."""

from __future__ import annotations

from tqdm.std import EMA, Bar, tqdm  # type: ignore[attr-defined]  # the stubs leave out the first two
from tqdm.utils import disp_len, disp_trim

from .._state.snapshot import Snapshot, StageSnapshot

_LEAST_BAR = 8
"""Columns below which a bar tells less than the words that it would push out."""


_UNCLEAR = ("ches", "ies", "ses", "shes", "ss", "xes", "zes")
"""How units end whose singular only a dictionary knows: batches and caches, entries and movies."""


def number(value: float) -> str:
    """A quantity with thousands separators, to three digits where it is small."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def short(value: float) -> str:
    """A quantity in three or four characters: ``3``, ``0.25``, ``51.2k``, ``1.21G``."""
    if value < 999.5:
        return f"{value:.3g}"
    # Past yotta there is no prefix; format_sizeof would write all digits.
    return tqdm.format_sizeof(value) if value < 999.5e24 else f"{float(value):.3g}"


def speed(rate: float | None, unit: str) -> str:
    """A rate the way tqdm writes it: turned around where it is below one a second."""
    if not rate:
        return f"? {unit}/s"
    if unit == "B":
        return f"{short(rate)}B/s"
    return f"{number(rate)} {unit}/s" if rate >= 1 else f"{number(1 / rate)} s/{_one_of(unit)}"


def _one_of(unit: str) -> str:
    """``item`` for ``items``. Where more than an ``s`` may have to go it stays as it is, as tqdm has it."""
    return unit if unit.endswith(_UNCLEAR) else unit.removesuffix("s")


def amount(done: int, unit: str) -> str:
    """``1,671,800``, to the item; bytes are rounded."""
    return short(done) if unit == "B" else f"{done:,}"


def count(stage: StageSnapshot) -> str:
    """``1,671,800/2,948,390``; a ``+`` behind a total that still grows; what is done where it isn't known."""
    done = amount(stage.done, stage.unit)
    if stage.total is None:
        return done
    return f"{done}/{amount(stage.total, stage.unit)}{'+' if stage.growing else ''}"


def share(stage: StageSnapshot) -> str:
    """How much of the total is done: 100 % means all, not nearly all. Empty where the total isn't known."""
    if stage.total is None or stage.growing:
        return ""
    if stage.done >= stage.total:
        return "100%"
    return f"{min(round(100 * stage.done / stage.total), 99)}%"


def left(stage: StageSnapshot, rate: float) -> str:
    """The time that is left, as far as it can be told."""
    if stage.total is None or stage.growing:
        return "?"
    rest = max(stage.total - stage.done, 0)
    return str(tqdm.format_interval(rest / rate)) if rate else "00:00" if stage.finished else "?"


def counters(stage: StageSnapshot) -> list[str]:
    """``tokens=1.21G (19.3M/s)``: what was counted beside the items, and its rate where that is above one."""
    said = []
    for name, amount in stage.counters.items():
        rate = amount / stage.elapsed if stage.elapsed else 0.0
        said.append(f"{name}={short(amount)}" + (f" ({short(rate)}/s)" if rate >= 1 else ""))
    return said


def remarks(snapshot: Snapshot) -> list[str]:
    """What is worth saying beside the count of a run."""
    said = []
    if snapshot.tasks_total and snapshot.unit != snapshot.task_unit:
        said.append(f"{snapshot.tasks_done:,}/{snapshot.tasks_total:,} {snapshot.task_unit}")
    if snapshot.tasks_failed:
        said.append(f"{snapshot.tasks_failed:,} failed")
    if snapshot.retries:
        said.append(f"{snapshot.retries:,} retried")
    if snapshot.phase:
        said.append(f"{snapshot.phase}…")
    return said


def summary(snapshot: Snapshot) -> str:
    """One line on a run that has ended, where it has no line of its own: items, time, mean rate, tasks."""
    own = snapshot.own
    done = amount(own.done, own.unit) if own.finished else count(own)
    unit = "B" if own.unit == "B" else f" {own.unit}"
    title = f"{done}{unit} in {tqdm.format_interval(own.elapsed)}"
    return ", ".join([title, speed(own.rate, own.unit), *remarks(snapshot), *counters(own)])


def bar_line(
    stage: StageSnapshot, extras: list[str], rate: float, width: int, *, ascii_only: bool = False
) -> str:
    """A stage as a bar that fills a width.

    Args:
        stage: The stage.
        extras: What to say behind it, as far as there is room.
        rate: Items a second.
        width: Columns.
        ascii_only: Whether the bar is made of ``#``.

    Returns:
        A line of no more than ``width`` columns. What has no room goes in this order: the total in the name,
        the extras from the last one on, the bar, the rate, the clock, the end of the name, the whole name.
        A count is never cut: it is there or not.
    """
    dots = "..." if ascii_only else "…"
    extras = [extra.replace("…", dots) for extra in extras]
    name, percent = stage.name, share(stage)
    # The default name of a run tells its total, and the count does too.
    brief = name if not percent else name.removesuffix(f" {stage.total:,} {stage.unit}")
    of, clock = count(stage), tqdm.format_interval(stage.elapsed)
    if percent:
        clock += f"<{left(stage, rate)}"
    pace = speed(rate, stage.unit)
    choices = [(name, len(extras)), *((brief, shown) for shown in range(len(extras), -1, -1))]
    for title, shown in choices:
        end = f"{of} [{', '.join([clock, pace, *extras[:shown]])}]"
        if not percent:
            if disp_len(f"{title}: {end}") <= width:
                return f"{title}: {end}"
            continue
        head = f"{title}: {percent:>4}|"
        room = width - disp_len(f"{head}| {end}")
        if room >= _LEAST_BAR:
            part = min(stage.done / stage.total, 1.0) if stage.total else 1.0
            return f"{head}{Bar(part, room, Bar.ASCII if ascii_only else Bar.UTF)}| {end}"
    start = f"{percent} {of}".strip()
    for end in (f"{start} [{clock}, {pace}]", f"{start} [{clock}]", start):
        if disp_len(f"{brief}: {end}") <= width:
            return f"{brief}: {end}"
    room = width - disp_len(f"{dots}: {start}")
    if room > 0:
        return f"{disp_trim(brief, room)}{dots}: {start}"
    # The beginning of a number is another number, so what does not fit is left out.
    return next((text for text in (start, of, percent) if disp_len(text) <= width), "")


_SMOOTHING = 0.3
"""How much the newest speed weighs in the one that is shown: that of tqdm."""


class SmoothedRate:
    """The speed of one line, which is shown again and again.

    Example:
        >>> pace = SmoothedRate()
        >>> pace.rate(StageSnapshot("Read", done=10, total=100, elapsed=10.0))
        1.0
        >>> round(pace.rate(StageSnapshot("Read", done=40, total=100, elapsed=11.0)), 1)
        4.6
    """

    def __init__(self) -> None:
        self._items, self._seconds = EMA(_SMOOTHING), EMA(_SMOOTHING)
        self._done, self._at = 0, 0.0
        self._rate: tuple[float, float] | None = None

    def rate(self, stage: StageSnapshot, *, final: bool = False) -> float:
        """Items a second: the mean at the end, the recent one before.

        Args:
            stage: The line now.
            final: Whether its run has ended.
        """
        fresh, seconds = stage.done - stage.initial - self._done, stage.elapsed - self._at
        if fresh > 0 and seconds > 0:
            self._rate = self._items(fresh), self._seconds(seconds)
        if fresh < 0 or (fresh and seconds > 0):
            # What a lost attempt takes back is no speed; from there on it counts again.
            self._done, self._at = self._done + fresh, stage.elapsed
        if final or stage.finished or self._rate is None:
            return stage.rate
        items, usual = self._rate
        # A stage that stands still gets slower, although nothing is counted that would say so.
        return items / max(usual, stage.elapsed - self._at)
