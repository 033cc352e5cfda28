"""What a worker makes of the project's code, with the module's file and without it."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.modules import forgetting_modules
from support.programs import environment

from speedy_utils._engines.payload.shipment import Shipment
from speedy_utils._ray.worker import RayPickler

MODULE = """
import abc, asyncio, collections, dataclasses, enum, functools, logging, typing
K = 2
log = logging.getLogger("x")
class Td(typing.TypedDict):
    a: int
@dataclasses.dataclass(slots=True)
class Slotted:
    a: int
    b: list = dataclasses.field(default_factory=list)
class Meta(type):
    def __call__(cls, *args):
        made = super().__call__(*args)
        made.meta = K
        return made
class WithMeta(metaclass=Meta):
    pass
class Number(enum.IntEnum):
    ONE = 1
    def times(self): return self * K
class Planet(enum.Enum):
    EARTH = (3, 2)
    def __init__(self, mass, radius): self.mass, self.radius = mass * K, radius
class Access(enum.Flag):
    READ = 1
    WRITE = 2
    BOTH = READ | WRITE
    ALL = BOTH
class Named:
    def __set_name__(self, owner, name): self.name = name
    def __get__(self, instance, owner=None): return self.name, K
class Parts:
    named = Named()
    __private = 3
    @property
    def sum(self): return self.__private + K
    @functools.cached_property
    def cached(self): return K
    @functools.singledispatchmethod
    def kind(self, x): return "any"
    @kind.register
    def _(self, x: int): return "int"
T = typing.TypeVar("T", bound="Parts")
class Generic(typing.Generic[T]):
    def get(self) -> T: return K
pair = collections.namedtuple("pair", "left right")
lists = collections.defaultdict(list, a=[1])
@functools.singledispatch
def kind(x): return "any"
@kind.register
def _(x: int): return "int"
def adds(function):
    @functools.wraps(function)
    def add(*args): return function(*args) + K
    return add
@adds
def decorated(x): return x
def counter():
    n = 0
    def count():
        nonlocal n
        n += K
        return n
    return count, lambda: n
count, counted = counter()
def of_globals(name): return eval(name)
@functools.cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def each(n): yield from range(n)
async def later(): return K
class Node:
    def child(self): return Node()
class First: pass
class Second: other = First
First.other = Second
known = {"first": First, "f": decorated}
single = Parts()
def check():
    return [
        log.name, Td(a=1), Slotted(1).b, hasattr(Slotted(1), "__dict__"), WithMeta().meta, Number.ONE.times(),
        Planet.EARTH.mass, Planet((3, 2)) is Planet.EARTH, Parts().named, Parts().sum, Parts().cached,
        Parts().kind(1), Parts().kind("x"), Generic().get(), pair(1, 2).right, lists["new"], kind(1),
        kind("s"), decorated(1), fib(10), list(each(2)), asyncio.run(later()), type(Node().child()) is Node,
        First.other is Second and Second.other is First, known["first"] is First, known["f"] is decorated,
        isinstance(single, Parts), globals()["K"],
        Access.ALL is Access.READ | Access.WRITE, list(Access.__members__), count() - counted(),
        of_globals("K"),
    ]
"""

WORKER = """
import pickle, sys
from speedy_utils._engines.payload.rebuild import begin_run, take_differences
from speedy_utils._engines.payload.shipment import Packed
begin_run()
check = Packed(*pickle.load(open(sys.argv[1], "rb"))).load()
print(check())
print(take_differences())
"""


@pytest.mark.parametrize("has_file", [True, False])
def test_a_worker_has_the_functions_and_classes_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_file: bool
) -> None:
    """All kinds of them work in another process as here, with the value that was set here."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "all_kinds.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    with forgetting_modules(folder):
        module: Any = importlib.import_module("all_kinds")
        module.K = 7
        packed = Shipment(RayPickler).define(module.check)
        expected = module.check()
    (tmp_path / "packed").write_bytes(pickle.dumps((packed.data, [], [])))
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path / "packed")],
        cwd=folder if has_file else "/",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [str(expected), "()"], done.stderr
    assert expected[-1] == 7


BY_REFERENCE = """
import pickle, sys
from speedy_utils._engines.payload.rebuild import begin_run, take_differences
from speedy_utils._engines.payload.shipment import Packed
for packed in pickle.load(open(sys.argv[1], "rb")):
    begin_run()
    f = Packed(*packed).load()
    print(f())
    print(*take_differences())
"""


def test_a_worker_says_so_if_a_big_value_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its file's value, whatever an earlier run had set, and says that the program's is another."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "grows.py").write_text("BIG = b''\ndef f(): return len(BIG)\n")
    monkeypatch.syspath_prepend(str(folder))
    runs = []
    with forgetting_modules(folder):
        module: Any = importlib.import_module("grows")
        for size in (1_000, 2_000_000):
            module.BIG = bytes(size)
            packed = Shipment(RayPickler, max_value_bytes=1_000_000).define(module.f)
            runs.append((packed.data, [], []))
    (tmp_path / "packed").write_bytes(pickle.dumps(runs))
    done = subprocess.run(
        [sys.executable, "-c", BY_REFERENCE, str(tmp_path / "packed")],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    small, none, big, difference = done.stdout.splitlines()
    assert (small, none, big) == ("1000", "", "0"), done.stderr
    assert (
        "grows.BIG is bytes of length 2,000,000 in the program, and bytes of length 0 in a worker"
        in difference
    )
