"""State files: what one process writes another reads, whole or not at all, and nothing in them is trusted."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speedy_utils._state.ledger import RUN_ITEMS, Key, Location, Metric, Report
from speedy_utils._worker.channel.reader import FolderReader
from speedy_utils._worker.channel.state_file import RUN, decode_state, encode_state
from speedy_utils._worker.channel.writer import FINAL, MAX_KEPT, FolderSink

keys = st.builds(Key, st.none() | st.text(max_size=8), st.sampled_from(Metric), st.text(max_size=8))
amounts = st.integers(0, 10**20) | st.floats(-1e20, 1e20, allow_nan=False)
reports = st.builds(
    Report,
    st.integers(0, 10**9) | st.text(max_size=12),
    st.integers(1, 9),
    st.dictionaries(keys, amounts, max_size=5),
    st.integers(0, 10**9),
    st.none(),
    st.text(max_size=50),
    st.integers(0, 10**6),
    st.none() | st.dictionaries(keys, amounts, max_size=3),
    st.integers(0, 10**6),
)


@contextmanager
def limited_file_size(most: int) -> Iterator[None]:
    """Limit the size of the files that this process writes, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def read(folder: Path) -> list[Report]:
    """Return what a new reader finds."""
    return list(FolderReader(folder, "r1").collect()[0])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(reports, max_size=3, unique_by=lambda report: report.task))
def test_what_is_written_is_read(tmp_path: Path, sent: list[Report]) -> None:
    """A reader finds the reports that were sent last, with the process that sent them."""
    FolderSink(tmp_path, "r1").send([Report(0, 1, {})], {})
    assert FolderSink(tmp_path, "r1").send(sent, {None: (3.0, 1.0)})
    here = Location(socket.gethostname(), os.getpid())
    assert read(tmp_path) == [report._replace(location=here) for report in sent]
    assert len(list(tmp_path.iterdir())) == 1


def test_only_what_has_changed_is_read_again(tmp_path: Path) -> None:
    """A file that has not changed since the last reading has no reports; one that has, the last state's."""
    reader, sink = FolderReader(tmp_path, "r1"), FolderSink(tmp_path, "r1")
    for reading in range(1, 300, 2):  # long enough for the file to be replaced
        sink.send([Report(0, 1, {}, reading=reading)], {})
        sink.send([Report(0, 1, {}, reading=reading + 1)], {})
        assert [report.reading for report in reader.collect()[0]] == [reading + 1]
        assert reader.collect() == ([], {})


def test_a_state_that_is_written_in_part_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one before it counts, also for good if the writer was killed meanwhile."""
    FolderSink(tmp_path, "r1").send([Report(0, 1, {}, reading=1)], {})
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(encode_state("r1", [Report(0, 1, {}, reading=2)], {})[:-1])
    assert [report.reading for report in read(tmp_path)] == [1]
    assert not caplog.records


def test_what_is_written_after_a_part_of_a_state_counts(tmp_path: Path) -> None:
    """A write that fails, such as on a full disk, leaves a part of a state, to which none is added."""
    sink = FolderSink(tmp_path, "r1")
    sink.send([Report(0, 1, {}, reading=1)], {})
    (path,) = tmp_path.iterdir()
    with limited_file_size(path.stat().st_size + 50), pytest.raises(OSError, match="File too large"):
        sink.send([Report(0, 1, {}, reading=1)], {})
    sink.send([Report(0, 1, {}, reading=2)], {})
    assert [report.reading for report in read(tmp_path)] == [2]


def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """What clears a folder of temporary files need not know of runs."""
    sink = FolderSink(tmp_path, "r1")
    for reading in (1, 2):
        sink.send([Report(0, 1, {}, reading=reading)], {})
        assert [report.reading for report in read(tmp_path)] == [reading]
        for path in tmp_path.iterdir():
            path.unlink()


def test_timings_grow_older_in_the_file(tmp_path: Path) -> None:
    """What began three seconds before it was written began that long ago, and the time since then."""
    FolderSink(tmp_path, "r1").send([Report(0, 1, {})], {"Read": (3.0, 1.0)})
    (path,) = tmp_path.iterdir()
    state = json.loads(path.read_text())
    state["written"] -= 10
    path.write_text(json.dumps(state))
    started, moved = FolderReader(tmp_path, "r1").collect()[1]["Read"]
    assert 13 <= started < 60
    assert started - moved == pytest.approx(2.0)


GOOD = {
    "run": "r1",
    "host": "node-1",
    "pid": 4711,
    "written": 0.0,
    "timings": [],
    "reports": [[7, 1, [[None, 0, "", 60]], 1, ""]],
}


def changed(**fields: Any) -> str:
    """Return a good state with other fields."""
    return json.dumps({**GOOD, **fields})


BAD_STATES = {
    "empty": "",
    "half": json.dumps(GOOD)[:40],
    "no object": "[1, 2]",
    "a missing field": json.dumps({"written": 0.0}),
    "another metric": changed(reports=[[7, 1, [[None, 99, "", 60]], 1, ""]]),
    "a huge number": changed(reports=[[7, 1, [[None, 0, "", int("9" * 4000)]], 1, ""]]),
    "no number": changed(reports=[[7, 1, [[None, 0, "", float("nan")]], 1, ""]]),
    "a number as host": changed(host=7),
    "a list as task": changed(reports=[[[7], 1, [], 1, ""]]),
    "a nest": "[" * 100_000,
    "other bytes": "\udcff\udcfe",
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_a_bad_file_changes_nothing(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is no state is left out with one warning, and the other files are read."""
    (tmp_path / "1-bad0bad0.json").write_text(BAD_STATES[name], errors="surrogateescape")
    (tmp_path / "2-600d600d.json").write_text(json.dumps(GOOD))
    reader = FolderReader(tmp_path, "r1")
    assert [report.task for report in reader.collect()[0]] == [7]
    (tmp_path / "1-bad0bad0.json").write_text("{")
    assert not list(reader.collect()[0])
    assert len([each for each in caplog.records if each.levelno == logging.WARNING]) == 1
    assert "can't be read" in caplog.text


def test_all_amounts_that_can_be_counted_are_read(tmp_path: Path) -> None:
    """A counter may be as large as a float can be, in either direction."""
    counts = {Key(None, Metric.COUNTER, str(n)): n for n in (sys.float_info.max, -1e300, 10**31)}
    FolderSink(tmp_path, "r1").send([Report(0, 1, counts)], {})
    assert [report.counts for report in read(tmp_path)] == [counts]


def make_link(path: Path) -> None:
    """Make a link to a state file elsewhere."""
    (path.parent / "elsewhere").write_text(json.dumps(GOOD))
    path.symlink_to(path.parent / "elsewhere")


def make_pipe(path: Path) -> None:
    """Make a named pipe without a writer."""
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    """Make a folder."""
    path.mkdir()


def make_large(path: Path) -> None:
    """Make a file that is larger than any state."""
    with path.open("w") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("make", [make_link, make_pipe, make_folder, make_large])
def test_what_is_no_plain_file_is_left_out(tmp_path: Path, make: Any) -> None:
    """Links, pipes, folders and files of any size in the place of a state change nothing."""
    make(tmp_path / "1-bad0bad0.json")
    (tmp_path / "2-600d600d.json").write_text(json.dumps(GOOD))
    assert [report.task for report in read(tmp_path)] == [7]


def test_other_files_are_not_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files with other names, such as a state that is being written, are none of the reader's."""
    (tmp_path / "1-half.new").write_text("{")
    (tmp_path / "README").write_text("hello")
    (tmp_path / "config.json").write_text("{}")
    assert read(tmp_path) == []
    assert not caplog.records


def test_a_folder_that_is_gone_has_no_counts(tmp_path: Path) -> None:
    """A reader of a deleted folder finds nothing; a sink says that it can't write."""
    assert read(tmp_path / "gone") == []
    with pytest.raises(FileNotFoundError):
        FolderSink(tmp_path / "gone", "r1").send([], {})


def test_a_process_keeps_what_other_tasks_of_it_have_sent(tmp_path: Path) -> None:
    """Tasks that work side by side are sent one by one, and none takes the place of another."""
    sink = FolderSink(tmp_path, "r1")
    sink.send([Report(0, 1, {}, reading=1)], {})
    sink.send([Report(1, 1, {}, reading=5)], {})
    assert [report.task for report in read(tmp_path)] == [0, 1]


def test_an_earlier_reading_does_not_replace_a_later_one(tmp_path: Path) -> None:
    """Two threads that send the same task may come in the wrong order."""
    sink = FolderSink(tmp_path, "r1")
    for reading in (2, 1):
        sink.send([Report(0, 1, {}, reading=reading)], {})
    assert [report.reading for report in read(tmp_path)] == [2]


def test_what_is_kept_costs_no_more_with_many_tasks(tmp_path: Path) -> None:
    """What won't change any more is there for good, in files that are not written once they are full."""
    sink = FolderSink(tmp_path, "r1")
    for task in range(2 * MAX_KEPT + 1):
        sink.send([Report(task, 1, {RUN_ITEMS: 1}, reading=1)], {})
        sink.keep(Report(task, 1, {RUN_ITEMS: 2}, FINAL))
    found = read(tmp_path)
    assert {report.task: report.counts[RUN_ITEMS] for report in found} == dict.fromkeys(
        range(2 * MAX_KEPT + 1), 2
    )
    assert len(list(tmp_path.iterdir())) == 4  # that of what runs is empty
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 100 * MAX_KEPT


def test_states_of_an_earlier_run_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process of an earlier run in the same folder may still be at work; it is no reason to warn."""
    FolderSink(tmp_path, "r0").send([Report(0, 1, {})], {})
    assert read(tmp_path) == []
    assert not caplog.records


def test_a_process_learns_from_the_folder_which_run_it_works_for(tmp_path: Path) -> None:
    """Without the id of the run it is read from the folder, as soon as that has one."""
    sink = FolderSink(tmp_path)
    with pytest.raises(FileNotFoundError):
        sink.send([], {})
    (tmp_path / RUN).write_text(json.dumps({"run": "r1"}))
    sink.send([Report(3, 1, {})], {})
    assert [report.task for report in read(tmp_path)] == [3]


def test_clocks_of_two_machines_are_not_compared() -> None:
    """What another machine has written is as old as it says, whatever the time is there."""
    state = json.loads(encode_state("r1", [], {None: (3.0, 1.0)}))
    state |= {"host": "elsewhere", "written": state["written"] - 3600}
    assert decode_state(json.dumps(state).encode(), "r1") == ([], {None: (3.0, 1.0)})


def test_the_last_reading_finds_everything(tmp_path: Path) -> None:
    """Files are read once more then, as a file server may tell late that one has changed."""
    FolderSink(tmp_path, "r1").send([Report(0, 1, {})], {})
    reader = FolderReader(tmp_path, "r1")
    for _ in range(2):
        assert [report.task for report in reader.collect(everything=True)[0]] == [0]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file to another user")
def test_files_of_another_user_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What another user has put into the folder changes nothing but that there is a warning."""
    path = tmp_path / "1-bad0bad0.json"
    path.write_text(json.dumps(GOOD))
    os.chown(path, 65534, 65534)
    assert read(tmp_path) == []
    assert "it belongs to another user" in caplog.text
