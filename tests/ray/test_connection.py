"""Which Ray a run uses, and what it leaves behind."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.recorder import Recorder

from speedy_utils import multi_process

pytestmark = pytest.mark.ray

Driver = Callable[..., "subprocess.CompletedProcess[str]"]

LOG_LINE = re.compile(r"\d\d:\d\d:\d\d Processing [\d,]+ (items|tasks)(:| in|,) .*")


def test_a_running_ray_is_used_and_left_running(ray_session: None) -> None:
    """A Ray that the program has started is used as it is, and runs on."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    jobs = multi_process(lambda _: ray.get_runtime_context().get_job_id(), [0, 1], num_workers=2)
    assert jobs == [job, job]
    assert ray.is_initialized()
    assert ray.get_runtime_context().get_job_id() == job


NODE = """
import os, threading, ray
from speedy_utils import multi_process
def node(i):
    import ray
    return ray.get_runtime_context().get_node_id()
"""


NODES = (
    NODE
    + """
options = {"resources": {"here": 1}} if os.environ.get("HERE") else None
print(*sorted(set(multi_process(node, range(3), num_workers=3, ray_options=options))))
print(int(ray.cluster_resources()["CPU"]))
"""
)


THREADS = (
    NODE
    + """
nodes = []
def run():
    nodes.extend(multi_process(node, range(2), num_workers=2, backend="ray"))
threads = [threading.Thread(target=run) for _ in range(2)]
for thread in threads:
    thread.start()
    IN_TURN and thread.join()
for thread in threads:
    thread.join()
run()
print(len(nodes), len(set(nodes)))
"""
)


@pytest.mark.parametrize("in_turn", [True, False])
def test_runs_in_threads_share_the_ray_that_the_first_starts(driver: Driver, in_turn: bool) -> None:
    """It serves runs that start at the same time, and others once the thread that started it has ended."""
    done = driver(f"IN_TURN = {in_turn}\n{THREADS}")
    assert (done.returncode, done.stdout) == (0, "6 1\n"), done.stderr


def test_ray_address_is_obeyed_and_that_ray_left_running(head: Any, driver: Driver) -> None:
    """The Ray at RAY_ADDRESS runs the tasks, and still runs for the next program."""
    first, second = (
        driver(NODES, env={"RAY_ADDRESS": head.address, "HERE": "1", **head.token}) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[1] == "2"
    assert second.stdout == first.stdout


@pytest.mark.parametrize(("env", "cpus"), [({"HERE": "1"}, "2"), ({"RAY_ADDRESS": "local"}, "3")])
def test_a_ray_of_this_machine_is_found(head: Any, driver: Driver, env: dict[str, str], cpus: str) -> None:
    """One that ``ray start`` has started is used without an address, and not with RAY_ADDRESS=local."""
    done = driver(NODES, env={"RAY_TMPDIR": head.folder} | head.token | env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == cpus


@pytest.mark.parametrize(
    ("env", "cure"),
    [
        ({"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": None}, "set RAY_AUTH_MODE=token in the environment"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "another"}, "put that Ray's token into"),
    ],
)
def test_a_ray_that_wants_a_token_says_how_to_send_it(
    head: Any, driver: Driver, env: dict[str, str | None], cure: str
) -> None:
    """A driver without the token of the Ray at RAY_ADDRESS fails with one sentence, and soon."""
    if not hasattr(pytest.importorskip("ray").exceptions, "AuthenticationError"):
        pytest.skip("this Ray has no tokens")
    done = driver(
        "from speedy_utils import multi_process\nmulti_process(abs, [1])",
        env={"RAY_ADDRESS": head.address, **env},
    )
    assert done.returncode == 1
    (last,) = done.stderr.strip().splitlines()[-1:]
    assert last.startswith(
        f"ConnectionError: the Ray at RAY_ADDRESS={head.address} does not accept the token"
    )
    assert cure in last
    assert done.stderr.count("Authentication token is missing or incorrect") <= 1  # one line of Ray's own


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "head-node"])
def test_a_dead_address_fails_soon(driver: Driver, here: Callable[[float], float], address: str) -> None:
    """If nothing answers at RAY_ADDRESS, or it is none, the run fails within seconds, and names it."""
    start = time.monotonic()
    done = driver(
        "from speedy_utils import multi_process\nmulti_process(abs, [1])",
        env={"RAY_ADDRESS": address},
    )
    assert time.monotonic() - start < here(20)
    assert done.returncode == 1
    (last,) = done.stderr.strip().splitlines()[-1:]
    assert last.startswith("ConnectionError: ")
    assert f"RAY_ADDRESS={address}" in last
    assert "unset RAY_ADDRESS" in last


def test_wrong_paths_are_refused_before_a_ray_is_looked_for(driver: Driver) -> None:
    """What is wrong with a dataset's paths is said at once, and not after a Ray was found, or not found."""
    done = driver(
        """
import os
from speedy_utils import multi_process_dataset

os.makedirs("taken/by")
for dataset, output in [("nowhere", "taken"), ("nowhere", "free")]:
    try:
        multi_process_dataset(dataset, print, output)
    except Exception as error:
        print(type(error).__name__)
""",
        env={"RAY_ADDRESS": "127.0.0.1:1"},
    )
    assert done.stdout.split() == ["FileExistsError", "FileNotFoundError"], done.stderr


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["silent", "a web server"])
def test_an_address_without_a_ray_fails_soon(
    driver: Driver, here: Callable[[float], float], answer: bytes
) -> None:
    """If another program listens at RAY_ADDRESS the run fails within seconds too."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):  # the driver hangs up
                connection.sendall(answer)
                while connection.recv(1000):
                    pass

        thread = threading.Thread(target=respond)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        done = driver(
            "from speedy_utils import multi_process\nmulti_process(abs, [1])", env={"RAY_ADDRESS": address}
        )
        thread.join()
    assert time.monotonic() - start < here(30)
    assert done.returncode == 1
    (last,) = done.stderr.strip().splitlines()[-1:]
    assert last.startswith("ConnectionError: ")
    assert f"RAY_ADDRESS={address}" in last


@pytest.mark.slow
def test_ctrl_c_ends_what_is_being_started_without_a_word(driver: Driver) -> None:
    """A child that Ray has forked and that is not another program yet ends by Ctrl-C, without a traceback."""
    done = driver(
        """
import os, signal
from speedy_utils._interrupts import keeping_ctrl_c
with keeping_ctrl_c():
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    _, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status) == -signal.SIGINT)
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_local_ray_starts_quietly(driver: Driver) -> None:
    """A Ray that is started says nothing: stdout is the program's, stderr has the lines of the bar only."""
    done = driver(
        """
from speedy_utils import multi_process, track
def count(words):
    return sum(1 for _ in track(words))
print(multi_process(count, ["ab", "c"], num_workers=2, total_items=len, backend="ray"))
# All three wait for each other: they must all run, in a Ray that was started for two.
import os, pathlib, time
here = pathlib.Path(os.getcwd()) / "here"
here.mkdir()
def meet(i):
    (here / str(i)).touch()
    deadline = time.monotonic() + 240
    while len(list(here.iterdir())) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return i
print(multi_process(meet, range(3), num_workers=3))
from speedy_utils._engines.cpus import cpus
threads = multi_process(lambda i: os.environ["OMP_NUM_THREADS"], [0], num_workers=1, progress=False)
print(threads == [str(cpus())])  # of Ray itself it would have one
""",
        env={"OMP_NUM_THREADS": None},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[2, 1]\n[0, 1, 2]\nTrue\n"
    lines = done.stderr.splitlines()
    assert [line for line in lines if not LOG_LINE.fullmatch(line)] == []
    for what in ("items", "tasks"):  # there are lines before if Ray starts slowly
        assert any(f"Processing 3 {what}: 100% 3/3" in line for line in lines)
    assert "\r" not in done.stderr


def linger(i: Any) -> Any:
    """Return, or raise, once the run's actor is starting: a run that is over before starts none."""
    from ray.util import list_named_actors

    deadline = time.monotonic() + 240
    while not list_named_actors():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return abs(i)


@pytest.fixture
def _without_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers send to actors, as on other nodes than the driver's."""
    monkeypatch.setattr("speedy_utils._ray.tasks.live_counts.NearbyFolder.sink", lambda _, actor: actor)


@pytest.mark.usefixtures("_without_folder")
def test_an_actor_ends_once_it_has_started(
    ray_session: None, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is over while its actor is starting ends it later: Ray would print an error of its own."""
    import ray
    from ray._private import state  # the public list of actors needs a dashboard
    from ray.util import list_named_actors

    states: list[str] = []
    kill = ray.kill

    def look_and_kill(actor: Any) -> None:
        states.append(state.actors(actor._actor_id.hex())["State"])
        kill(actor)

    monkeypatch.setattr(ray, "kill", look_and_kill)
    for i in range(3):
        until(lambda: not list_named_actors())  # the former run's may still be known by its name
        assert multi_process(linger, [i], num_workers=1, progress=False) == [i]
    assert states == ["ALIVE"] * 3


@pytest.mark.usefixtures("_without_folder")
def test_the_actor_ends_with_the_run(ray_session: None, until: Callable[..., Any]) -> None:
    """After a run, also after one that failed, none of its actors is left."""
    import ray
    from ray._private import state  # the public list of actors needs a dashboard
    from ray.util import list_named_actors

    until(lambda: not list_named_actors())
    before = {*state.actors()}  # Ray Data leaves some of its own
    multi_process(linger, range(4), num_workers=2)
    until(lambda: not list_named_actors())
    with pytest.raises(RuntimeError):
        multi_process(linger, ["no number"], num_workers=2)

    def states() -> list[str]:
        return [actor["State"] for name, actor in state.actors().items() if name not in before]

    assert len(states()) == 2
    assert ray.is_initialized()
    until(lambda: states() == ["DEAD"] * 2)


def test_ray_options_reach_the_tasks(ray_session: None) -> None:
    """Options for Ray say what each task needs."""

    def assigned(_: int) -> dict[str, float]:
        import ray

        return dict(ray.get_runtime_context().get_assigned_resources())

    options = {"num_cpus": 0.5, "resources": {"special": 1}}
    needs = multi_process(assigned, range(2), num_workers=2, ray_options=options)
    assert needs == [{"CPU": 0.5, "special": 1.0}] * 2
    assert options == {"num_cpus": 0.5, "resources": {"special": 1}}


@pytest.mark.parametrize("options", [{"num_cpu": 1}, {"num_cpus": -1}, {"resources": {"CPU": 1}}])
def test_bad_ray_options_are_errors(ray_session: None, recorder: Recorder, options: dict[str, Any]) -> None:
    """An option that Ray does not know, or does not allow, is an error that names it."""
    with pytest.raises((ValueError, TypeError)) as caught:
        multi_process(abs, [1], ray_options=options, progress=recorder)
    assert next(iter(options)).removesuffix("s") in str(caught.value).lower()
    assert recorder.last.final
