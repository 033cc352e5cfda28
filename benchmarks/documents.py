"""Writes the table of figures of the documents from what was measured.

python -m benchmarks.documents
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .table import command, figures, machine_line

PAGE = Path(__file__).parent.parent / "docs" / "figures.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


class Row(NamedTuple):
    """A row of the page: what, by whose table, and the two cells with names of figures in braces."""

    what: str
    table: str
    ours: str
    beside: str


class _Unknown:
    """Stands for a figure that was not measured."""

    def __format__(self, spec: str) -> str:
        return "–"


class _Figures(dict[str, float]):
    def __missing__(self, name: str) -> _Unknown:
        return _Unknown()


def _end_to_end(cell: str, *peers: str) -> str:
    """The seconds of some variants of a cell, and how many times that is ours where both go row by row."""
    names = {
        "datasets_map__rows": "`datasets.map`",
        "datasets_map__batches": "`datasets.map` batched",
        "plain_Ray_tasks__rows": "plain Ray tasks",
        "plain_Ray_tasks__batches": "plain Ray tasks",
        "mpire__rows": "mpire",
        "joblib__rows": "joblib",
    }
    return ", ".join(
        f"{names[peer]} {{{cell}_{peer}_s:.1f}} s"
        + (f" ({{{cell}_{peer}_of_ours:.1f}}×)" if peer.endswith("rows") else "")
        for peer in peers
    )


_OURS, _BATCHES = "ours__processes__rows", "ours__processes__batches"
_ROWS = ("datasets_map__rows", "plain_Ray_tasks__rows", "mpire__rows", "joblib__rows")
_POOLS = {
    "`Pool.map`": "Pool_map",
    "mpire": "mpire",
    "joblib": "joblib",
    "Ray's `Pool`": "ray_util_multiprocessing_Pool",
}

ROWS = (
    Row(
        "CPU time of an item of a list, over a bare loop",
        "items",
        "`track` {track_list_ns:.1f} ns",
        "tqdm {tqdm_list_ns:.0f} ns",
    ),
    Row(
        "of a generator's",
        "items",
        "`track` {track_generator_ns:.1f} ns",
        "tqdm {tqdm_generator_ns:.0f} ns",
    ),
    Row(
        "of any other iterator's, such as a `map`",
        "items",
        "`track` {track_map_ns:.1f} ns",
        "tqdm {tqdm_map_ns:.0f} ns",
    ),
    Row(
        "of a dataset's on disk, row and all",
        "items",
        "`track` {track_dataset_ns:,.0f} ns",
        "bare loop {bare_dataset_ns:,.0f} ns, tqdm {tqdm_dataset_ns:,.0f} ns",
    ),
    Row(
        "CPU time of a call, in a Ray task",
        "calls",
        "`report_progress` {report_ns:.0f} ns",
        "`tqdm.update` {tqdm_update_ns:.0f} ns; a blocking actor call takes {actor_call_us:,.0f} µs",
    ),
    Row(
        "CPU time of an item under `tqdm(list)` in a task",
        "captured",
        "captured {loop_ns:.0f} ns",
        "drawing by itself {loop_drawn_ns:.0f} ns",
    ),
    Row(
        "a million cheap rows one by one, 2 workers, start to output",
        "endtoend",
        f"{{cheap_2_{_OURS}_s:.1f}} s, of which {{cheap_2_{_OURS}_start_s:.1f}} s before the first row",
        _end_to_end("cheap_2", *_ROWS),
    ),
    Row(
        "the same in batches of 1,000",
        "endtoend",
        f"{{cheap_2_{_BATCHES}_s:.1f}} s",
        _end_to_end("cheap_2", "datasets_map__batches", "plain_Ray_tasks__batches"),
    ),
    Row(
        "the same on a local Ray, which starts first, one by one",
        "endtoend",
        "{cheap_2_ours__ray__rows_s:.1f} s, {cheap_2_ours__ray__rows_start_s:.1f} s before the first row",
        "plain Ray tasks {cheap_2_plain_Ray_tasks__rows_s:.1f} s",
    ),
    Row(
        "medium work, one by one, 2 workers",
        "endtoend",
        f"{{medium_2_{_OURS}_s:.1f}} s",
        _end_to_end("medium_2", *_ROWS, "datasets_map__batches"),
    ),
    Row(
        "cheap rows one by one, 8 workers",
        "endtoend",
        f"{{cheap_8_{_OURS}_s:.1f}} s",
        _end_to_end("cheap_8", "datasets_map__rows"),
    ),
    Row(
        "medium work, one by one, 8 workers",
        "endtoend",
        f"{{medium_8_{_OURS}_s:.1f}} s",
        _end_to_end("medium_8", "datasets_map__rows", "datasets_map__batches"),
    ),
    Row(
        "CPU of all processes, over plain Ray tasks with no progress",
        "overhead",
        "{run_more_s:+.1f} s, or {run_percent:+.1f} %; {start_more_s:+.1f} s where the tasks do nothing",
        "{run_cpu_s:.0f} s for {million_rows:.0f} million rows of medium work, and {start_cpu_s:.0f} s",
    ),
    Row(
        "how far the bar in a terminal is behind, 8 workers",
        "fidelity",
        "{lag_8:.2f} s, at most {lag_p95_8:.2f} s in 95 of 100 looks",
        "tqdm_ray {tqdm_ray_lag_8:.2f} s, {tqdm_ray_lag_p95_8:.2f} s",
    ),
    Row(
        "the same in a run four times as long",
        "fidelity",
        "{long_lag_8:.2f} s, at most {long_lag_p95_8:.2f} s in 95 of 100 looks",
        "",
    ),
    Row(
        "64 real workers that only report",
        "reports",
        "{million_reports_64:.1f} million reports a second",
        "",
    ),
    Row(
        "10,000 simulated workers: CPU of the actor",
        "scale",
        "{actor_10000_percent:.0f} % of a core, the bar at most {lag_max_10000_s:.1f} s behind",
        "without relays {direct_10000_percent:.0f} %, {direct_10000_lag_max_s:.0f} s behind",
    ),
    Row(
        "a look of the display, eight stages of 64 tasks",
        "display",
        "{look_ms:.1f} ms: {percent:.1f} % of a core",
        "",
    ),
    Row(
        "error of the end that is shown, from the middle on, one of 64 shards with 20 times the work",
        "eta",
        "at most {uneven_percent:.1f} %",
        "by the mean rate {uneven_mean_rate_percent:.0f} %",
    ),
    Row(
        "the same with heavy-tailed shards",
        "eta",
        "at most {tailed_percent:.1f} %",
        "by the mean rate {tailed_mean_rate_percent:.0f} %",
    ),
    Row(
        "a task that does nothing, on Ray",
        "tasks",
        "`multi_process` {ours_0ms_us:,.0f} µs",
        "plain `ray.wait` loop {plain_0ms_us:,.0f} µs",
    ),
    *(
        Row(
            what,
            "small_items",
            ", ".join(f'`"{each}"` {{backend__{each}__{kind}_us:.1f}} µs' for each in engines),
            ", ".join(f"{peer} {{{key}_{kind}_us:.1f}} µs" for peer, key in _POOLS.items()),
        )
        for what, kind, engines in (
            (
                "a million items that do nothing, 2 workers: an item",
                "that_do_nothing",
                ("processes", "ray", "threads", "seq"),
            ),
            ("one in a hundred takes 2 ms, the others 20 µs: an item", "uneven", ("processes", "ray")),
        )
    ),
    Row(
        "merging 64 shards of 500 MB in all",
        "merge",
        "{ours_s:.2f} s",
        "`concatenate_datasets(...).save_to_disk` {concatenate_s:.2f} s",
    ),
    Row(
        "the most memory of all processes, a million rows in memory, 2 workers",
        "memory",
        "{in_memory_ours_processes_yielded_mb:,.0f} MB",
        "`datasets.map` {in_memory_datasets_map_rows_mb:,.0f} MB",
    ),
)


def table() -> str:
    """The table as it stands on the page, without what was not measured; a dash stands for a peer."""
    lines = ["| what | speedy_utils | beside it | command |", "| --- | --- | --- | --- |"]
    for row in ROWS:
        values = _Figures(figures(row.table))
        ours, beside = row.ours.format_map(values), row.beside.format_map(values)
        if "–" in ours:
            continue
        lines.append(f"| {row.what} | {ours} | {beside} | `{command(row.table)}` |")
    return "\n".join([*lines, "", f"Measured on {machine_line('items')}."])


def rewrite() -> None:
    """Put the table between the marks of the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"docs/figures.md lacks the marks {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    rewrite()
