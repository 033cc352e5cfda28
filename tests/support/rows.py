"""Datasets of known rows, and functions that process their shards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk

from speedy_utils import track
from speedy_utils._sharding.saved_dataset import silence_datasets


def numbered(rows: int) -> Dataset:
    """Return rows of known content, in memory."""
    return Dataset.from_dict({"text": [f"row {i}" for i in range(rows)], "id": list(range(rows))})


def saved(dataset: Dataset, folder: Path, shards: int = 1) -> Dataset:
    """Return the same rows, memory-mapped."""
    with silence_datasets():
        dataset.save_to_disk(str(folder), num_shards=shards)
    return load_from_disk(str(folder))


def ids(path: str | Path) -> list[int]:
    """Return the ``id`` column of a saved dataset."""
    return list(load_from_disk(str(path))["id"])


def names(folder: Path) -> list[str]:
    """Return what lies in a folder; nothing if there is no such folder."""
    return sorted(os.listdir(folder)) if folder.exists() else []


def upper(dataset: Any, output_path: str) -> str:
    """Write each row in upper case."""
    rows = [{"text": str(row["text"]).upper(), "id": int(row["id"])} for row in track(dataset)]
    Dataset.from_list(rows).save_to_disk(output_path)
    return output_path


def same(dataset: Any, output_path: str) -> Any:
    """Return the rows."""
    return dataset


def never(dataset: Any, output_path: str) -> Any:
    """Stand for work that must not start."""
    raise AssertionError("work was started")
