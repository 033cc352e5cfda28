"""What is sent by value, what by reference, and what is said of values that can't be sent."""

from __future__ import annotations

import importlib
import io
import pickletools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import forgetting_modules
from support.screen import a_pseudo_terminal, constant

from speedy_utils._engines.payload.shipment import Packed, Shipment
from speedy_utils._ray.worker import RayPickler


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Return what writes modules of a project and imports the first."""
    monkeypatch.syspath_prepend(str(tmp_path))
    with forgetting_modules(tmp_path):

        def load(**texts: str) -> Any:
            for name, text in texts.items():
                (tmp_path / f"{name}.py").write_text(text)
            importlib.invalidate_caches()
            return importlib.import_module(next(iter(texts)))

        yield load


@pytest.fixture
def shipment() -> Shipment:
    """Return what is sent to Ray's workers; nothing has been."""
    return Shipment(RayPickler)


def texts(packed: Packed) -> set[str]:
    """Return the strings in a pickle."""
    return {arg for _, arg, _ in pickletools.genops(packed.data) if isinstance(arg, str)}


def test_what_a_function_reads_is_sent_and_nothing_else(load: Any, shipment: Shipment) -> None:
    """A global that a function reads, itself or by another function, is in the pickle; others are not."""
    module = load(
        reads_some="A, B, C = 'is read', 'by another', 'by none'\ndef f(): return A, g()\ndef g(): return B\n"
    )
    module.A = "as the program has it"
    assert {"as the program has it", "by another"} <= texts(packed := shipment.define(module.f))
    assert not {"is read", "by none"} & texts(packed)
    assert shipment.by_reference == {}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("def f(x): return LOCK.locked()", "the global 'LOCK' that f reads"),
        ("class C:\n    held = LOCK\ndef f(x): return C", "'held' of the class unsent{}.C"),
        ("def f(x, lock=LOCK): return x", "the default of 'lock' in f"),
        (
            "def make(v):\n    def f(x): return v\n    f.__qualname__ = 'f'\n    return f\nf = make(LOCK)",
            "'v' that f",
        ),
    ],
)
def test_a_module_with_a_value_that_can_not_be_pickled_goes_by_reference(
    load: Any, shipment: Shipment, text: str, where: str
) -> None:
    """Its functions are named, what it uses of other modules is sent, and the reason names the value."""
    name = f"unsent{abs(hash(text))}"
    head = f"import threading, {name}_other\nLOCK = threading.Lock()\ndef g(): return {name}_other.VALUE, f\n"
    module = load(**{name: head + text + "\n", f"{name}_other": "VALUE = 'is sent'\n"})
    assert "is sent" in texts(shipment.define(module.g))
    (reason,) = shipment.by_reference.values()
    assert where.format(name.removeprefix("unsent")) in reason
    assert "can't be pickled (TypeError: cannot pickle '_thread.lock' object)" in reason


def test_a_value_that_is_too_big_goes_by_reference(load: Any) -> None:
    """A module with a large value that is read is named, and imported by the worker."""
    module = load(has_big="BIG = bytes(range(256)) * 8_000\ndef f(): return len(BIG)\n")
    shipment = Shipment(RayPickler, max_value_bytes=1_000_000)
    assert shipment.define(module.f).size() < 10_000
    assert shipment.by_reference == {"has_big": "the global 'BIG' that f reads has 2 MB"}


def test_what_no_module_can_give_is_named(shipment: Shipment) -> None:
    """A function that is not found by name, with a value that can't be pickled, can't be sent."""
    lock = threading.Lock()
    with pytest.raises(
        TypeError, match=r"the variable 'lock' that .*<lambda> takes from .*is a _thread\.lock"
    ):
        shipment.define(lambda x: lock.locked())


def test_a_stream_is_sent_by_name_while_a_bar_is_there(shipment: Shipment) -> None:
    """A function whose logger has kept stderr, as loguru does, gets that of the worker."""
    with a_pseudo_terminal() as (terminal, screen):
        kept = terminal.stream
        sys.stdout = io.StringIO()
        screen.show("owner", constant("bar"))
        packed = shipment.define(lambda: kept)
        screen.finish("owner", None)
    assert "stderr" in texts(packed)


def test_an_item_names_its_class_which_is_sent_once(load: Any, shipment: Shipment) -> None:
    """The first item of a class brings its definition, further ones are small."""
    module = load(
        items_of="class Item:\n    def __init__(self, n): self.n = n\n    def method(self): return 'code'\n"
    )
    first, definitions = shipment.name(module.Item(1))
    assert definitions is not None
    assert "code" in texts(definitions)
    second, none = shipment.name(module.Item(2))
    assert none is None
    assert first.size() == second.size() < 200


def test_functions_that_call_each_other_deeply_are_sent(load: Any, shipment: Shipment) -> None:
    """A chain of a thousand functions is no deeper for the pickler than one."""
    chain = "".join(f"def f{i}(x): return f{i + 1}(x)\n" for i in range(1_000))
    module = load(chained=chain + "def f1000(x): return x\n")
    assert "f1000" in texts(shipment.define(module.f0))
    assert shipment.by_reference == {}


def test_a_project_of_fifty_modules_is_small(load: Any, shipment: Shipment) -> None:
    """Fifty modules of fifteen functions each, which import each other, take less than a megabyte."""
    picked = random.Random(0)
    modules = {}
    for i in range(50):
        others = picked.sample([j for j in range(50) if j != i], 8)
        calls = [f"fifty_{picked.choice(others)}.f{k}" for k in range(15)]
        modules[f"fifty_{i}"] = f"import {', '.join(f'fifty_{j}' for j in others)}\nVALUE = {i}\n" + "".join(
            f'def f{k}(x, option=None):\n    """Do it."""\n    total = 0\n    for n, each in enumerate(x):\n'
            f"        total += n * VALUE if each else len(str({{'option': option, 'n': n}}))\n"
            f"    return total + {call}(x[1:])\n"
            for k, call in enumerate(calls)
        )
    module = load(
        all_fifty="".join(f"import {name}\n" for name in modules) + "def f(x): return 0\n", **modules
    )
    exec(
        "def f(x):\n" + "".join(f"    {name}.f{k}(x)\n" for name in modules for k in range(15)), vars(module)
    )
    packed = shipment.define(module.f)
    assert 100_000 < packed.size() < 1_000_000
    assert len({name for name in sys.modules if name.startswith("fifty_")} & texts(packed)) == 50
