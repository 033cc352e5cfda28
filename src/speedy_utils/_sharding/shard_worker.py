"""A shard's folder, as the worker that runs the shard fills it.

Every attempt at a shard writes into a folder of its own, and the shard counts as finished once its
record is there. The record is written last and in one step, so a worker that dies leaves a finished
shard or none, and a straggler of an earlier attempt can't spoil the files of a later one::

    shards/00003/record.json           what the finished attempt left: rows, files, features
    shards/00003/9f86d081/output/      the output_path that process_func was given
    shards/00003/9f86d081/cache/       what map and filter cache, until the shard is finished
    shards/00003/9f86d081/saved/       the rows that it yielded or returned, or saved elsewhere
    shards/00003/9f86d081/bad_rows.jsonl   the rows that it skipped, if there are any

Other files that ``process_func`` writes in the attempt's folder are kept: see :mod:`.disk.extras`. Those
outside are read and never linked, moved or deleted: a path that ``process_func``
returns may lead anywhere.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._interrupts import keeping_ctrl_c
from .._validation import shorten
from .._worker.context import tally_here
from .._worker.event_loop import awaited
from .._worker.input_rows import InputRows
from ..errors import NotSharedError, ShardError
from .columns.cast import fits
from .columns.returned import (
    holds_rows,
    is_parquet,
    write_parquet,
    write_returned,
    write_rows,
    write_saved,
)
from .disk.extras import find_extras
from .files import checksum, sync, write_json
from .saved_dataset import (
    SavedDataset,
    caching_in,
    copy_files,
    files_of_dataset,
    read_saved,
    save_dataset,
    silence_datasets,
)
from .shards import ShardSpec, ShardTask, working_on

if TYPE_CHECKING:
    from datasets import Features

_RECORD = "record.json"

BAD_ROWS_FILE = "bad_rows.jsonl"

# What the package itself makes in an attempt's folder.
_MADE_HERE = ("cache", "saved", "cast", "record.tmp", BAD_ROWS_FILE)

# Errors of a path that is there on the driver: another node may see it.
_NOT_SHARED = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ESTALE, errno.ENOTCONN}
)

_ADVICE = (
    "Yield rows, or return them as a Dataset, a list of rows, a dict of columns, a DataFrame or an Arrow "
    "table. The path of a folder that Dataset.save_to_disk wrote, or of a Parquet file, will do too, and so "
    "will None after saving to output_path."
)


def process_shard(
    task: ShardTask,
    process_func: Callable[..., Any],
    kwargs: Mapping[str, Any],
    features: Features | None = None,
) -> ShardRecord:
    """Process a shard in a worker: the whole task of a dataset run.

    Args:
        task: The shard.
        process_func: The user's function; it may be a generator function.
        kwargs: Its arguments besides the shard.
        features: The columns of the output; None if they are to be found out.
    """
    output = begin_shard(task.folder)
    caches = output.with_name("cache")
    dataset = task.dataset()
    rows = InputRows(dataset, task.place.index, task.place.start, output.with_name(BAD_ROWS_FILE))
    if (tally := tally_here()) is not None:
        tally.reporter.input = rows
    with working_on(task.place), caching_in(caches, dataset):
        result = awaited(call_process_func(process_func, dataset, str(output), task.place.start, kwargs))
        if isinstance(result, Iterator):
            # Here, and not in finish_shard: it is still the user's function that runs.
            result = write_rows(result, output.parent / "saved", features, str(task.spec))
    record = finish_shard(result, output, task.spec, features, bad_rows=rows.bad)
    shutil.rmtree(caches, ignore_errors=True)  # what is left of it goes with the attempt
    return record


def call_process_func(
    process_func: Callable[..., Any], dataset: Any, output_path: str, start: int, kwargs: Mapping[str, Any]
) -> Any:
    """Call the user's function with what it takes.

    The output's path goes to a second positional parameter, if there is one that ``kwargs`` does not give,
    and to a function whose parameters are unknown. ``start`` goes to the parameter of that name, if there is
    one.

    Args:
        process_func: The function.
        dataset: The shard.
        output_path: Where it may save its output.
        start: The position of the shard's first row in the dataset.
        kwargs: Its other arguments.
    """
    parameters = _parameters(process_func)
    if parameters is None:
        return process_func(dataset, output_path, **kwargs)
    named = {each.name for each in parameters if each.kind is not Parameter.POSITIONAL_ONLY}
    if "start" in named and "start" not in kwargs:
        kwargs = {**kwargs, "start": start}
    left = [
        each
        for each in parameters
        if each.kind is Parameter.POSITIONAL_ONLY
        or (each.kind is Parameter.POSITIONAL_OR_KEYWORD and each.name not in kwargs)
    ]
    if any(each.kind is Parameter.VAR_POSITIONAL for each in parameters):
        return process_func(dataset, output_path, **kwargs)
    if len(left) < 2:
        return process_func(dataset, **kwargs)
    if parameters.index(left[1]) == 1:
        return process_func(dataset, output_path, **kwargs)
    return process_func(dataset, **{**kwargs, left[1].name: output_path})


def _parameters(function: Callable[..., Any]) -> list[Parameter] | None:
    """Return the parameters of a callable, or None if they are unknown."""
    parameters = None
    # Its own first: a wrapper need not take what it wraps takes, unless it hands all on.
    for follow_wrapped in (False, True):
        with suppress(TypeError, ValueError):  # compiled code
            parameters = list(signature(function, follow_wrapped=follow_wrapped).parameters.values())
            if all(each.kind is not Parameter.VAR_POSITIONAL for each in parameters):
                break
    return parameters


@dataclass(frozen=True)
class ShardRecord:
    """What a finished shard left behind.

    Attributes:
        spec: The rows of the input it stands for.
        rows: The rows it wrote.
        files: Its Arrow files in order: the path below the shard's folder, and the size in bytes.
        features: The columns, as ``Features.to_dict`` returns them.
        fingerprint: The fingerprint of what it wrote.
        split: The name of the split, if the output has one.
        info: What ``dataset_info.json`` says about the data itself.
        source: The folder outside its own that ``process_func`` wrote to, if it did.
        sums: When each file was changed last, in nanoseconds, and its checksum.
        extras: Files and folders that ``process_func`` wrote beside it: paths below the shard's folder.
        bad_rows: How many rows of the input it skipped.
        bad_rows_file: What lists them, below the shard's folder; empty if there are none.
    """

    spec: ShardSpec
    rows: int
    files: tuple[tuple[str, int], ...]
    features: dict[str, Any]
    fingerprint: str
    split: str | None
    info: dict[str, Any]
    source: str | None = None
    sums: tuple[tuple[int, int], ...] = ()  # the first release wrote none
    extras: tuple[str, ...] = ()  # nor these
    bad_rows: int = 0
    bad_rows_file: str = ""


def begin_shard(shard_dir: Path) -> Path:
    """Clear a shard's folder of earlier attempts and make room for one more.

    Args:
        shard_dir: The folder of the shard; its parent exists.

    Returns:
        The ``output_path`` for ``process_func``. It does not exist yet.

    Raises:
        NotSharedError: If the run's folder can't be seen from this machine, or not be written to.
        ShardError: If it has become a link.
    """
    _refuse_links(*shard_dir.parents[:2])
    if shard_dir.is_symlink():  # an earlier attempt has put it there; what it leads to is not ours to clear
        shard_dir.unlink()
    try:
        shard_dir.mkdir(exist_ok=True)
    except OSError as error:
        if error.errno not in _NOT_SHARED:
            raise
        raise NotSharedError(
            f"{socket.gethostname()} can't write to the run's folder {str(shard_dir.parent)!r} "
            f"({error.strerror}): output_path must be on storage that the driver and all workers share"
        ) from error
    # The record goes first: it must never name files that are gone.
    (shard_dir / _RECORD).unlink(missing_ok=True)
    for earlier in shard_dir.iterdir():
        shutil.rmtree(earlier, ignore_errors=True)
    attempt = shard_dir / uuid.uuid4().hex[:8]
    attempt.mkdir()
    return attempt / "output"


@keeping_ctrl_c()
def finish_shard(
    result: object, output: Path, spec: ShardSpec, features: Features | None = None, *, bad_rows: int = 0
) -> ShardRecord:
    """Turn what ``process_func`` returned into a finished shard.

    Args:
        result: A path it saved to, rows in a form that ``_ADVICE`` names, None for "see ``output``", or what
            its rows were written to already.
        output: The ``output_path`` it was given, from ``begin_shard``.
        spec: The shard.
        features: The columns of the output; None if they are those of the shard.
        bad_rows: How many rows are listed beside ``output``, as they were skipped.

    Returns:
        The record, which is on disk by then.

    Raises:
        ShardError: If there is no usable dataset; the message names the shard, the path and the cure.
    """
    from datasets import Dataset
    from datasets.fingerprint import Hasher

    attempt = output.parent
    _refuse_links(*output.parents[:4])
    place = output
    with silence_datasets():
        if isinstance(result, SavedDataset):
            saved, source = result, None
        elif isinstance(result, Dataset) and (features is None or result.features == features):
            saved, source = save_dataset(result, attempt / "saved"), None
        elif holds_rows(result):
            saved, source = write_returned(result, attempt / "saved", features, str(spec)), None
        else:
            place = _locate(result, output, spec)
            saved, source = _read_output(place, attempt, spec, features)
        if features is not None and not fits(saved.features, features):
            saved = write_saved(saved, attempt / "cast", features, str(spec))
    home = attempt.parent.resolve()
    if bad_rows:
        sync(attempt / BAD_ROWS_FILE)
    files, sums = [], []
    for file in saved.files:
        sync(file)
        status = file.stat()
        files.append((file.resolve().relative_to(home).as_posix(), status.st_size))
        sums.append((status.st_mtime_ns, checksum(file)))
    record = ShardRecord(
        spec=spec,
        rows=saved.rows,
        files=tuple(files),
        features=(saved.features if features is None else features).to_dict(),
        # Of rows that are written here it is a function of their files.
        fingerprint=saved.fingerprint or Hasher.hash([saved.features.to_dict(), [crc for _, crc in sums]]),
        split=saved.split,
        info=saved.info,
        source=source,
        sums=tuple(sums),
        extras=tuple(path.relative_to(home).as_posix() for path in _extras(attempt.resolve(), place)),
        bad_rows=bad_rows,
        bad_rows_file=f"{attempt.name}/{BAD_ROWS_FILE}" if bad_rows else "",
    )
    # By way of the attempt's folder: the record of a straggler whose folder was cleared, and with it
    # the files that the record would name, can't come into place.
    write_json(attempt.parent / _RECORD, asdict(record), scratch=attempt / "record.tmp")
    return record


def _extras(attempt: Path, place: Path) -> list[Path]:
    """Find what ``process_func`` wrote in the attempt's folder beside the dataset at ``place``."""
    own = [attempt / name for name in _MADE_HERE]
    if place.is_symlink() or place.is_file():
        own.append(place.parent.resolve() / place.name)
    own += [*files_of_dataset(place.resolve()), *files_of_dataset(attempt / "output")]
    return find_extras(attempt, own)


def read_record(shard_dir: Path, spec: ShardSpec) -> ShardRecord | None:
    """Read a shard's record, and check that its files are there and whole.

    Args:
        shard_dir: The folder of the shard.
        spec: The shard as the run has planned it.

    Returns:
        The record, or None if the shard is not finished, damaged, or stands for other rows.
    """
    try:
        raw = json.loads((shard_dir / _RECORD).read_text(encoding="utf-8"))
        raw["spec"] = ShardSpec(**raw["spec"])
        raw["files"] = tuple((str(name), int(size)) for name, size in raw["files"])
        raw["sums"] = tuple((int(time), int(crc)) for time, crc in raw.get("sums", ()))
        raw["extras"] = tuple(str(name) for name in raw.get("extras", ()))
        record = ShardRecord(**raw)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if _links(shard_dir, *shard_dir.parents[:2]):
        return None
    home = shard_dir.resolve()
    for name, size in record.files:
        file = home / name
        if file.is_symlink() or not file.is_file() or file.stat().st_size != size:
            return None
        if not file.resolve().is_relative_to(home):
            return None
    for name in record.extras:
        parts = Path(name).parts
        if ".." in parts or not (home / name).parent.resolve().is_relative_to(home):
            return None
    if record.bad_rows_file and not (home / record.bad_rows_file).is_file():
        return None
    # Reading all files again would take long; a program that writes into one changes its time.
    for (name, _), (time, crc) in zip(record.files, record.sums, strict=False):
        if (home / name).stat().st_mtime_ns != time and checksum(home / name) != crc:
            return None
    return record if record.spec == spec else None


def _links(*folders: Path) -> list[Path]:
    """Return those that are symbolic links: what they lead to is not the run's own."""
    return [folder for folder in folders if folder.is_symlink()]


def _refuse_links(*folders: Path) -> None:
    """Raise if a folder of the run has become a link."""
    for link in _links(*folders):
        raise ShardError(
            f"{str(link)!r}, a folder of the run, has become a symbolic link to {os.readlink(link)!r}. The "
            "run writes and deletes in folders of its own only: remove the link, and call again."
        )


def _locate(result: object, output: Path, spec: ShardSpec) -> Path:
    """Return the folder that ``process_func`` means."""
    if result is None:
        if not os.path.lexists(output):
            raise ShardError(
                f"{spec}: process_func returned None, but wrote nothing to {str(output)!r}, the output_path "
                f"that a second positional parameter gets. {_ADVICE}"
            )
        return output
    if not isinstance(result, (str, os.PathLike)):
        raise ShardError(
            f"{spec}: process_func returned {shorten(result, 80)} of type {type(result).__name__}. {_ADVICE}"
        )
    path = Path(os.fsdecode(result)).expanduser()
    if not path.exists():
        raise ShardError(
            f"{spec}: process_func returned {os.fsdecode(result)!r}, but nothing exists there (as seen "
            f"from {socket.gethostname()} in {os.getcwd()!r}). {_ADVICE}"
        )
    return path


def _read_output(
    folder: Path, attempt: Path, spec: ShardSpec, features: Features | None
) -> tuple[SavedDataset, str | None]:
    """Read what ``process_func`` saved, and copy files that are not in the attempt's own folder.

    Returns:
        The dataset, and the folder that it came from if that is not in the attempt's own.
    """
    from datasets import load_from_disk

    home = attempt.resolve()
    if is_parquet(folder):
        source = None if folder.resolve().is_relative_to(home) else str(folder.resolve())
        return write_parquet(folder, attempt / "saved", features, str(spec)), source
    try:
        saved = read_saved(folder)
        foreign = [schema for schema in saved.schemas if schema != saved.features.arrow_schema]
        # Not written by save_to_disk; loading casts the files to the features.
        loaded = load_from_disk(str(folder), keep_in_memory=False) if foreign else None
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ShardError(
            f"{spec}: there is no dataset that can be loaded at {str(folder)!r}, where process_func "
            f"says it saved one ({type(error).__name__}: {error}). {_ADVICE}"
        ) from error
    own = all(file.resolve().is_relative_to(home) for file in saved.files)
    source = None if own and folder.resolve().is_relative_to(home) else str(folder.resolve())
    if loaded is not None:
        saved = save_dataset(loaded, attempt / "saved")
    elif not own:
        saved = copy_files(saved, attempt / "saved")
    return saved, source
