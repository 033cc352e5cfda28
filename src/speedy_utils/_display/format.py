"""Numbers, rates and lines as text: tqdm's ``format_*`` functions for snapshots, and one view of a line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tqdm.std import Bar, tqdm  # type: ignore[attr-defined]  # the stubs leave out the first
from tqdm.utils import disp_len, disp_trim

from .._state.ledger import Task
from .._state.snapshot import Snapshot, StageSnapshot
from .._state.stages import Excess
from .._worker.input_rows import BAD_ROWS

MIN_BAR_COLUMNS = 8
"""A bar that is narrower between its ends is left out, as the words that it would push out say more."""

MAX_NAME_COLUMNS = 32
"""A longer name is cut before rate and clock, or a counter, are left out."""

MAX_PENDING_FRACTION = 0.99
"""How much of a bar is filled, at most, while results have yet to come in or to be saved."""

_IRREGULAR_ENDINGS = ("ches", "ies", "ses", "shes", "ss", "xes", "zes")
"""Endings of units whose singular only a dictionary knows: batches and caches, entries and movies."""


def format_number(value: float) -> str:
    """Return a quantity with thousands separators, and with decimals if it has fewer than three digits."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def format_si(value: float) -> str:
    """Return a quantity in three or four characters: ``3``, ``0.25``, ``51.2k``, ``1.21G``."""
    if value < 0:
        return f"-{format_si(-value)}"
    if value < 999.5:
        return f"{value:.3g}"
    # Past yotta there is no prefix; format_sizeof would write all digits.
    return tqdm.format_sizeof(value) if value < 999.5e24 else f"{float(value):.3g}"


def rate_of_late(stage: StageSnapshot) -> float:
    """Return the rate of a stage in the last seconds; the mean if that is not known."""
    return stage.rate if stage.recent_rate is None else stage.recent_rate


def format_rate(rate: float | None, unit: str) -> str:
    """Return a rate as tqdm writes it: ``25,607 items/s``, or ``2.00 s/item`` if it is below one a second."""
    if not rate:
        return f"? {unit}/s"
    if unit == "B":
        return f"{format_si(rate)}B/s"
    if rate >= 1:
        return f"{format_number(rate)} {unit}/s"
    return f"{format_number(1 / rate)} s/{singular(unit)}"


def singular(unit: str) -> str:
    """Return what one of some items is called: ``item``."""
    return unit if unit.endswith(_IRREGULAR_ENDINGS) else unit.removesuffix("s")


def format_amount(value: int, unit: str) -> str:
    """Return a number of items in full, ``1,671,800``, or a number of bytes rounded, ``1.21G``."""
    return format_si(value) if unit == "B" else f"{value:,}"


def format_quantity(value: int, unit: str) -> str:
    """Return a number of items with their unit: ``1,012 items``, ``1 item``, ``696 kB``."""
    if unit != "B":
        return f"{value:,} {unit if value != 1 else singular(unit)}"
    text = format_si(value)
    return f"{text[:-1]} {text[-1]}B" if text[-1].isalpha() else f"{text} B"


def format_count(stage: StageSnapshot) -> str:
    """Return ``1,671,800/2,948,390``, with a ``+`` if the total grows; without a total ``173 items``."""
    if stage.total is None:
        return format_quantity(stage.done, stage.unit)
    done, total = (format_amount(value, stage.unit) for value in (stage.done, stage.total))
    return f"{done}/{total}{'+' if stage.growing else ''}"


def format_percent(stage: StageSnapshot) -> str:
    """Return how much of the total is done; 100 % means all, in and saved. Empty without a fixed total."""
    if stage.total is None or stage.growing:
        return ""
    if stage.finished:
        return "100%"
    return f"{min(round(100 * stage.done / (stage.total or 1)), 99)}%"


def format_eta(stage: StageSnapshot) -> str:
    """Return the time that is left, ``00:49``, or ``?`` if it is not known, such as where nothing moves.

    Empty while results are still to come in or to be saved: nothing tells how long that takes.
    """
    if stage.pending:
        return ""
    if stage.finished:
        return "00:00"
    return "?" if stage.eta is None else str(tqdm.format_interval(stage.eta))


def format_counters(stage: StageSnapshot) -> list[str]:
    """Return ``tokens=1.21G (19.3M/s)`` for each counter, without its rate if that is below one a second.

    Rows that were skipped are ``3 bad rows``.
    """
    texts = []
    seconds = stage.counted_in or stage.elapsed
    for name, value in stage.counters.items():
        if name == BAD_ROWS:
            texts.append(format_quantity(int(value), "bad rows"))
            continue
        rate = (value - stage.initial_counters.get(name, 0)) / seconds if seconds else 0.0
        texts.append(f"{name}={format_si(value)}" + (f" ({format_si(rate)}/s)" if rate >= 1 else ""))
    return texts


def tasks_as_line(snapshot: Snapshot) -> StageSnapshot | None:
    """Return the tasks of a run as a line, if they alone say how far it is; None if its items do."""
    run = snapshot.run_line
    known = run.total is not None and not run.growing
    if known or not snapshot.tasks_total or run.unit == snapshot.task_unit:
        return None
    done, total = snapshot.tasks_done, snapshot.tasks_total
    tasks = replace(run, done=done, total=total, unit=snapshot.task_unit, initial=0, growing=False)
    return replace(tasks, pending=done == total)


def format_time_of_day(seconds: float) -> str:
    """Return a time as ``09:35``, or as ``2026-11-28 09:35`` if it is not of today.

    Args:
        seconds: The time, in seconds since the epoch.
    """
    moment = time.localtime(seconds)
    today = moment[:3] == time.localtime()[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", moment)


def format_task(task: Task | None) -> str:
    """Return ``task 7``, the name of a task that has one, or ``the tasks``."""
    return "the tasks" if task is None else f"task {task}" if isinstance(task, int) else task


def format_excess(excess: Excess) -> str:
    """Return ``task 7 reported 1,012 of 10 items``, or ``the tasks reported 696 kB of 500 kB``.

    The task of a tracked call has the name of its function: ``embed_all reported 1,012 of 10 items``.
    """
    reported, total = (format_quantity(value, excess.unit) for value in (excess.reported, excess.total))
    if reported == total:  # rounded
        reported, total = f"{excess.reported:,}", f"{excess.total:,} {excess.unit}"
    elif excess.unit != "B":
        reported = format_amount(excess.reported, excess.unit)
    return f"{format_task(excess.task)} reported {reported} of {total}"


def format_tasks(snapshot: Snapshot) -> str:
    """Return ``31/64 shards``, or ``0/1 shard``."""
    return f"{snapshot.tasks_done:,}/{format_quantity(snapshot.tasks_total, snapshot.task_unit)}"


def format_remarks(snapshot: Snapshot) -> list[str]:
    """Return the remarks on a run: ``31/64 shards``, ``27 kept``, ``2 of 8 workers``, ``1 failed``."""
    texts = []
    if snapshot.tasks_total and snapshot.unit != snapshot.task_unit and tasks_as_line(snapshot) is None:
        texts.append(format_tasks(snapshot))
    if snapshot.tasks_kept:
        texts.append(f"{snapshot.tasks_kept:,} kept")
    if snapshot.workers_at_work is not None:
        texts.append(f"{snapshot.workers_at_work:,} of {format_quantity(snapshot.workers, 'workers')}")
    if snapshot.tasks_failed:
        texts.append(f"{snapshot.tasks_failed:,} failed")
    if snapshot.retries:
        texts.append(f"{snapshot.retries:,} retried")
    return texts


def format_summary(snapshot: Snapshot) -> str:
    """Return the last line of a run that has no line of its own: items, time, mean rate, tasks, counters."""
    run = snapshot.run_line
    done = format_quantity(run.done, run.unit)
    if run.total is not None and not run.finished:
        done = f"{format_amount(run.done, run.unit)}/{format_quantity(run.total, run.unit)}"
    title = f"{done} in {tqdm.format_interval(run.elapsed)}"
    rate = format_rate(run.rate, run.unit)
    return ", ".join([title, rate, *format_remarks(snapshot), *format_counters(run)])


@dataclass(frozen=True, slots=True)
class LineView:
    """One line as text, the same for all displays.

    Attributes:
        key: Which line of its run it is: the name of its stage; None for the run's own line, as a stage may
            have the run's name.
        stage: The stage.
        percent: ``57%``; empty without a fixed total. If only the total of the tasks is known, it is that of
            the tasks.
        fraction: How much of the bar is filled; all of it without a percentage.
        size: The total of the percentage as it is said in the default name of a run: ``2,948,390 items``.
        count: ``1,671,800/2,948,390``, or ``173 items, 0/4 tasks``.
        elapsed: ``01:05``.
        eta: ``00:49``, or ``?``; empty if nothing is left to count, or if the run has ended short.
        rate: ``25,607 items/s``.
        phase: Of the run, in its first line only: ``saving 3 of 64 shards…``; empty while it counts.
        remarks: On the run, in its first line only: ``("31/64 shards", "1 failed")``.
        counters: ``("tokens=1.21G (19.3M/s)",)``.
        postfix: ``loss=0.31``: what the newest tqdm bar of the stage says beside its count.
    """

    key: str | None
    stage: StageSnapshot
    percent: str
    fraction: float
    size: str
    count: str
    elapsed: str
    eta: str
    rate: str
    phase: str
    remarks: tuple[str, ...]
    counters: tuple[str, ...]
    postfix: str

    @classmethod
    def of(
        cls,
        stage: StageSnapshot,
        *,
        key: str | None = None,
        phase: str = "",
        remarks: Sequence[str] = (),
        final: bool = False,
        tasks: StageSnapshot | None = None,
    ) -> LineView:
        """Make the view of a stage; it is as far as the tasks of its run, if given."""
        whole, count = stage, format_count(stage)
        if tasks is not None:
            whole, unit = tasks, "" if stage.total is None else f" {stage.unit}"
            count = f"{count}{unit}, {tasks.done:,}/{format_quantity(tasks.total or 0, tasks.unit)}"
        percent = format_percent(whole)
        fraction = whole.done / whole.total if percent and whole.total else 1.0
        return cls(
            key=key,
            stage=stage,
            percent=percent,
            fraction=min(fraction, MAX_PENDING_FRACTION if whole.pending else 1.0),
            size=format_quantity(whole.total or 0, whole.unit),
            count=count,
            elapsed=tqdm.format_interval(stage.elapsed),
            eta="" if final and not stage.finished else format_eta(whole),
            rate=format_rate(rate_of_late(stage), stage.unit),
            phase=f"{phase}…" if phase else "",
            remarks=tuple(remarks),
            counters=tuple(format_counters(stage)),
            postfix=stage.postfix,
        )

    @property
    def clock(self) -> str:
        """``01:05<00:49``, or the elapsed time alone without a fixed total, or where no time is left."""
        return f"{self.elapsed}<{self.eta}" if self.percent and self.eta else self.elapsed

    @property
    def extras(self) -> tuple[str, ...]:
        """What there is to say besides clock and rate: the phase, the remarks, the counters, the postfix."""
        return tuple(filter(None, (self.phase, *self.remarks, *self.counters, self.postfix)))


def format_lines(snapshot: Snapshot) -> list[LineView]:
    """Return the views of the lines that a reading shows, in order."""
    phase, remarks = snapshot.phase, format_remarks(snapshot)
    views = []
    for stage in snapshot.lines:
        key = None if stage is snapshot.run_line else stage.name
        tasks = None if key is not None else tasks_as_line(snapshot)
        views.append(
            LineView.of(stage, key=key, phase=phase, remarks=remarks, final=snapshot.final, tasks=tasks)
        )
        phase, remarks = "", []
    return views


def format_bar(line: LineView, width: int, *, ascii_only: bool = False) -> str:
    """Return a line with a bar that fills a width.

    Args:
        line: The line.
        width: Columns.
        ascii_only: Whether the bar is made of ``#``.

    Returns:
        A text of no more than ``width`` columns. What has no room is left out in this order: the total in
        the name, the end of a long name, the postfix, the counters and the remarks, each from the last one
        on, the bar, the rate, the phase, the clock, the end of any name, the whole name. A count is never
        cut: it is there or not.
    """
    dots = "..." if ascii_only else "…"
    phase = [line.phase.replace("…", dots)] * bool(line.phase)
    extras = _extras(line)
    name = line.stage.name
    # The default name of a run contains its total, and so does the count.
    short_name = name.removesuffix(f" {line.size}") if line.percent else name
    cut_name = short_name
    if disp_len(short_name) > MAX_NAME_COLUMNS:
        cut_name = f"{disp_trim(short_name, MAX_NAME_COLUMNS - len(dots))}{dots}"
    choices = [(name, 0), (short_name, 0), *((cut_name, shown) for shown in range(len(extras)))]
    for title, shown in choices:
        end = f"{line.count} [{', '.join([line.clock, line.rate, *phase, *extras[shown]])}]"
        if not line.percent:
            if disp_len(f"{title}: {end}") <= width:
                return f"{title}: {end}"
            continue
        start = f"{title}: {line.percent:>4}|"
        room = width - disp_len(f"{start}| {end}")
        if room >= MIN_BAR_COLUMNS:
            return f"{start}{Bar(line.fraction, room, Bar.ASCII if ascii_only else Bar.UTF)}| {end}"
    count = f"{line.percent} {line.count}".strip()
    for details in ([line.clock, line.rate, *phase], [line.clock, *phase], [line.clock], []):
        end = f"{count} [{', '.join(details)}]" if details else count
        if disp_len(f"{cut_name}: {end}") <= width:
            return f"{cut_name}: {end}"
    room = width - disp_len(f"{dots}: {count}")
    if room > 0:
        return f"{disp_trim(short_name, room)}{dots}: {count}"
    # The beginning of a number is another number, so what does not fit is left out.
    return next((text for text in (count, line.count, line.percent) if disp_len(text) <= width), "")


def _extras(line: LineView) -> list[list[str]]:
    """Return what may stand in the brackets of a line: all of it, one thing less each time, nothing."""
    most = len(line.remarks) + len(line.counters) + bool(line.postfix)
    choices = []
    for shown in range(most, -1, -1):
        counters = " ".join(line.counters[: max(shown - len(line.remarks), 0)])
        texts = [*line.remarks[:shown], counters, line.postfix if shown == most else ""]
        choices.append([text for text in texts if text])
    return choices


def format_last(line: LineView, width: int, *, ascii_only: bool = False) -> list[str]:
    """Return the last state of a line, in which no counter is left out: there is no bar, or another row.

    Args:
        line: The line.
        width: Columns.
        ascii_only: Whether the bar is made of ``#``.
    """
    counters = " ".join(line.counters)
    bar = format_bar(line, width, ascii_only=ascii_only)
    if counters in bar:
        return [bar]
    details = ", ".join([line.clock, line.rate, *line.remarks, counters])
    for name in (line.stage.name, line.stage.name.removesuffix(f" {line.size}")):
        text = f"{name}: {' '.join(filter(None, [line.percent, line.count]))} [{details}]"
        if disp_len(text) <= width:
            return [text]
    return [
        format_bar(replace(line, counters=()), width, ascii_only=ascii_only),
        *_wrap(line.counters, width),
    ]


def format_last_summary(snapshot: Snapshot, width: int) -> list[str]:
    """Return the summary of a run in rows of at most a width, none of its counters left out."""
    if disp_len(summary := format_summary(snapshot)) <= width:
        return [summary]
    run = snapshot.run_line
    summary = format_summary(replace(snapshot, run_line=replace(run, counters={})))
    first, *others = _wrap(summary.replace(", ", ",\n").split("\n"), width)
    return [first.strip(), *others, *_wrap(format_counters(run), width)]


def _wrap(parts: Sequence[str], width: int) -> list[str]:
    """Return rows of at most a width with parts that stay whole as far as possible, indented."""
    rows: list[str] = []
    for part in parts:
        if rows and disp_len(f"{rows[-1]} {part}") <= width:
            rows[-1] += f" {part}"
        else:
            rows.append(f"  {part}")
    return rows
