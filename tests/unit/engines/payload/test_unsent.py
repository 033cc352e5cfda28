"""How what can't be sent is named: where it is, its type, and what to do."""

from __future__ import annotations

import collections
import functools
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from speedy_utils._engines.payload import unsent
from speedy_utils._engines.payload.results import pack_outcome
from speedy_utils._engines.payload.shipment import Shipment, pack_item
from speedy_utils._engines.payload.unsent import sending, unsent_item
from speedy_utils._engines.processes.worker import ProcessPickler
from speedy_utils._engines.task import ChunkOutcome

THREADS = 'use backend="threads" where the work waits more than it computes'


def refusal(what: str, value: Any, pack: Callable[[Any], Any] | None = None) -> str:
    """Return the error for a value that can't be sent."""
    with pytest.raises(TypeError) as caught, sending(what, value, ProcessPickler):
        (pack or functools.partial(pack_item, ProcessPickler))(value)
    assert type(caught.value) is TypeError
    return str(caught.value)


def refused_item(value: Any) -> str:
    """Return the reason why the task fails whose item can't be sent, the second of a chunk."""
    pack, items = functools.partial(pack_item, ProcessPickler), [1, value, value]
    with pytest.raises(Exception) as caught:  # noqa: PT011 - pickling raises anything
        pack(items)
    error = unsent_item(items, pack, cast("Exception", caught.value), ProcessPickler)
    assert error.place == 1
    return str(error)


def refused_function(text: str, name: str) -> str:
    """Return the error for a function of a main program."""
    main = ModuleType("__main__")
    own, sys.modules["__main__"] = sys.modules["__main__"], main
    try:
        exec(text, vars(main))
        return refusal("func", vars(main)[name], Shipment(ProcessPickler).define)
    finally:
        sys.modules["__main__"] = own


class Holder:
    """An object with something in it."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def method(self, item: Any) -> Any:
        """Return an item."""
        return item


class Slotted:
    """An object without a ``__dict__``."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


def with_closure(held: Any) -> Callable[[], Any]:
    """Return a function that holds something."""
    return lambda: held


@pytest.mark.parametrize(
    ("put", "path"),
    [
        (lambda lock: lock, "item"),
        (lambda lock: [1, "a", (2, lock)], "item[2][1]"),
        (lambda lock: {"a": {"b": lock}}, "item['a']['b']"),
        (lambda lock: collections.defaultdict(list, a=[lock]), "item['a'][0]"),
        (lambda lock: collections.deque([lock]), "item[0]"),
        (lambda lock: collections.UserDict(a=lock), "item.data['a']"),
        (Holder, "item.held"),
        (Slotted, "item.held"),
        (lambda lock: Holder(lock).method, "item.__self__.held"),
        (lambda lock: SimpleNamespace(a=Holder([lock])), "item.a.held[0]"),
        (lambda lock: functools.partial(len, lock), "item.args[0]"),
        (lambda lock: functools.partial(print, file={"x": lock}), "item.keywords['file']['x']"),
        (with_closure, "item (its variable 'held')"),
        (lambda lock: ValueError("bad", lock), "item"),
    ],
)
def test_the_part_that_can_not_be_sent_is_named(put: Callable[[Any], Any], path: str) -> None:
    """However deep a value is inside of an item, the error says where, and of which type it is."""
    text = refused_item(put(threading.Lock()))
    assert text == (
        f"its item can't be sent to a worker: {path} is a _thread.lock. Make it inside func, or {THREADS}"
    )


def test_an_object_that_contains_itself_is_searched_once() -> None:
    """A cycle is no trouble for the search."""
    loop: dict[str, Any] = {"held": threading.Lock()}
    loop["self"] = [loop]
    assert "item['held'] is a _thread.lock" in refused_item(loop)


def test_a_search_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found until then is named."""
    monkeypatch.setattr(unsent, "SEARCH_TIMEOUT_S", 0)
    assert "item is a list (TypeError: cannot pickle '_thread.lock' object)" in refused_item(
        [threading.Lock()]
    )


def test_a_value_that_is_too_deep_is_named_itself() -> None:
    """No part is to blame for the depth of the whole."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "to a worker: item is a list (PicklingError: " in refused_item(deep)
    while deep:  # freed level by level, as older Pythons end with too deep a recursion
        deep = deep[0]


@pytest.mark.parametrize(
    ("make", "found", "cure"),
    [
        (lambda: (n for n in range(3)), "item is a generator.", "Make a list of it"),
        (lambda: sqlite3.connect(":memory:"), "item is a sqlite3.Connection.", "Make it inside func"),
        (socket.socket, "item is a socket.socket.", "Make it inside func"),
        (threading.local, "item is a _thread._local.", "Make it inside func"),
    ],
)
def test_other_kinds_are_named_with_their_cure(make: Callable[[], Any], found: str, cure: str) -> None:
    """Generators, connections, sockets and values of threads are named by their type."""
    value = make()
    with closing(value) if hasattr(value, "close") else closing(SimpleNamespace(close=int)):
        text = refused_item(value)
    assert found in text
    assert text.endswith(f" {cure}, or {THREADS}")


def test_an_open_file_is_named_with_what_pickling_says(tmp_path: Path) -> None:
    """The reason is there where the type does not say it."""
    with (tmp_path / "out").open("w") as file:
        text = refused_item({"out": file})
    assert (
        "item['out'] is a _io.TextIOWrapper (PicklingError: Cannot pickle files that are not opened" in text
    )
    assert f" Open it inside func, or {THREADS}" in text


def test_keyword_arguments_are_named_as_they_are_called() -> None:
    """The path begins with the name of the argument."""
    text = refusal("the keyword arguments", {"size": 1, "cache": {"x": threading.Lock()}})
    assert text.startswith("the keyword arguments can't be sent to a worker: cache['x'] is a _thread.lock.\n")


MAIN = """
import functools, threading
class Model:
    guard = None
    def __init__(self): self.session = {"lock": threading.Lock()}
model = None
def make():
    global model
    model = model or Model()
    return model
def embed(x): return make().run(x)
make()
lock = threading.Lock()
@functools.lru_cache
def cached(x):
    with lock: return x
def helped(x): return cached(x)
def by_default(x, *, held=lock): return x
class Kept:
    held = lock
def uses(x): return Kept.held
reads = lambda x: lock
"""


@pytest.mark.parametrize(
    ("name", "found", "cure"),
    [
        (
            "embed",
            "the global 'model' that make reads, a Model, can't be pickled: model.session['lock'] is a",
            "Make it inside make(), put make() in a module, which each worker imports, or",
        ),
        (
            "helped",
            "the global 'lock' that cached reads can't be pickled: lock is a",
            "Make it inside cached(), put cached() in a module, which each worker imports, or",
        ),
        (
            "by_default",
            "the default of 'held' in by_default can't be pickled: held is a",
            "Make it inside by_default(), put by_default() in a module, which each worker imports, or",
        ),
        (
            "uses",
            "'held' of the class __main__.Kept can't be pickled: Kept.held is a",
            "Make it inside Kept, put Kept in a module, which each worker imports, or",
        ),
        (
            "reads",
            "the global 'lock' that <lambda> reads can't be pickled: lock is a",
            "Make it inside the lambda, or",
        ),
    ],
)
def test_what_a_function_of_the_program_reads_is_named(name: str, found: str, cure: str) -> None:
    """The error names the global, the function that reads it, the types, and the ways to go on."""
    text = refused_function(MAIN, name)
    assert text == f"func can't be sent to a worker: {found} _thread.lock.\n{cure} {THREADS}"


def test_what_a_package_has_made_is_imported_instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For an object of a package, such as the logger of loguru, the cure is its import in the function."""
    package = tmp_path / "site-packages" / "logs_well"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import threading\nclass Logger:\n    def __init__(self): self.lock = threading.Lock()\n"
        "logger = Logger()\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    text = refused_function("from logs_well import logger\ndef work(x): logger.info(x)\n", "work")
    assert (
        "the global 'logger' that work reads, a logs_well.Logger, can't be pickled: logger.lock is a" in text
    )
    assert text.endswith("\nImport it inside work(): from logs_well import logger")
    del sys.modules["logs_well"]


def test_a_pickling_that_raises_something_else_is_told() -> None:
    """Whatever the user's ``__reduce__`` raises is in the error."""

    class Refuses:
        def __reduce__(self) -> tuple[Any, ...]:
            raise RuntimeError("I stay here")

    assert "Refuses (RuntimeError: I stay here)" in refused_item([Refuses()])


class Model:
    """An object that can be called, with a lock in it."""

    def __init__(self) -> None:
        self.session = {"lock": threading.Lock()}

    def __call__(self, item: Any) -> Any:
        """Return an item."""
        return item


def test_of_an_object_that_is_called_the_class_can_be_passed() -> None:
    """Each worker makes one then."""
    text = refusal("func", Model(), Shipment(ProcessPickler).define)
    assert text.startswith("func can't be sent to a worker: func.session['lock'] is a _thread.lock.\n")
    assert text.endswith("\nPass the class Model as func: each worker makes an instance")


def test_a_result_that_can_not_be_sent_is_named_in_a_line() -> None:
    """The reason says where and what it is, and there is no traceback of this package."""
    sent = pack_outcome(ProcessPickler, ChunkOutcome([1, {"rows": (n for n in range(3))}, "two"]), "here")
    assert list(sent.outcome.others) == [1]
    failure = sent.outcome.others[1].failure
    assert failure is not None
    assert (
        failure.reason == "its result can't be sent back: result['rows'] is a generator: return a list of it"
    )
    assert failure.traceback == ""
