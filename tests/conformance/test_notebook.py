"""In a notebook, what runs is the code as it was reloaded, from the notebook's folder."""

from __future__ import annotations

import textwrap
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.ray

OLD = """
from datasets import Dataset
from notebook_constants import NAME
import os

def version(item):
    return f"old {NAME} {os.path.basename(os.getcwd())}"

def process(dataset, output_path):
    if dataset[0]["x"] >= 2:
        raise ValueError("a bug")
    return Dataset.from_list([{"x": row["x"], "by": "old"} for row in dataset])
"""

NEW = OLD.replace("old", "new").replace(
    '    if dataset[0]["x"] >= 2:\n        raise ValueError("a bug")\n', ""
)

CELLS = [
    """
    %load_ext autoreload
    %autoreload 2
    import notebook_helper
    from datasets import Dataset, load_from_disk
    from speedy_utils import FailedShardsError, multi_process, multi_process_dataset
    from speedy_utils._engines.processes.starting import start_method

    def call(resume=True):
        for backend in ("processes", "ray", "threads", "seq"):
            on = {"num_workers": 2, "backend": backend}
            print(backend, set(multi_process(notebook_helper.version, range(4), **on)))
            data = Dataset.from_dict({"x": [0, 1, 2, 3]})
            out = f"out-{backend}"
            try:
                multi_process_dataset(data, notebook_helper.process, out, resume=resume, **on)
            except FailedShardsError as error:
                print(len(error.errors), error.errors[0].reason)
            else:
                print(load_from_disk(out)["by"][:])
    """,
    "print(start_method()); call()",
    """
    import os, pathlib
    path = pathlib.Path("notebook_helper.py")
    before = path.stat().st_mtime_ns
    path.write_text(path.with_suffix(".new").read_text())
    os.utime(path, ns=(before + 10**10, before + 10**10))
    """,
    "print(start_method()); call(resume='trust')",
]


def test_a_module_that_is_reloaded_runs_as_it_was_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``%autoreload 2`` an edited module's new code runs, and goes on with an interrupted dataset.

    The notebook is forked until it has started a Ray.
    """
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "notebook_helper.py").write_text(OLD)
    (folder / "notebook_helper.new").write_text(NEW)
    (folder / "notebook_constants.py").write_text("NAME = 'name'\n")
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    first, second = (
        "".join(each.text for each in cell.outputs if each.get("name") == "stdout").splitlines()
        for cell in (cells[1], cells[3])
    )
    engines = ("processes", "ray", "threads", "seq")
    assert (first.pop(0), second.pop(0)) == ("fork", "forkserver")
    assert first[::2] == [f"{name} {{'old name notebooks'}}" for name in engines]
    assert first[1::2] == ["1 ValueError: a bug"] * 4
    assert second[::2] == [f"{name} {{'new name notebooks'}}" for name in engines]
    assert second[1::2] == ["['old', 'old', 'new', 'new']"] * 4
