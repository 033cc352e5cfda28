"""Records that are appended to files, and what is read of files that a crash has cut off."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from speedy_utils._checkpoint.records import (
    KEY_BYTES,
    MAGIC,
    RecordWriter,
    pack_record,
    read_records,
    record_files,
)

RECORDS = [(bytes([n]) * KEY_BYTES, bytes([n]) * n) for n in (0, 1, 5)]


def never() -> None:
    """Have no objection to a write."""


def write(folder: Path) -> Path:
    """Write the records, and return their file."""
    writer = RecordWriter(folder, never)
    for record in RECORDS:
        writer.put(pack_record(*record))
    writer.close()
    assert (writer.error, writer.written) == (None, len(RECORDS))
    return record_files(folder)[-1]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Each writer has a file of its own, in order, and makes none without a record."""
    RecordWriter(tmp_path, never).close()
    assert record_files(tmp_path) == []
    assert [write(tmp_path).name for _ in range(2)] == ["results-00001", "results-00002"]
    for file in record_files(tmp_path):
        assert list(read_records(file)) == RECORDS


def test_a_file_that_is_cut_off_has_its_whole_records(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever a crash has cut a file off, all records before that place are read, and the rest is logged."""
    file = write(tmp_path)
    content = file.read_bytes()
    sizes = [len(pack_record(*record)) for record in RECORDS]
    ends = [len(MAGIC) + sum(sizes[:n]) for n in range(len(sizes) + 1)]
    for size in range(len(content) + 1):
        caplog.clear()
        file.write_bytes(content[:size])
        whole = sum(end <= size for end in ends) - 1
        assert list(read_records(file)) == RECORDS[: max(whole, 0)]
        assert len(caplog.messages) == (size not in (0, *ends))
    assert "runs again" in caplog.text or not caplog.messages


def test_a_damaged_record_ends_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Any byte of a record that has changed is noticed, and no record from there on is believed."""
    file = write(tmp_path)
    content = file.read_bytes()
    start = len(content) - len(pack_record(*RECORDS[2]))
    for place in range(start, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert list(read_records(file)) == RECORDS[:2]
    assert f"the last {len(content) - start} bytes of {file} are no whole record" in caplog.messages[-1]


def test_a_writer_keeps_what_has_ended_it(tmp_path: Path) -> None:
    """A folder that is gone, or an objection, ends the writing with an error, and nothing waits for it."""
    gone = RecordWriter(tmp_path / "gone", never)
    gone.put(b"record")
    gone.close()
    assert isinstance(gone.error, FileNotFoundError)

    def object_to_it() -> None:
        raise PermissionError("taken")

    lost = RecordWriter(tmp_path, object_to_it)
    lost.put(b"record")
    lost.close()
    lost.close()
    assert (str(lost.error), lost.written, record_files(tmp_path)) == ("taken", 0, [])
    shutil.rmtree(tmp_path)
