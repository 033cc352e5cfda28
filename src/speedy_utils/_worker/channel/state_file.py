"""What a state file holds: the state of one process that works for a run, as a line of JSON.

    4711-1f2e3d4c.json  {"run": "9f86d081", "host": "node-1", "pid": 4711, "written": 1764450000.5,
                         "timings": [[null, 3.5, 0.25]],
                         "reports": [[7, 1, [[null, 0, "", 60]], 12, "", 0, null, 0]]}

A later state is a further line, and the last line that is complete is the state of the process: a line
without its end is still being written, or its writer was killed meanwhile.

Each report has the fields of a ``Report`` but its location; its counts are lists of stage, metric, label and
amount. What was counted is a state and no difference, so a late, torn or lost file costs freshness alone.
Nothing in a file is trusted: what is no state raises.
"""

from __future__ import annotations

import functools
import json
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from ..._state.ledger import Count, Key, Location, Metric, Report
from ..._state.timings import StageTimings
from ..process import process_id

RUN = "run"
"""The file that names the run of a folder: ``{"run": "9f86d081", "host": "node-1", "pid": 4711}``."""

BEGINNING = b'{"run":'
"""What all of these files begin with."""

SUFFIX = ".json"
"""What the names of state files end with."""

UNFINISHED = ".new"
"""What they end with while they are written."""

HOST = socket.gethostname()
"""The name of this machine."""

_MOST = sys.float_info.max
"""The most that is counted. JSON has numbers of any length."""

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

_text_of = functools.lru_cache(maxsize=1024)(_encode)
"""Keys, stages and names as JSON, which are the same in each state."""

_keys: dict[tuple[Any, Any, Any], Key] = {}
"""Keys that were read before: thousands of files have the same few, and to make one takes a microsecond."""

_MAX_KEYS = 10_000


def encode_state(run: str, reports: Iterable[Report], timings: StageTimings) -> bytes:
    """Return the state of this process as it is written: a line.

    Args:
        run: The id of the run.
        reports: What its tasks have counted.
        timings: How long ago their work on items started, and last moved, by stage.
    """
    texts = ",".join([_report_text(report) for report in reports])
    times = ",".join([f"[{_text_of(stage)},{start},{moved}]" for stage, (start, moved) in timings.items()])
    head = f'{{"run":{_text_of(run)},"host":{_text_of(HOST)},"pid":{process_id()},"written":{time.time()}'
    return f'{head},"timings":[{times}],"reports":[{texts}]}}\n'.encode("ascii")


def decode_state(text: bytes, run: str) -> tuple[list[Report], StageTimings]:
    """Return the reports and the timings of the last state in a file; nothing of that of another run.

    Args:
        text: What was read; a state that is the only one needs no end of its line.
        run: The id of the run.

    Raises:
        ValueError: It is no state.
        TypeError: As above.
        KeyError: As above.
        RecursionError: As above.
    """
    complete = text.rpartition(b"\n")[0] or text
    state = json.loads(complete.rpartition(b"\n")[2].decode("ascii"))
    if state["run"] != run:
        return [], {}
    host, written = _text(state["host"]), _number(state["written"])
    location = Location(host, int(_number(state["pid"])))
    reports = [_report(location, *each) for each in state["reports"]]
    # Clocks of two machines can't be compared: what another one has written counts as written just now.
    age = max(0.0, time.time() - written) if host == HOST else 0.0
    timings = {_stage(stage): (_number(a) + age, _number(b) + age) for stage, a, b in state["timings"]}
    return reports, timings


def _report_text(report: Report) -> str:
    # Put together by hand: JSONEncoder takes five times as long, and a bound call writes a state each.
    task, attempt, counts, reading, _, stack, position, before, kept = report
    known = "null" if before is None else _counts_text(before)
    own = f"{_text_of(task)},{attempt},{_counts_text(counts)},{reading},{_encode(stack)}"
    return f"[{own},{position},{known},{kept}]"


def _counts_text(counts: Mapping[Key, Count]) -> str:
    return f"[{','.join([f'[{_text_of(key)[1:-1]},{count}]' for key, count in counts.items()])}]"


def _report(
    location: Location,
    task: Any,
    attempt: Any,
    counts: Any,
    reading: Any,
    stack: Any,
    position: Any = 0,
    before: Any = None,
    kept: Any = 0,
) -> Report:
    numbers = attempt, reading, position, kept
    if type(task) not in (int, str) or any(type(each) is not int for each in numbers):
        raise ValueError("it holds no report")
    known = None if before is None else _counts(before)
    return Report(task, attempt, _counts(counts), reading, location, _text(stack), position, known, kept)


def _counts(plain: Any) -> dict[Key, Count]:
    return {
        _keys.get((stage, metric, label)) or _key(stage, metric, label): _number(count)
        for stage, metric, label, count in plain
    }


def _key(stage: Any, metric: Any, label: Any) -> Key:
    if type(metric) is not int:
        raise ValueError("it holds a metric that is no number")
    key = Key(_stage(stage), Metric(metric), _text(label))
    if len(_keys) >= _MAX_KEYS:
        _keys.clear()
    return _keys.setdefault((stage, metric, label), key)


def _stage(value: Any) -> str | None:
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("it holds a name that is no text")
    return value


def _number(value: Any) -> Count:
    if type(value) not in (int, float) or not -_MOST <= value <= _MOST:
        raise ValueError("it holds an amount that is no number")
    number: Count = value
    return number
