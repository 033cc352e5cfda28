"""Stages beyond what a screen has room for count together."""

from __future__ import annotations

from collections.abc import Mapping

from .ledger import Count, Fact, Key, Stage
from .spans import Ages

OTHERS = "others"
"""The stage of what has a name too many."""

_MOST = 50
"""Named stages of a run with a line each, about as many as a terminal has rows. Tasks that each have a bar
named after a file would make thousands otherwise."""


class Folding:
    """Gives the first stages of a run a line each, and one to all others.

    Args:
        most: How many the first are.

    Example:
        >>> folding = Folding(most=1)
        >>> counts = folding.counts({None: 9, "a.txt": 4, "b.txt": 3, "c.txt": 2})
        >>> counts[None], counts["a.txt"], counts["others"]
        (9, 4, 5)
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._known: set[Stage] = {None, OTHERS}

    def counts(self, counts: Mapping[Key, Count]) -> Mapping[Key, Count]:
        """What a task has counted, by the stages that have a line.

        Args:
            counts: All that it has counted: a part of it would make less of what its stages share.
        """
        for key in counts:
            if not isinstance(key, Fact) and self._has_room():
                self._known.add(key)
        if self._known.issuperset(key.stage if isinstance(key, Fact) else key for key in counts):
            return counts
        folded: dict[Key, Count] = {}
        for key, amount in counts.items():
            fact = key if isinstance(key, Fact) else None
            name = key
            if (fact.stage if fact else key) not in self._known:
                name = fact._replace(stage=OTHERS) if fact else OTHERS
                # Several names share the line, so it has a total of its own, also where each has the task's.
                folded[Fact("part", OTHERS)] = 1
            # A task comes to a stage once, whatever it calls it there.
            once = fact is not None and fact.kind in ("entered", "part")
            folded[name] = amount if once else folded.get(name, 0) + amount
        return folded

    def ages(self, ages: Ages) -> Ages:
        """When the stages that have a line began, and last moved."""
        folded: dict[Stage, tuple[float, float]] = {}
        for stage, (began, moved) in ages.items():
            name = stage if stage in self._known or self._has_room() else OTHERS
            known = folded.get(name, (began, moved))
            folded[name] = max(known[0], began), min(known[1], moved)
        return folded

    def _has_room(self) -> bool:
        return len(self._known) < self._most + 2  # those that have a line in any case
