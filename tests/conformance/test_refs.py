"""References to objects in Ray are resolved, and remote functions run as the functions that they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from support.backends import BACKENDS

from speedy_utils import TaskError, multi_process, multi_process_dataset, track, tracked

pytestmark = pytest.mark.ray


@pytest.fixture(params=BACKENDS)
def engine(request: pytest.FixtureRequest, ray_session: None) -> str:
    """Return each backend, beside a Ray that holds the objects."""
    return str(request.param)


def describe(item: Any, *, whole: Any, nested: list[Any]) -> tuple[Any, ...]:
    """Return an item and an argument, and the type of what a list holds."""
    return item, float(whole.sum()), type(nested[0]).__name__


def test_references_are_resolved(engine: str) -> None:
    """Items and arguments that are references are their values; those inside other values stay references."""
    import ray

    ref = ray.put(np.ones(1_000_000))
    items = [ray.put("a"), "b", ray.remote(lambda: "c").remote()]
    results = multi_process(
        describe, items, total_items=len, backend=engine, whole=ref, nested=[ref], progress=False
    )
    assert results == [(letter, 1e6, "ObjectRef") for letter in "abc"]


class Counted:
    """Notes in a file whenever it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return reread, (self.path,)


def reread(path: Path) -> Counted:
    """Make a Counted as unpickling does."""
    with path.open("a") as file:
        file.write("x")
    return Counted(path)


def test_a_shared_reference_is_fetched_once(engine: str, tmp_path: Path) -> None:
    """What many tasks of a worker share is fetched by the first of them, and is the same object for all."""
    import ray

    ref = ray.put(Counted(tmp_path / "reads"))
    found = multi_process(
        lambda i, shared: id(shared), range(6), num_workers=1, backend=engine, shared=ref, progress=False
    )
    assert len(set(found)) == 1
    # Worker processes have no Ray: the program fetches it, and sends it.
    assert (tmp_path / "reads").read_text() == ("xx" if engine == "processes" else "x")


def fail() -> None:
    """Fail as the task that should have made a value."""
    raise ValueError("no such model")


@pytest.mark.parametrize("where", ["item", "argument"])
def test_a_reference_to_an_error_is_that_error(engine: str, where: str) -> None:
    """A task whose item or argument was to come from a task that failed fails with that task's error."""
    import ray

    ref = ray.remote(fail).options(max_retries=0).remote()
    items, other = ([ref], None) if where == "item" else ([1], ref)
    with pytest.raises(TaskError) as caught:
        multi_process(lambda i, other: i, items, backend=engine, other=other, progress=False)
    assert caught.value.reason == "ValueError: no such model"
    assert isinstance(caught.value.__cause__, ValueError)
    assert "in fail" in caught.value.traceback


def add(dataset: Dataset, output_path: str, by: Any) -> Dataset:
    """Add to each row."""
    return Dataset.from_list([{"x": row["x"] + by} for row in track(dataset)])


def test_arguments_of_shards_are_resolved(engine: str, tmp_path: Path) -> None:
    """References in ``process_func_kwargs`` are their values; a remote ``process_func`` is its function."""
    import ray

    data = Dataset.from_dict({"x": [1, 2]})
    for function in (add, ray.remote(add)):
        out = multi_process_dataset(
            data,
            function,
            tmp_path / "out",
            {"by": ray.put(10)},
            2,
            backend=engine,
            overwrite=True,
            progress=False,
        )
        assert load_from_disk(out)["x"][:] == [11, 12]


@tracked(total="words")
def measure(words: list[str]) -> tuple[int, float]:
    """Return how many words there are, and the CPUs that Ray has reserved for it."""
    import ray

    context = ray.get_runtime_context()
    resources = context.get_assigned_resources() if context.get_task_id() else {}
    return len(words), resources.get("special", 0)


def test_a_remote_function_is_its_function(engine: str) -> None:
    """Its total counts, and its options hold on Ray unless ``ray_options`` says otherwise."""
    import ray

    remote = ray.remote(num_cpus=0, resources={"special": 2}, max_retries=1, max_calls=1)(measure)
    on_ray = engine == "ray"
    for options, special in ((None, 2), ({"resources": {"special": 1}}, 1)):
        results = multi_process(
            remote, [["a", "b"], ["c"]], backend=engine, ray_options=options, progress=False
        )
        assert results == [(2, special * on_ray), (1, special * on_ray)]


def test_actors_are_no_functions(engine: str) -> None:
    """An actor's class or method, or a remote function with hidden options, is an error with a way on."""
    import ray

    class Model:
        def predict(self, x: int) -> int:
            return x

    actor_class = ray.remote(num_cpus=0)(Model)
    actor = actor_class.remote()
    for bad, say in (
        (actor_class, "an actor is one process"),
        (actor.predict, "an actor is one process"),
        (ray.remote(fail).options(num_cpus=0), "ray_options"),
    ):
        with pytest.raises(TypeError, match=say):
            multi_process(bad, [1], backend=engine)
        with pytest.raises(TypeError, match=say):
            multi_process_dataset("in", bad, "out", backend=engine)
    ray.kill(actor)
