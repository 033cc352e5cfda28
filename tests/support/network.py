"""Two machines and a network between them that can be cut: Linux network namespaces, joined by a router."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from support.programs import environment
from support.waiting import wait_until

ADDRESSES = {"a": "10.77.1.1", "b": "10.77.2.1"}


class Network:
    """The machines ``a`` and ``b``, each in a namespace of its own. A context manager.

    While it is cut, the router forwards nothing: packets vanish without an error, as behind a dead switch.

    Args:
        folder: Where the output of programs goes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = f"su{os.getpid() % 100_000}"
        self._programs: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Network:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        router = f"{self._prefix}r"
        _ip("netns", "add", router)
        for machine, address in ADDRESSES.items():
            subnet = address.rpartition(".")[0]
            _ip("netns", "add", self._prefix + machine)
            _ip("-n", self._prefix + machine, "link", "set", "lo", "up")
            # fmt: off
            _ip("link", "add", "eth0", "netns", self._prefix + machine,
                "type", "veth", "peer", "name", f"to-{machine}", "netns", router)
            # fmt: on
            for namespace, link, end in (
                (self._prefix + machine, "eth0", address),
                (router, f"to-{machine}", f"{subnet}.254"),
            ):
                _ip("-n", namespace, "addr", "add", f"{end}/24", "dev", link)
                _ip("-n", namespace, "link", "set", link, "up")
            _ip("-n", self._prefix + machine, "route", "add", "default", "via", f"{subnet}.254")
        self.join()

    def cut(self) -> None:
        """Let all that is sent between the machines vanish."""
        self._forward("0")

    def join(self) -> None:
        """Let the machines reach each other again."""
        self._forward("1")

    def _forward(self, value: str) -> None:
        _run("ip", "netns", "exec", f"{self._prefix}r", "sysctl", "-qw", f"net.ipv4.ip_forward={value}")

    def start(
        self, machine: str, *command: str, env: Mapping[str, str | None] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program on a machine; it ends with this block. Its output is in ``<machine>-<n>.txt``."""
        output = self._folder / f"{machine}-{len(self._programs)}.txt"
        with output.open("wb") as stream:
            program = subprocess.Popen(
                ["ip", "netns", "exec", self._prefix + machine, *command],
                env=environment(env),
                cwd=self._folder,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        self._programs.append(program)
        return program

    def start_ray(self, machine: str, *, cpus: int, env: Mapping[str, str | None] | None = None) -> None:
        """Start a node of Ray on a machine, the first on ``a``; it ends with this block."""
        if machine != "a":
            wait_until(lambda: "Ray runtime started" in self.output())
        own, head = ADDRESSES[machine], ADDRESSES["a"]
        join = (
            ["--head", "--port=6379", "--include-dashboard=false"]
            if machine == "a"
            else [f"--address={head}:6379"]
        )
        self.start(
            machine,
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *join),
            *(f"--node-ip-address={own}", f"--num-cpus={cpus}"),
            env={"RAY_AUTH_MODE": "disabled", **(env or {})},
        )

    def output(self) -> str:
        """Return the last lines that each program has written."""
        files = sorted(self._folder.glob("[ab]-*.txt"))
        return "\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in files)

    def __exit__(self, *exception: object) -> None:
        for machine in ADDRESSES:  # Ray would take half a minute to leave a cluster that it can't reach
            namespace = self._prefix + machine
            found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, check=False)
            for pid in found.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for program in self._programs:
            program.wait()
        for name in [*ADDRESSES, "r"]:
            subprocess.run(["ip", "netns", "del", self._prefix + name], capture_output=True, check=False)


def why_no_network() -> str:
    """Return why this machine can't have a :class:`Network`; empty if it can."""
    if sys.platform != "linux" or not shutil.which("ip") or not shutil.which("sysctl"):
        return "network namespaces need Linux, ip and sysctl"
    name = f"su{os.getpid() % 100_000}t"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
