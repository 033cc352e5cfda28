"""Which nodes of a cluster the tasks of a run go to: all but those that can't see the run's files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

logger = logging.getLogger("speedy_utils")


class Nodes:
    """The nodes that may run the tasks of one run.

    Args:
        options: The options of its tasks.
        alive: Returns the nodes that are alive, as ``ray.nodes()`` does.
    """

    def __init__(
        self, options: Mapping[str, Any], alive: Callable[[], Iterable[Mapping[str, Any]]] | None = None
    ) -> None:
        self._options = options
        self._alive = alive or _alive
        self._left_out: set[str] = set()

    def leave_out(self, node: str, reason: str) -> bool:
        """Let no more tasks start on a node, and say so once.

        Args:
            node: Its id.
            reason: Why, in a sentence.

        Returns:
            Whether there is another node that has what the tasks need. False also if their options say where
            they run.
        """
        if (
            not isinstance(self._options.get("scheduling_strategy", ""), str)
            or "label_selector" in self._options
        ):
            return False
        if node not in self._left_out:
            self._left_out.add(node)
            logger.warning("%s. It gets no more tasks of this run", reason)
        return any(map(self._suits, self._alive()))

    def options(self) -> dict[str, Any]:
        """Return the options of tasks that are started from now on."""
        from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

        if not self._left_out:
            return {**self._options}
        # The label that has a node's id; its name differs from one version of Ray to another.
        names = {
            name for node in self._alive() for name, its in node["Labels"].items() if its == node["NodeID"]
        }
        strategy = NodeLabelSchedulingStrategy({name: NotIn(*self._left_out) for name in names})
        return {**self._options, "scheduling_strategy": strategy}

    def _suits(self, node: Mapping[str, Any]) -> bool:
        needed = {
            "CPU": self._options.get("num_cpus", 1),
            "GPU": self._options.get("num_gpus") or 0,
            **(self._options.get("resources") or {}),
        }
        has = node["Resources"]
        return node["NodeID"] not in self._left_out and all(
            has.get(name, 0) >= needed[name] for name in needed
        )


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def only_node() -> str:
    """Return the id of the node that a Ray has; empty if it has several."""
    ids = [node["NodeID"] for node in _alive()]
    return str(ids[0]) if len(ids) == 1 else ""


def dead_nodes() -> set[str]:
    """Return the ids of the nodes that Ray calls dead."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
