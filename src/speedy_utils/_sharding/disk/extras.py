"""Files that ``process_func`` writes beside its dataset, such as statistics, are kept with the output.

They stay where they were written until the merge gives them a second name in the output::

    shards/00003/9f86d081/output/stats.json    as process_func wrote it
    out/extra/00003/output/stats.json          in the output
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..files import link_or_copy

EXTRA = "extra"


def find_extras(attempt: Path, own: Iterable[Path]) -> list[Path]:
    """Find what lies in an attempt's folder beside what belongs to its dataset.

    Args:
        attempt: The folder, resolved.
        own: The files and folders that belong to the dataset, or are deleted with the attempt.

    Returns:
        The paths of files, and of folders that hold nothing of ``own``. Empty folders are left out.
    """
    own = set(own)
    return list(_search(attempt, own, {parent for path in own for parent in path.parents}))


def _search(folder: Path, own: set[Path], above: set[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path in own or path.name.startswith(".nfs"):  # a file that was deleted while it was open
            continue
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder and path in above:
            yield from _search(path, own, above)
        elif not is_folder or any(path.iterdir()):
            yield path


def keep_extra(source: Path, target: Path) -> None:
    """Give a file, or each file of a folder, a second name; links are made anew and never followed.

    Args:
        source: The file or folder. It may be gone: it belongs to the user.
        target: Its name in the output, where nothing is yet.
    """
    if source.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(os.readlink(source))
    elif source.is_dir():
        for path in source.iterdir():
            keep_extra(path, target / path.name)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(source, target)
