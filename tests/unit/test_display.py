"""Bars and log lines say what a snapshot says."""

from __future__ import annotations

import io
import logging
import re
from dataclasses import replace

import pytest

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils.progress import display as module
from speedy_utils.progress.display import (
    BarDisplay,
    GivenBar,
    LogDisplay,
    NullDisplay,
    choose_display,
    number,
    speed,
)
from speedy_utils.testing import FakeClock

TOTAL = 2_948_390
NAME = f"Processing {TOTAL:,} items"


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """It is one."""
        return True

    @property
    def screen(self) -> list[str]:
        """The lines that stand there at the end, from the top."""
        lines, row = [""], 0
        for piece in re.split(r"(\r|\n|\x1b\[A)", self.getvalue()):
            if piece == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif piece == "\x1b[A":
                row -= 1
            elif piece and piece != "\r":
                lines[row] = piece + lines[row][len(piece) :]
        return [line.rstrip() for line in lines if line.strip()]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LINES", "TQDM_DISABLE"):
        monkeypatch.delenv(name, raising=False)


def reading(done: int, total: int | None = TOTAL, elapsed: float = 0.0, **more: object) -> Snapshot:
    """A snapshot of a run with one line."""
    return Snapshot((StageSnapshot(NAME, done, total),), elapsed=elapsed, **more)  # type: ignore[arg-type]


def drawn(*snapshots: Snapshot, close: bool = True) -> list[str]:
    """What stands in the terminal after some snapshots."""
    terminal = Terminal()
    bars = BarDisplay(terminal)
    for snapshot in snapshots:
        bars.show(snapshot)
    if close:
        bars.close()
    return terminal.screen


HALF = reading(1_671_800, elapsed=65.287)


def test_bar_looks_as_promised() -> None:
    """The line has name, share, count, clock, ETA and rate, with thousands separators."""
    assert drawn(reading(0), HALF, close=False) == [
        "Processing 2,948,390 items:  57%|█████▋    | 1,671,800/2,948,390 [01:05<00:49, 25,607 items/s]"
    ]


def test_bar_before_the_first_count_has_no_rate() -> None:
    """Nothing is said of rate and ETA while nothing is known, and the phase is named."""
    line = "Processing 2,948,390 items:   0%|          | 0/2,948,390 [00:00<?, ? items/s, starting Ray…]"
    assert drawn(reading(0, phase="starting Ray")) == [line]


def test_bar_clock_is_the_snapshots() -> None:
    """Elapsed time is what the snapshot says, however long the bar has been there."""
    (line,) = drawn(reading(0), reading(10, 20, elapsed=3_700))
    assert "10/20 [1:01:40<1:01:40, 370 s/item]" in line
    terminal = Terminal()
    bars = BarDisplay(terminal)
    bars.show(reading(0))
    bars._lines[0].last_print_t -= 1_000  # Ray took long to start
    bars.show(HALF)
    assert "[01:05<00:49, 25,607 items/s]" in terminal.screen[0]
    bars.close()


def test_bar_ends_with_the_mean_rate() -> None:
    """The last reading shows the mean over the whole run, not the rate of its last moments."""
    slow_start = [reading(0), reading(10, 1_000, elapsed=9.0), reading(900, 1_000, elapsed=9.5)]
    final = reading(1_000, 1_000, elapsed=10.0, final=True)
    (line,) = drawn(*slow_start, final, close=False)
    assert "100%|██████████| 1,000/1,000 [00:10<00:00, 100 items/s]" in line


def test_bar_tells_of_tasks_failures_and_retries() -> None:
    """Beside the count stand the tasks done, failed and retried."""
    (line,) = drawn(replace(HALF, tasks_total=1_064, tasks_done=12, tasks_failed=3, retries=2))
    assert line.endswith(", 12/1,064 tasks, 3 failed, 2 retried]")


def test_bar_over_tasks_counts_them_once() -> None:
    """Where tasks are what is counted, they are not told again beside the count."""
    (line,) = drawn(reading(5, 10, elapsed=2.5, unit="tasks", tasks_total=10, tasks_done=5, final=True))
    assert line.endswith("5/10 [00:02<00:02, 2.00 tasks/s]")


def test_bar_without_total_has_no_share() -> None:
    """Where the total is not known there are count, clock and rate."""
    assert drawn(reading(0, None), reading(12_345, None, elapsed=10, final=True)) == [
        "Processing 2,948,390 items: 12,345 [00:10, 1,234 items/s]"
    ]


def test_bar_learns_its_total() -> None:
    """A total that becomes known later turns the line into a bar."""
    (line,) = drawn(reading(5, None, elapsed=1.0), reading(5, 10, elapsed=1.0, final=True))
    assert " 50%|█████     | 5/10 [00:01<00:01, 5.00 items/s]" in line


def test_bar_goes_back_where_an_attempt_was_lost() -> None:
    """A count that shrinks is shown as it is, and ends exact."""
    snapshots = [reading(n, 100, elapsed=n / 10 + 1) for n in (0, 60, 20)]
    assert "20/100" in drawn(*snapshots, close=False)[0]
    assert "100%|██████████| 100/100" in drawn(*snapshots, reading(100, 100, elapsed=20, final=True))[0]


def test_bar_has_one_line_a_stage() -> None:
    """Each stage has a line of its own, also where it appears later, and only the first has remarks."""
    first = reading(0, 10, tasks_total=2)
    stages = (StageSnapshot("Read", 4, 8), StageSnapshot("Write", 1_000, None))
    more = replace(first, stages=(*first.stages, *stages), elapsed=2.0, final=True)
    assert drawn(first, more) == [
        "Processing 2,948,390 items:   0%|          | 0/10 [00:02<?, ? items/s, 0/2 tasks]",
        "Read:  50%|█████     | 4/8 [00:02<00:02, 2.00 items/s]",
        "Write: 1,000 [00:02, 500 items/s]",
    ]


def test_bar_leaves_out_of_its_rate_what_was_done_before() -> None:
    """Items of an earlier run count, and are not part of the rate."""
    (line,) = drawn(reading(500, 1_000, initial=500), reading(600, 1_000, 10.0, initial=500, final=True))
    assert "600/1,000 [00:10<00:40, 10.0 items/s]" in line


def test_bar_ends_with_a_newline() -> None:
    """What is printed after a run starts on a line of its own."""
    terminal = Terminal()
    bars = BarDisplay(terminal)
    bars.show(HALF)
    bars.close()
    assert terminal.getvalue().endswith("\n")


def test_bar_fits_a_terminal_without_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pseudo-terminal that nobody gave a size gets 80 columns, not an endless line."""
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: (0, 0))
    (line,) = drawn(HALF)
    assert 0 < len(line) <= 80
    assert "1,671,800/2,948,390" in line


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "? items/s"),
        (0.0, "? items/s"),
        (25_606.9, "25,607 items/s"),
        (12.34, "12.3 items/s"),
        (1.0, "1.00 items/s"),
        (0.5, "2.00 s/item"),
        (0.001, "1,000 s/item"),
    ],
)
def test_speed_is_written_to_three_digits(rate: float | None, text: str) -> None:
    """Rates below one a second are turned around."""
    assert speed(rate, "items") == text


def test_numbers_have_separators() -> None:
    """Large numbers have separators, small ones decimals."""
    assert [number(value) for value in (1_234_567.8, 99.94, 9.994)] == ["1,234,568", "99.9", "9.99"]


# log lines


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged at INFO."""
    caplog.set_level(logging.INFO)
    return caplog


def test_log_has_a_line_every_ten_seconds_and_one_at_the_end(
    clock: FakeClock, lines: pytest.LogCaptureFixture
) -> None:
    """There is a line when it is time for one, and the last reading has its own."""
    log = LogDisplay(clock=clock)
    for second in range(25):
        log.show(reading(second, 100, elapsed=float(second)))
        clock.advance(1)
    log.show(reading(100, 100, elapsed=25.0, final=True))
    log.close()
    assert lines.messages == [
        f"{NAME}: 10% 10/100 in 00:10, 1.00 items/s, eta 01:30",
        f"{NAME}: 20% 20/100 in 00:20, 1.00 items/s, eta 01:20",
        f"{NAME}: 100% 100/100 in 00:25, 4.00 items/s",
    ]
    assert {record.levelno for record in lines.records} == {logging.INFO}


def test_log_tells_the_end_once(clock: FakeClock, lines: pytest.LogCaptureFixture) -> None:
    """A last reading that is shown twice is one line."""
    log = LogDisplay(clock=clock)
    for _ in range(2):
        log.show(reading(100, 100, elapsed=25.0, final=True))
        clock.advance(60)
    assert len(lines.messages) == 1


def test_log_has_a_line_a_stage(clock: FakeClock, lines: pytest.LogCaptureFixture) -> None:
    """Each stage has a line; rates leave out what was done before, which only the run's own line has."""
    stages = (StageSnapshot("All", 60, 100), StageSnapshot("Read", 20, None))
    log = LogDisplay(clock=clock)
    log.show(Snapshot(stages, elapsed=10, initial=50, tasks_total=4, tasks_failed=1, final=True))
    assert lines.messages == [
        "All: 60% 60/100 in 00:10, 1.00 items/s, eta 00:40, 0/4 tasks, 1 failed",
        "Read: 20 in 00:10, 2.00 items/s",
    ]


def test_log_goes_to_stderr_where_no_logging_is_set_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without any handler the lines go to what is stderr at that moment, whole and without returns."""
    monkeypatch.setattr(module.logger, "propagate", False)
    log = LogDisplay()
    for redirected in (io.StringIO(), io.StringIO()):
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr", redirected)
            LogDisplay().show(reading(5, 10, elapsed=1.0, final=True))
            assert redirected.getvalue().endswith(f"{NAME}: 50% 5/10 in 00:01, 5.00 items/s, eta 00:01\n")
        redirected.close()
    log.show(reading(5, 10, elapsed=1.0, final=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\d\d:\d\d:\d\d Processing .* eta 00:01\n", err)
    assert "\r" not in err


def test_log_without_stderr_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that has neither logging nor stderr goes on."""
    monkeypatch.setattr(module.logger, "propagate", False)
    monkeypatch.setattr("sys.stderr", None)
    LogDisplay().show(reading(5, 10, elapsed=1.0, final=True))


def test_log_obeys_the_programs_level(caplog: pytest.LogCaptureFixture) -> None:
    """A program that asks for warnings only gets no lines."""
    caplog.set_level(logging.WARNING)
    LogDisplay().show(reading(5, 10, final=True))
    assert caplog.messages == []


# which display


def test_terminal_gets_bars_and_a_pipe_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars are for terminals; elsewhere there are log lines, also where there is no stderr at all."""
    monkeypatch.setattr("sys.stderr", Terminal())
    assert isinstance(choose_display(True), BarDisplay)
    for stderr in (io.StringIO(), None):
        monkeypatch.setattr("sys.stderr", stderr)
        assert isinstance(choose_display(True), LogDisplay)


@pytest.mark.parametrize(
    ("value", "shows"),
    [("1", False), ("true", False), ("yes", False), ("0", True), ("", True), ("False", True)],
)
def test_environment_silences(monkeypatch: pytest.MonkeyPatch, value: str, shows: bool) -> None:
    """``TQDM_DISABLE`` silences terminals and pipes, whenever it was set."""
    monkeypatch.setenv("TQDM_DISABLE", value)
    for stderr in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stderr)
        assert isinstance(choose_display(True), NullDisplay) is not shows


def test_progress_false_silences(monkeypatch: pytest.MonkeyPatch) -> None:
    """``progress=False`` shows nothing, anywhere."""
    monkeypatch.setattr("sys.stderr", Terminal())
    display = choose_display(False)
    display.show(HALF)
    display.close()
    assert isinstance(display, NullDisplay)


def test_given_bar_without_total_keeps_its_own() -> None:
    """A bar that a user made keeps its total where the run knows none."""
    from tqdm import tqdm

    with tqdm(total=50, file=io.StringIO()) as bar:
        GivenBar(bar).show(reading(5, None))
        assert (bar.n, bar.total) == (5, 50)
