"""What Ray says of its nodes, its placement groups, and of tasks that wait for them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import ray
from ray._private import state

from .shortage import NEVER, Node, Shortage, amounts


class RayCluster:
    """The Ray in use, as far as it concerns tasks with these needs.

    Args:
        needs: What each task needs.
        options: The options of the tasks.
    """

    def __init__(self, needs: Mapping[str, float], options: Mapping[str, Any]) -> None:
        self._needs = {name: round(need, 4) for name, need in needs.items()}
        strategy = options.get("scheduling_strategy")
        group = getattr(strategy, "placement_group", None) or options.get("placement_group")
        self._group = group if hasattr(group, "bundle_specs") else None
        self._only_node = None if getattr(strategy, "soft", True) else getattr(strategy, "node_id", None)
        self._has_state = not ray.util.client.ray.is_connected()  # Ray Client has the public functions alone

    def obstacle(self) -> Shortage | None:
        """Return why the placement group of the tasks has no place yet; see :class:`~.demand.Cluster`."""
        if self._group is None:
            return None
        table = ray.util.placement_group_table(self._group)
        name = f"the placement group {table.get('name') or self._group.id.hex()!r}"
        if table.get("state", "REMOVED") == "REMOVED":
            reason = f"{name}, in which the tasks run, was removed: no task can start in it now"
            return Shortage(NEVER, "", reason)
        if table["state"] == "CREATED":
            return None
        bundles = "; ".join(amounts(bundle) for bundle in table["bundles"].values())
        scheduling = table["stats"]["scheduling_state"]
        reason = f"{name} has no place yet: it asks for {bundles}. Ray calls that {scheduling}"
        return Shortage("group", f"{name} has no place", reason)

    def nodes(self) -> list[Node]:
        """Return the nodes, or the bundles of the placement group, that the tasks may run on."""
        free = state.available_resources_per_node() if self._has_state else {}
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if self._group is not None:
            everything = {name: amount for each in free.values() for name, amount in each.items()}
            return [self._bundle(*each, everything) for each in enumerate(self._group.bundle_specs)]
        return [
            Node(node["NodeManagerHostname"], node["Resources"], free.get(node["NodeID"], {}))
            for node in nodes
            if self._only_node in (None, node["NodeID"])
        ]

    def _bundle(self, index: int, total: Mapping[str, float], free: Mapping[str, float]) -> Node:
        group = self._group.id.hex()  # type: ignore[union-attr]  # there is one
        of_bundle = {name: free.get(f"{name}_group_{index}_{group}", 0.0) for name in total}
        return Node(f"bundle {index} of the placement group", total, of_bundle)

    def pending(self) -> int:
        """Return how many tasks with such needs wait for resources; see :class:`~.demand.Cluster`."""
        if not self._has_state:
            return 0
        sdk = import_module("ray.autoscaler.v2.sdk")
        client = import_module("ray._private.worker").global_worker.gcs_client
        requests = sdk.get_cluster_resource_state(client).pending_resource_requests
        return sum(
            each.count for each in requests if self._needed(each.request.resources_bundle) == self._needs
        )

    def _needed(self, bundle: Mapping[str, float]) -> dict[str, float]:
        """Return what a task needs, from what Ray reserves, such as ``{"CPU_group_1f2e3d": 1.0}``."""
        group = "" if self._group is None else self._group.id.hex()
        return {
            name.partition("_group_")[0]: round(amount, 4)
            for name, amount in bundle.items()
            if name.endswith(group) and not name.startswith("bundle_group_")
        }

    def cpus(self) -> int:
        """Return the CPUs of all nodes."""
        return int(ray.cluster_resources().get("CPU", 0))
