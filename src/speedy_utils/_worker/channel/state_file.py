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
import os
import re
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

from ..._interrupts import after_fork_in_child
from ..._state.ledger import Count, Key, Location, Metric, Report
from ..._state.timings import StageTimings

RUN = "run"
"""The file that names the run of a folder: ``{"run": "9f86d081", "host": "node-1", "pid": 4711}``."""

BEGINNING = b'{"run":'
"""What all of these files begin with."""

SUFFIX = ".json"
"""What the names of state files end with."""

STATE_NAME = re.compile(rf"\d+-[0-9a-f]{{8}}(-\d+)?{re.escape(SUFFIX)}")
"""The names of state files. Others in a folder that users have named are theirs."""

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
    # Put together by hand: JSONEncoder takes five times as long, and a bound call writes a state each.
    times = texts = ""
    for stage, (start, moved) in timings.items():
        # In microseconds, as it takes longer to write a float that is as exact as can be.
        times += f"{',' * bool(times)}[{_text_of(stage)},{int(start * 1e6)}e-6,{int(moved * 1e6)}e-6]"
    for task, attempt, counts, reading, _, stack, position, before, kept in reports:
        amounts = ""
        for key, count in counts.items():
            amounts += f"{',' * bool(amounts)}[{_text_of(key)[1:-1]},{count}]"
        place = _encode(stack) if stack else '""'
        known = "null"
        if before is not None:
            known = f"[{','.join([f'[{_text_of(key)[1:-1]},{count}]' for key, count in before.items()])}]"
        own = f"{_text_of(task)},{attempt},[{amounts}],{reading},{place}"
        texts += f"{',' * bool(texts)}[{own},{position},{known},{kept}]"
    head, written = _head(run), f"{time.time_ns() // 1000}e-6"
    return f'{head}{written},"timings":[{times}],"reports":[{texts}]}}\n'.encode("ascii")


@functools.lru_cache(maxsize=8)
def _head(run: str) -> str:
    return f'{{"run":{_encode(run)},"host":{_encode(HOST)},"pid":{os.getpid()},"written":'


after_fork_in_child(_head.cache_clear)


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
