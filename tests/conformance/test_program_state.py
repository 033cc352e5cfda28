"""A task has the modules of the program as they are there: code, values and classes."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from support.modules import forgetting_modules

from speedy_utils import TaskError, multi_process, multi_process_dataset

Write = Callable[..., Any]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Return what writes modules of a project, from names and texts, and imports the first of them."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**texts: str) -> ModuleType:
        for name, text in texts.items():
            file = tmp_path / f"{name.replace('__', '/')}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
            if file.parent != tmp_path:
                (file.parent / "__init__.py").touch()
        importlib.invalidate_caches()
        return importlib.import_module(next(iter(texts)).replace("__", "."))

    with forgetting_modules(tmp_path):
        yield write


def test_values_that_the_program_has_set_in_a_module_are_there(backend: str, write: Write) -> None:
    """A function sees what the program has set in modules: by name, by getattr, imported inside."""
    main: Any = write(
        features_main="""
import features_config
from features_config import table
def read(x):
    from features_config import hop
    return x, features_config.n_mels, getattr(features_config, "rate"), hop, table["key"], shift(x)
def shift(x):
    return x + features_config.offset
""",
        features_config="n_mels, rate, hop, table, offset = 40, 16_000, 1, {'key': 'file'}, 0\n",
    )
    config = main.features_config
    config.n_mels, config.rate, config.hop, config.offset = 80, 24_000, 2, 100
    config.table["key"] = "program"
    assert multi_process(main.read, [1], num_workers=1, backend=backend, progress=False) == [
        (1, 80, 24_000, 2, "program", 101)
    ]


@pytest.mark.parametrize("of_rows", [False, True])
def test_a_module_that_was_edited_and_reloaded_runs_anew(
    backend: str, write: Write, out: Path, of_rows: bool
) -> None:
    """The second of two calls runs the code and the values that the program has then."""
    rows = "from datasets import Dataset\nimport {0}_more\n"
    rows += "def each(x, out=None):\n    made = {0}_more.made(%d)\n"
    rows += "    return Dataset.from_dict({{'y': [made] * len(x)}}) if out else made\n"
    name = f"edited_{'rows' if of_rows else 'items'}"
    texts = {name: rows.format(name), f"{name}_more": "FACTOR = 1\ndef made(x): return x * FACTOR\n"}
    module: Any = write(**{name: texts[name] % 1, f"{name}_more": texts[f"{name}_more"]})

    def run() -> set[int]:
        if not of_rows:
            return set(multi_process(module.each, [0, 0], num_workers=2, backend=backend, progress=False))
        dataset = Dataset.from_dict({"x": [1, 2, 3, 4]})
        multi_process_dataset(
            dataset, module.each, out, num_workers=2, backend=backend, progress=False, overwrite=True
        )
        return set(load_from_disk(str(out))["y"][:])

    assert run() == {1}
    write(**{name: texts[name] % 10, f"{name}_more": texts[f"{name}_more"].replace("x * F", "5 + x * F")})
    importlib.reload(sys.modules[f"{name}_more"])
    importlib.reload(module)
    sys.modules[f"{name}_more"].FACTOR = 3  # type: ignore[attr-defined]
    assert run() == {35}


CLASSES = """
import abc, dataclasses, enum, functools
from typing import Generic, NamedTuple, Protocol, TypedDict, TypeVar
T = TypeVar("T")
LIMIT = 1
class Color(enum.Enum):
    RED = 1
    BLUE = 2
class Flag(enum.Flag):
    A = enum.auto()
    B = enum.auto()
class Base(abc.ABC):
    registry = {}
    def __init_subclass__(cls): Base.registry[cls.__name__] = prefix() + cls.__name__
    @abc.abstractmethod
    def value(self): ...
def prefix(): return "known-"
@dataclasses.dataclass
class Item(Base):
    n: int
    color: Color = Color.RED
    more: list = dataclasses.field(default_factory=list)
    @functools.cached_property
    def big(self): return self.n * LIMIT
    def value(self): return self.big
    @classmethod
    def make(cls, n): return cls(n)
@dataclasses.dataclass(frozen=True, order=True)
class Key:
    k: str
class Slots:
    __slots__ = ("a",)
    def __init__(self, a): self.a = a
class Pair(NamedTuple):
    left: int
    right: int = 5
class Box(Generic[T]):
    def __init__(self, item): self.item = item
class HasValue(Protocol):
    def value(self): ...
class Row(TypedDict):
    n: int
class Refused(Exception):
    def __init__(self, text, code):
        super().__init__(text, code)
        self.code = code
class Outer:
    class Inner:
        pass
@functools.lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
"""

USES = """
import pickle
from .classes import *
from . import classes as c
def use(item, key=None):
    assert isinstance(item, Item) and isinstance(item, Base) and type(key) is Key
    assert item.color is Color.BLUE and Flag.A | Flag.B == Flag(3)
    assert type(pickle.loads(pickle.dumps(item))) is Item
    @dataclasses.dataclass
    class Longer(Item):
        label: str = ""
    assert Longer(1).color is Color.RED
    if item.n < 0:
        raise Refused("negative", 7)
    return [
        Item.make(item.n + 1), item.color, {key: Slots(3)}, Pair(1), Box(item), Row(n=1), Outer.Inner(),
        item.value(), fib(20), dict(Base.registry), Color, use_more,
    ]
def use_more(): return c.LIMIT
"""


def test_classes_of_the_project_are_the_same_on_both_sides(backend: str, write: Write) -> None:
    """Items, arguments, results and exceptions are instances of the project's classes on both sides."""
    name = f"kinds_{backend}"
    uses: Any = write(**{f"{name}__uses": USES, f"{name}__classes": CLASSES})
    c: Any = sys.modules[f"{name}.classes"]
    c.LIMIT = 1_000
    methods = {key: value for key, value in vars(c.Item).items() if not key.startswith("__")}
    items = [c.Item(n, c.Color.BLUE) for n in (1, 2, -1)]
    *results, error = multi_process(
        uses.use, items, key=c.Key("k"), num_workers=2, backend=backend, on_error="continue", progress=False
    )
    assert not isinstance(results[0], TaskError), results[0]
    for n, result in zip((1, 2), results, strict=True):
        kinds = [c.Item, c.Color, dict, c.Pair, c.Box, dict, c.Outer.Inner, int, int, dict, type(c.Color)]
        assert [type(each) for each in result[:-1]] == kinds
        assert result[0] == c.Item(n + 1)
        assert result[1] is c.Color.BLUE
        assert type(result[2][c.Key("k")]) is c.Slots
        assert result[7:11] == [n * 1_000, 6765, result[9], c.Color]
        assert result[9]["Item"] == "known-Item"
        assert result[11] is uses.use_more
    assert isinstance(error, TaskError)
    assert isinstance(error.__cause__, c.Refused)
    assert error.__cause__.code == 7
    assert {key: vars(c.Item)[key] for key in methods} == methods, "what came back has changed the class"


def test_what_a_decorator_has_made_keeps_the_values_of_its_module(backend: str, write: Write) -> None:
    """Cached, counted, partial and bound callables of a module see the values that the program has set."""
    module: Any = write(
        decorated="""
import functools
from speedy_utils import tracked
ADD = 0
def add(x): return x + ADD
@functools.lru_cache
def cached(x): return add(x)
@tracked
def counted(x): return add(x)
@tracked
@functools.lru_cache
def both(x): return add(x)
class Adds:
    def method(self, x): return add(x)
    @classmethod
    def of_class(cls, x): return add(x)
    @staticmethod
    def static(x): return add(x)
    def __call__(self, x): return add(x)
"""
    )
    module.ADD = 10
    adds = module.Adds()
    callables = [
        *(module.cached, module.counted, module.both, adds.method, adds.of_class, adds.static, adds),
        *(functools.partial(module.add), lambda x: module.add(x)),
    ]
    for each in callables:
        assert multi_process(each, [1], num_workers=1, backend=backend, progress=False) == [11], each


class Unread(Exception):
    """Takes other arguments than it gives to its base, in this order and by name."""

    lock: Any

    def __init__(self, file: str, *, line: int) -> None:
        super().__init__(f"{file}:{line}")
        self.file = file


class NoFile(OSError):
    """Takes a name only."""

    def __init__(self, name: str) -> None:
        super().__init__(2, "no such thing", name)


def raises(x: int) -> None:
    """Raise exceptions that others have led to."""
    if x == 0:
        raise Unread("a", line=1)
    try:
        raises(0)
    except Unread as error:
        if x == 2:
            error.lock = threading.Lock()
        raise NoFile("c") from error


def test_exceptions_are_the_same_on_both_sides(backend: str) -> None:
    """What they were made with, their text, and what has led to them, if that can be sent."""
    errors = multi_process(
        raises, range(3), num_workers=2, backend=backend, on_error="continue", progress=False
    )
    first, second, third = (error.__cause__ for error in errors)
    assert (type(first), str(first), first.file) == (Unread, "a:1", "a")
    assert (type(second), second.args, second.filename) == (NoFile, (2, "no such thing"), "c")
    assert (type(second.__cause__), str(second.__cause__)) == (Unread, "a:1")
    assert second.__cause__ is second.__context__
    assert (type(third), third.filename) == (NoFile, "c")
