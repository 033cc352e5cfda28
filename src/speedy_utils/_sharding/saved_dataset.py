"""Datasets on disk in the form of ``Dataset.save_to_disk``, read and written without their rows.

All that depends on that form is in this module::

    out/data-00000-of-00002.arrow   the rows, as Arrow streams
    out/data-00001-of-00002.arrow
    out/state.json                  the names of these files in order, fingerprint, split, format
    out/dataset_info.json           features, description, licence, counts
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._instrument.tqdm.capture import captured_here
from .files import sync, write_json

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features


# What dataset_info.json says about the data itself. The rest (splits, sizes, checksums) describes
# where the rows came from and would be wrong for the output.
_INFO = (
    "description",
    "citation",
    "homepage",
    "license",
    "builder_name",
    "dataset_name",
    "config_name",
    "version",
    "supervised_keys",
)


@dataclass(frozen=True)
class SavedDataset:
    """A saved dataset, as far as it is read.

    Attributes:
        files: Its Arrow files, in order.
        schemas: What each of them says of its columns.
        rows: How many rows they hold.
        features: The columns.
        fingerprint: What ``datasets`` calls its content.
        split: The name of the split, where it has one.
        info: What ``dataset_info.json`` says about the data itself.
    """

    files: list[Path]
    schemas: list[pa.Schema]
    rows: int
    features: Features
    fingerprint: str
    split: str | None
    info: dict[str, Any]


def read_saved(folder: Path) -> SavedDataset:
    """Read what ``save_to_disk`` wrote, except for the rows.

    Raises:
        ValueError: If it holds several splits. Any other exception, too, means that no dataset can be read.
    """
    import pyarrow as pa
    from datasets import Features

    if (folder / "dataset_dict.json").is_file():
        raise ValueError("it holds several splits, a DatasetDict; save one of them")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    files = [folder / entry["filename"] for entry in state["_data_files"]]
    schemas, rows = [], 0
    for file in files:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            schemas.append(stream.schema)
            rows += sum(batch.num_rows for batch in stream)
    if info.get("features") is not None:
        features = Features.from_dict(info["features"])
    else:
        features = Features.from_arrow_schema(schemas[0] if schemas else pa.schema([]))
    return SavedDataset(
        # Without rows there is nothing to merge, and ``datasets`` leaves such a dataset without a file.
        files=files if rows else [],
        schemas=schemas if rows else [],
        rows=rows,
        features=features,
        fingerprint=str(state["_fingerprint"]),
        split=state.get("_split"),
        info={key: info[key] for key in _INFO if info.get(key) is not None},
    )


def holds_dataset(folder: Path) -> bool:
    """Whether a folder looks like one that ``save_to_disk`` of a ``Dataset`` or a ``DatasetDict`` wrote."""
    names = set(os.listdir(folder))
    return {"state.json", "dataset_info.json"} <= names or "dataset_dict.json" in names


def files_of_dataset(folder: Path) -> list[Path]:
    """Return the files of a dataset that ``save_to_disk`` wrote, and those that are left beside them.

    Empty if there is no dataset.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (OSError, ValueError, TypeError, LookupError):
        return []
    left = [path.name for pattern in ("cache-*.arrow", "data-*-of-*.arrow") for path in folder.glob(pattern)]
    return [
        Path(os.path.normpath(folder / name)) for name in ("state.json", "dataset_info.json", *names, *left)
    ]


def save_dataset(dataset: Dataset, folder: Path) -> SavedDataset:
    """Save a dataset in a folder to be made."""
    if len(dataset) == 0:
        # No file is what a shard without rows needs, and some versions can't save one without columns.
        split = None if dataset.split is None else str(dataset.split)
        # The fingerprint is private, but the only name a dataset has for its content.
        return SavedDataset([], [], 0, dataset.features, dataset._fingerprint, split, {})
    # Without its format: a transform can't be saved.
    dataset.with_format(None).save_to_disk(str(folder))
    return read_saved(folder)


def copy_files(saved: SavedDataset, folder: Path) -> SavedDataset:
    """Copy a dataset's Arrow files to a folder to be made.

    Not hard-linked: the program that owns them may write to the same path again, and would write into ours.
    """
    folder.mkdir()
    copies = []
    for number, file in enumerate(saved.files):
        copies.append(folder / f"data-{number:05d}.arrow")
        shutil.copyfile(file, copies[-1])
    return replace(saved, files=copies)


def in_parts(table: pa.Table, size: int) -> Iterator[pa.Table]:
    """Yield a table in parts of equal numbers of rows, which hold about ``size`` bytes, or one row."""
    rows = max(1, table.num_rows * size // max(size, table.nbytes))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def data_file_names(count: int) -> list[str]:
    """Return the names of ``count`` Arrow files, at least one: a dataset without any can't be loaded."""
    count = max(1, count)
    return [f"data-{number:05d}-of-{count:05d}.arrow" for number in range(count)]


def write_empty_file(target: Path, schema: pa.Schema) -> None:
    """Write an Arrow file without rows."""
    import pyarrow as pa

    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, schema):
        pass
    sync(target)


def write_metadata(
    folder: Path,
    *,
    files: Sequence[Path],
    rows: int,
    features: Features,
    fingerprint: str,
    split: str | None,
    infos: Sequence[Mapping[str, Any]],
) -> None:
    """Write what ``Dataset.load_from_disk`` reads beside the Arrow files, and have it reach the disk.

    Args:
        folder: Where the Arrow files are.
        files: These files, in order.
        rows: How many rows they hold.
        features: Their columns.
        fingerprint: The name of their content.
        split: The name of the split, if there is one.
        infos: What is known of the data, as in :attr:`SavedDataset.info`, of each part of it.
    """
    from datasets import DatasetInfo
    from datasets.splits import SplitDict, SplitInfo

    num_bytes = sum(file.stat().st_size for file in files)
    info = DatasetInfo.from_merge([DatasetInfo.from_dict(dict(part)) for part in infos])
    info.features = features
    info.dataset_size = num_bytes
    if split is not None:
        info.splits = SplitDict({split: SplitInfo(split, num_bytes, rows)})
    state: dict[str, Any] = {
        "_data_files": [{"filename": file.name} for file in files],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    write_json(folder / "state.json", state)
    info.write_to_directory(str(folder))
    for path in (folder / "dataset_info.json", folder):
        sync(path)


_caches: ContextVar[tuple[Path, frozenset[str]] | None] = ContextVar("speedy_utils_caches", default=None)


@contextmanager
def caching_in(folder: Path, dataset: Dataset) -> Iterator[None]:
    """Let transforms of a dataset, such as ``map`` and ``filter``, cache in a folder inside the block.

    ``datasets`` caches beside the dataset's own files, which may lie on a read-only mount, and would keep the
    caches of each shard for ever. Other datasets are cached where they were.

    Args:
        folder: The folder; it is made when something is cached.
        dataset: The dataset.
    """
    _redirect_caches()
    beside = frozenset(os.path.dirname(file["filename"]) for file in dataset.cache_files)
    token = _caches.set((folder, beside))
    try:
        yield
    finally:
        _caches.reset(token)


@functools.lru_cache(maxsize=1)
def _redirect_caches() -> None:
    """Patch how ``datasets`` names caches, once in a process, for want of a public way."""
    from datasets import Dataset

    original = Dataset._get_cache_file_path

    @functools.wraps(original)
    def cache_file_path(dataset: Dataset, fingerprint: str) -> str:
        path = str(original(dataset, fingerprint))
        folder, beside = _caches.get() or (None, frozenset())
        if folder is None or os.path.dirname(path) not in beside:
            return path
        folder.mkdir(exist_ok=True)
        return str(folder / os.path.basename(path))

    Dataset._get_cache_file_path = cache_file_path


class _Silence:
    """How many ``silence_datasets`` blocks are open in this process, and what the last one restores."""

    lock = threading.Lock()
    blocks = 0
    restore = False


@contextmanager
def silence_datasets() -> Iterator[None]:
    """Keep ``datasets`` from drawing progress bars inside the block, and restore its setting after it.

    The setting is global to the process, so blocks of several threads are counted: the first one in
    turns the bars off, the last one out turns them on again. A user who set the environment variable
    ``HF_DATASETS_DISABLE_PROGRESS_BARS`` has decided already, and nothing is touched. Inside a task
    whose bars are captured nothing is touched either: there the bars of files draw nothing, and do not count.
    """
    if captured_here():
        yield
        return
    from datasets import config
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    with _Silence.lock:
        _Silence.blocks += 1
        if (
            _Silence.blocks == 1
            and config.HF_DATASETS_DISABLE_PROGRESS_BARS is None
            and not are_progress_bars_disabled()
        ):
            disable_progress_bars()
            _Silence.restore = True
    try:
        yield
    finally:
        with _Silence.lock:
            _Silence.blocks -= 1
            if _Silence.blocks == 0 and _Silence.restore:
                enable_progress_bars()
                _Silence.restore = False
