"""Whether a Ray still lives, found out without a call of it.

Once the raylet or the GCS of a local Ray has died, ``ray.is_initialized()`` still returns True. A call of Ray
then ends the whole program, with exit code 1 and no word, or takes a minute. And a program that does nothing
is ended by Ray a minute after the GCS died. ``try`` does not help: Ray does it in C++.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray._private import worker as ray_worker

logger = logging.getLogger("speedy_utils")


CHECK_INTERVAL_S = 2.0
"""Seconds between two checks of a Ray."""


ANSWER_TIMEOUT_S = 5.0
"""Seconds that a Ray which this program has not started has to accept a connection."""


def current_node() -> Any:
    """Return what Ray knows of its processes on this machine; None without a Ray, and with ``ray://``."""
    return getattr(ray_worker, "_global_node", None) if ray.is_initialized() else None


def death_of(node: Any) -> str:
    """Return which process of a Ray that this program has started has died, and how; empty if none has.

    Example of what it returns: ``"its raylet was killed by SIGKILL"``.
    """
    for name in ("raylet", "gcs_server"):
        for info in getattr(node, "all_processes", {}).get(name, ()):
            code = info.process.poll()
            if code is not None:
                return f"its {name} {_ended(code)}"
    return ""


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


def silence_of(node: Any) -> str:
    """Return which process of a Ray that others have started accepts no connection; empty if all do.

    Example of what it returns: ``"its GCS at 10.0.0.1:6379: Connection refused"``.
    """
    host, _, port = node.gcs_address.rpartition(":")
    gcs = _refusal(socket.AF_INET, (host, int(port)))
    if gcs:
        return f"its GCS at {node.gcs_address}: {gcs}"
    return raylet_silence(node)


def raylet_silence(node: Any) -> str:
    """Return why the raylet on this machine accepts no connection; empty if it does, or there is no Ray."""
    silence = "" if node is None else _refusal(socket.AF_UNIX, node.raylet_socket_name)
    return silence and f"its raylet on this machine: {silence}"


def _refusal(family: int, address: Any) -> str:
    with socket.socket(family) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(address)
        except OSError as error:
            return error.strerror or str(error)
    return ""


class Watch(threading.Thread):
    """A daemon thread that says when a Ray has died, and ends with that Ray.

    Args:
        node: The Ray, as :func:`current_node` returns it.
        on_death: Called, once, with the Ray and what has died of it; None if this package has not started it.
        current: Returns the Ray in use.
        interval: Seconds between two checks.

    Attributes:
        node: The Ray.
    """

    def __init__(
        self,
        node: Any,
        on_death: Callable[[Any, str], object] | None,
        *,
        current: Callable[[], Any] = current_node,
        interval: float = CHECK_INTERVAL_S,
    ) -> None:
        super().__init__(name="speedy_utils-ray-watch", daemon=True)
        self.node = node
        self._on_death, self._current, self._interval = on_death, current, interval

    def run(self) -> None:
        """Check every so often."""
        wait = threading.Event().wait
        said = ""
        while self._current() is self.node:
            wait(self._interval)
            # `ray.shutdown()` ends them too, and has disconnected before.
            if (death := death_of(self.node)) and self._current() is self.node:
                if self._on_death is not None:
                    self._on_death(self.node, death)
                else:
                    logger.error(
                        "Ray has died (%s): it ends this program with its next call, or within a minute",
                        death,
                    )
                return
            if not getattr(self.node, "all_processes", None):
                said = self._check_foreign(said)

    def _check_foreign(self, said: str) -> str:
        """Say that a Ray of others is silent, or answers again; return what was said last."""
        silence = silence_of(self.node)
        if self._current() is not self.node or bool(silence) == bool(said):
            return said
        address = self.node.gcs_address
        if silence:
            logger.error(
                "the Ray at %s does not answer (%s): unless it comes back, Ray ends this program with its "
                "next call, or within a minute",
                address,
                silence,
            )
        else:
            logger.warning("the Ray at %s answers again", address)
        return silence
