"""What a benchmark hands back, and how it is written: Markdown to read, JSON to reckon with."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"


def results_of(quick: bool) -> Path:
    """Where tables are written to: those of quick runs spoil no others."""
    return RESULTS / "quick" if quick else RESULTS


PACKAGES = (
    *(
        "speedy-utils-progress",
        "ray",
        "datasets",
        "pyarrow",
        "tqdm",
        "rich",
        "alive-progress",
        "mqdm",
    ),
    "psutil",
)

Cell = str | int | float | None


@dataclass
class Table:
    """A table of figures.

    Attributes:
        name: What it is called on the command line and in file names.
        title: Its headline.
        columns: Their headings, with units.
        rows: As many cells each; None where there is no figure.
        notes: How it was measured, and what to know when reading it.
        figures: Single figures by name, for what is said elsewhere about them.
        part_of: The benchmark that measures it, where that has another name.
        plot: The file name of a plot that belongs to it.
        quick: Whether sizes and rounds were cut down, so that the figures mean little.
        took: Seconds that its benchmark took.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    part_of: str = ""
    plot: str = ""
    quick: bool = False
    took: float = 0.0

    @property
    def command(self) -> str:
        """What measures it."""
        return f"python -m benchmarks {self.part_of or self.name}"

    def markdown(self) -> str:
        """The table for a reader."""
        lines = [f"## {self.title}", "", f"`{self.command}`{' (--quick)' if self.quick else ''}", ""]
        lines += [_line(self.columns), _line(["---", *["---:"] * (len(self.columns) - 1)])]
        lines += [_line([_cell(value) for value in row]) for row in self.rows]
        if self.plot:
            lines += ["", f"![{self.title}]({self.plot})"]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Cell) -> str:
    """A value as a reader wants it: three digits are all that a shared machine can say."""
    if value is None:
        return "–"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else value
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def machine() -> dict[str, Any]:
    """What the figures were measured on; nothing that names the machine."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "load": round(psutil.getloadavg()[0], 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not on Linux
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(tables: Iterable[Table], folder: Path) -> None:
    """Write each table as JSON, and a page of all that the folder holds.

    Args:
        tables: What was measured.
        folder: Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        text = json.dumps({**asdict(table), "command": table.command, "machine": machine()}, indent=1)
        (folder / f"{table.name}.json").write_text(text + "\n", encoding="utf-8")
    saved = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    page = [
        "# Figures",
        "",
        "Written by `python -m benchmarks`; figures of one table were measured in turns.",
    ]
    for was in saved:
        on = was.pop("machine")
        del was["command"]
        took = f"; took {was['took']:.0f} s" if was.get("took") else ""
        page += ["", Table(**was).markdown().rstrip(), "", _machine_line(on) + took]
    (folder / "README.md").write_text("\n".join(page) + "\n", encoding="utf-8")


def _machine_line(on: Mapping[str, Any]) -> str:
    load = f"; load {on['load']} at the end" if "load" in on else ""
    versions = ", ".join(f"{name} {version}" for name, version in on["versions"].items() if version)
    return (
        f"{on['cores']} cores of {on['cpu']}, {on['memory_gb']} GB, {on['system']}, Python {on['python']}; "
        f"{versions}; {on['date']}{load}"
    )


def machine_line(name: str, folder: Path = RESULTS) -> str:
    """What a table that was written was measured on."""
    return _machine_line(_saved(name, folder)["machine"])


def command(name: str, folder: Path = RESULTS) -> str:
    """What measured a table that was written."""
    return str(_saved(name, folder)["command"])


def figures(name: str, folder: Path = RESULTS) -> dict[str, float]:
    """The single figures of a table that was written; none where it was not, or by a quick run only."""
    path = folder / f"{name}.json"
    if not path.exists() or (saved := _saved(name, folder))["quick"]:
        return {}
    values: dict[str, float] = saved["figures"]
    return values


def _saved(name: str, folder: Path) -> dict[str, Any]:
    saved: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return saved
