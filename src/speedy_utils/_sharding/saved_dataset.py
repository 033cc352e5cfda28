"""Datasets on disk, as ``Dataset.save_to_disk`` writes them, read without their rows."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._instrument.tqdm_capture import captured_here

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features


@dataclass
class SavedDataset:
    """A saved dataset, as far as it is read.

    Attributes:
        files: Its Arrow files, in order.
        schemas: What each of them says of its columns.
        rows: How many rows they hold.
        features: The columns.
        fingerprint: What ``datasets`` calls its content.
        split: The name of the split, where it has one.
        info: What ``dataset_info.json`` says.
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
        ValueError: It holds several splits. Whatever else is raised means too that no dataset can be read.
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
        info=info,
    )


def holds_dataset(folder: Path) -> bool:
    """Whether a folder looks like one that ``save_to_disk`` of a ``Dataset`` or a ``DatasetDict`` wrote."""
    names = set(os.listdir(folder))
    return {"state.json", "dataset_info.json"} <= names or "dataset_dict.json" in names


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

    Not hard-linked: whoever owns them may write to the same path again, and would write into ours.
    """
    folder.mkdir()
    copies = []
    for number, file in enumerate(saved.files):
        copies.append(folder / f"data-{number:05d}.arrow")
        shutil.copyfile(file, copies[-1])
    return replace(saved, files=copies)


class _Quiet:
    """How many ``silence_datasets`` blocks are open in this process, and what the last one has to undo."""

    lock = threading.Lock()
    depth = 0
    undo = False


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

    with _Quiet.lock:
        _Quiet.depth += 1
        if (
            _Quiet.depth == 1
            and config.HF_DATASETS_DISABLE_PROGRESS_BARS is None
            and not are_progress_bars_disabled()
        ):
            disable_progress_bars()
            _Quiet.undo = True
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.depth -= 1
            if _Quiet.depth == 0 and _Quiet.undo:
                enable_progress_bars()
                _Quiet.undo = False
