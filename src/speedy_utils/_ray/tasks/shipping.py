"""What is sent to the tasks of a run: once what they share, and to each its items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from ..._engines.base import WorkSpec
from ..._engines.payload.refs import is_ref
from ..._engines.payload.shipment import Shipment, is_plain
from ..._engines.payload.unsent import sending, unsent_item
from ..._engines.task import Chunk
from ..worker import RayPickler, TaskArguments


class TaskShipment:
    """What the Ray tasks of a run get.

    Args:
        work: What they share.

    Raises:
        TypeError: The function or its arguments can't be pickled.
    """

    def __init__(self, work: WorkSpec) -> None:
        self._shipment = Shipment(RayPickler)
        with sending("func", work.function, RayPickler):
            self._packed = [self._shipment.define(work.function)]
        with sending("the keyword arguments", work.kwargs, RayPickler):
            self._packed.append(self._shipment.define(work.kwargs))
        with sending("retry_on or retry_wait", work.retries, RayPickler):
            self._packed.append(self._shipment.define(work.retries))
        self._refs: list[Any] = []
        self._key = b""

    def share(self, *others: Any) -> None:
        """Give Ray what all tasks share, and more that needs no packing; Ray has to be connected."""
        # In a list: Ray would read an argument that is itself a reference again for each task.
        self._refs = [ray.put([*map(ray.put, self._packed), *others])]
        self._key = self._refs[0].binary()

    def arguments(self, chunk: Chunk, *, shared: bool) -> tuple[Any, ...]:
        """Return the arguments of ``run_in_worker`` for a chunk.

        Args:
            chunk: The chunk.
            shared: Whether its worker may have to read what all tasks share.

        Raises:
            UnsentItemError: One of its items can't be pickled.
        """
        items: Sequence[Any] | None = chunk.items
        packed: tuple[Any, ...] | None = None
        value: tuple[Any, ...] = ()
        if is_ref(chunk.items[0]):  # it is alone
            items, shared, value = None, True, (chunk.items[0],)
        elif not is_plain(chunk.items):
            items, packed = None, self._pack_items(list(chunk.items))
        refs = self._refs  # packing may have added some
        known = self._key, len(refs)
        sent = TaskArguments(*known, chunk.task, chunk.attempt, chunk.totals, items, packed).as_sent()
        return (sent, refs, *value) if shared else (sent,)

    def _pack_items(self, items: list[Any]) -> tuple[Any, ...]:
        """Return items as they are sent, and let these and later tasks have what they need."""
        try:
            return self._pack(items)
        except Exception as error:  # pickling is code of the user's classes, and may raise anything
            raise unsent_item(items, self._pack, error, RayPickler) from None

    def _pack(self, value: Any) -> tuple[Any, ...]:
        packed, definitions = self._shipment.name(value)
        if definitions is not None:
            # A new list: tasks that have been sent keep theirs.
            self._refs = [*self._refs, ray.put(definitions)]
        return tuple(packed)
