"""State files: what one process writes another reads, whole or not at all, and nothing in them is trusted."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speedy_utils._state.ledger import Key, Location, Metric, Report
from speedy_utils._worker.channel.folder import FolderReader, FolderSink, RunFolder

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
)


def read(folder: Path) -> list[Report]:
    """Return what a new reader finds."""
    return list(FolderReader(folder).collect()[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(reports, max_size=3))
def test_what_is_written_is_read(tmp_path: Path, sent: list[Report]) -> None:
    """A reader finds the reports that were sent last, with the process that sent them."""
    sink = FolderSink(tmp_path)
    assert sink.send([Report(0, 1, {})], {})
    assert sink.send(sent, {None: (3.0, 1.0)})
    here = Location(socket.gethostname(), os.getpid())
    assert read(tmp_path) == [report._replace(location=here) for report in sent]
    assert len(list(tmp_path.iterdir())) == 1


def test_only_what_has_changed_is_read_again(tmp_path: Path) -> None:
    """A file that was not replaced since the last reading has no reports."""
    reader, sink = FolderReader(tmp_path), FolderSink(tmp_path)
    sink.send([Report(0, 1, {}, reading=1)], {})
    assert len(list(reader.collect()[0])) == 1
    assert reader.collect() == ([], {})
    sink.send([Report(0, 1, {}, reading=2)], {})
    assert [report.reading for report in reader.collect()[0]] == [2]


def test_timings_grow_older_in_the_file(tmp_path: Path) -> None:
    """What began three seconds before it was written began that long ago, and the time since then."""
    FolderSink(tmp_path).send([Report(0, 1, {})], {"Read": (3.0, 1.0)})
    (path,) = tmp_path.iterdir()
    state = json.loads(path.read_text())
    state["written"] -= 10
    path.write_text(json.dumps(state))
    started, moved = FolderReader(tmp_path).collect()[1]["Read"]
    assert 13 <= started < 60
    assert started - moved == pytest.approx(2.0)


GOOD = {"written": 0.0, "timings": [], "reports": [[7, 1, [[None, 0, "", 60]], 1, None, ""]]}


def changed(**fields: Any) -> str:
    """Return a good state with other fields."""
    return json.dumps({**GOOD, **fields})


BAD_STATES = {
    "empty": "",
    "half": json.dumps(GOOD)[:40],
    "no object": "[1, 2]",
    "a missing field": json.dumps({"written": 0.0}),
    "another metric": changed(reports=[[7, 1, [[None, 99, "", 60]], 1, None, ""]]),
    "a huge number": changed(reports=[[7, 1, [[None, 0, "", int("9" * 4000)]], 1, None, ""]]),
    "no number": changed(reports=[[7, 1, [[None, 0, "", float("nan")]], 1, None, ""]]),
    "a list as task": changed(reports=[[[7], 1, [], 1, None, ""]]),
    "a nest": "[" * 100_000,
    "other bytes": "\udcff\udcfe",
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_a_bad_file_changes_nothing(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is no state is left out with one warning, and the other files are read."""
    (tmp_path / "1-bad.json").write_text(BAD_STATES[name], errors="surrogateescape")
    (tmp_path / "2-good.json").write_text(json.dumps(GOOD))
    reader = FolderReader(tmp_path)
    assert [report.task for report in reader.collect()[0]] == [7]
    (tmp_path / "1-bad.json").write_text("{")
    assert not list(reader.collect()[0])
    assert len([each for each in caplog.records if each.levelno == logging.WARNING]) == 1
    assert "can't be read" in caplog.text


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
    make(tmp_path / "1-bad.json")
    (tmp_path / "2-good.json").write_text(json.dumps(GOOD))
    assert [report.task for report in read(tmp_path)] == [7]


def test_other_files_are_not_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files with other names, such as a state that is being written, are none of the reader's."""
    (tmp_path / "1-half.new").write_text("{")
    (tmp_path / "README").write_text("hello")
    assert read(tmp_path) == []
    assert not caplog.records


def test_a_folder_that_is_gone_has_no_counts(tmp_path: Path) -> None:
    """A reader of a deleted folder finds nothing; a sink says that it can't write."""
    assert read(tmp_path / "gone") == []
    with pytest.raises(FileNotFoundError):
        FolderSink(tmp_path / "gone").send([], {})


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the folders of runs be made here."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / f"speedy_utils-{os.getuid()}"


def test_a_run_folder_is_its_users_own(base: Path) -> None:
    """No other user can read the folder of a run, and it goes at the end."""
    folder = RunFolder()
    assert folder.path.parent == base
    assert [stat.S_IMODE(each.stat().st_mode) for each in (base, folder.path)] == [0o700, 0o700]
    folder.close()
    folder.close()
    assert list(base.iterdir()) == []


def test_a_folder_of_another_kind_is_not_used(base: Path) -> None:
    """Where others could have put something the next place is taken."""
    base.mkdir(mode=0o777)
    base.chmod(0o777)
    folder = RunFolder()
    assert folder.path.parent != base
    folder.close()


ABANDON = """
import os
from speedy_utils._worker.channel.folder import RunFolder
print(RunFolder().path, flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_folder_of_a_killed_driver_goes_with_the_next_run(base: Path) -> None:
    """What a killed driver has left is removed, and the folder of a run that goes on is not."""
    running = RunFolder()
    killed = subprocess.run(
        [sys.executable, "-c", ABANDON], capture_output=True, text=True, check=False, timeout=120
    )
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    following = RunFolder()
    assert sorted(base.iterdir()) == sorted([running.path, following.path])
    running.close()
    following.close()


def test_a_folder_whose_driver_has_not_locked_it_yet_stays(base: Path) -> None:
    """Two drivers that start at the same moment leave each other's folder alone."""
    RunFolder().close()
    starting = base / "new-abcdefgh"
    starting.mkdir()
    (starting / "owner").touch()
    RunFolder().close()
    assert list(base.iterdir()) == [starting]
    os.utime(starting, (0, 0))
    RunFolder().close()
    assert list(base.iterdir()) == []
