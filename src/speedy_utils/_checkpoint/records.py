"""Results in files to which records are only ever appended.

A file is ``results-00001``, ``results-00002``, ...: one for each run that had results. It begins with
:data:`MAGIC`, and each record is a header and a pickle::

    key           20 bytes: which item the result is of
    length        8 bytes, little-endian: bytes of the pickle
    checksum      4 bytes, little-endian: CRC-32 of the key and the pickle
    the pickle

A process that is killed while it writes leaves a last record that is cut off. It is left out, and the next
run begins a file of its own, so nothing is ever written behind it.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO

from .._sharding.files import sync

logger = logging.getLogger("speedy_utils")

KEY_BYTES = 20
MAGIC = b"speedy_utils results 1\n"
PREFIX = "results-"

_HEADER = struct.Struct(f"<{KEY_BYTES}sQI")


def record_files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold records, the oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit())


def pack_record(key: bytes, pickled: bytes) -> bytes:
    """Return a record as it stands in a file."""
    return _HEADER.pack(key, len(pickled), zlib.crc32(pickled, zlib.crc32(key))) + pickled


def read_records(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the key and the pickle of each record of a file, up to the first that is not whole."""
    with path.open("rb") as file:
        size, whole = os.fstat(file.fileno()).st_size, len(MAGIC)
        if file.read(whole) == MAGIC:
            while (record := _read_record(file, size)) is not None:
                yield record
                whole = file.tell()
        else:
            whole = 0
    if whole < size:
        logger.warning(
            "the last %s bytes of %s are no whole record and are left out; what they held runs again",
            f"{size - whole:,}",
            path,
        )


def _read_record(file: BinaryIO, size: int) -> tuple[bytes, bytes] | None:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    key, length, checksum = _HEADER.unpack(header)
    if length > size - file.tell():
        return None
    pickled = file.read(length)
    return (key, pickled) if zlib.crc32(pickled, zlib.crc32(key)) == checksum else None


class RecordWriter:
    """Writes records from a thread of its own; what waits is written, and brought to the disk, at once.

    Args:
        folder: Where it makes a file, with the first record.
        check: Called before each write; an exception of it ends the writing.
    """

    def __init__(self, folder: Path, check: Callable[[], None]) -> None:
        self._folder, self._check = folder, check
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()  # takes no lock in Python, see _interrupts
        self._thread = threading.Thread(target=self._run, name="speedy_utils-checkpoint", daemon=True)
        self._thread.start()
        self.error: Exception | None = None
        """What has ended the writing."""
        self.written = 0
        """Records that are on the disk."""

    def put(self, record: bytes) -> None:
        """Let a record be written."""
        self._waiting.put(record)

    def close(self) -> None:
        """Wait until all records are on the disk, or can't be written. Idempotent."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        file: BinaryIO | None = None
        try:
            closing = False
            while not closing:
                records, closing = self._take()
                if records:
                    self._check()
                    file = file or self._open()
                    file.write(b"".join(records))
                    file.flush()
                    os.fsync(file.fileno())
                    self.written += len(records)
        except Exception as error:  # the run raises it
            self.error = error
        finally:
            if file is not None:
                with suppress(OSError):  # of a full disk, once more
                    file.close()

    def _take(self) -> tuple[list[bytes], bool]:
        """Wait for a record, and return all that wait, and whether there will be no more."""
        records: list[bytes] = []
        record = self._waiting.get()
        with suppress(Empty):
            while record is not None:
                records.append(record)
                record = self._waiting.get_nowait()
        return records, record is None

    def _open(self) -> BinaryIO:
        files = record_files(self._folder)
        number = int(files[-1].name.removeprefix(PREFIX)) + 1 if files else 1
        path = self._folder / f"{PREFIX}{number:05d}"
        file = path.open("xb")
        file.write(MAGIC)
        sync(self._folder)
        return file
