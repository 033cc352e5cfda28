"""How many items a call of a ``@tracked`` function stands for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sized
from typing import Any

from ..checks import checked_count, checked_name
from .ledger import Stage

Total = int | str | Callable[..., int]
"""Items of a call: a number, the name of a parameter that has a ``len``, or a function of its arguments."""


class Spec:
    """What ``@tracked`` was given, and the signature that it is for.

    Args:
        function: The decorated function, unbound.
        total: See :func:`tracked`.
        desc: See :func:`tracked`.
    """

    def __init__(self, function: Callable[..., Any], total: Total | None, desc: Stage) -> None:
        self.function = function
        self.total = total
        self.desc = checked_name(desc)
        name = getattr(function, "__qualname__", repr(function))
        if isinstance(total, str):
            parameters = inspect.signature(function).parameters
            if total not in parameters:
                raise ValueError(f"total={total!r} is no parameter of {name}({', '.join(parameters)})")
        elif total is not None and not callable(total):
            self.total = checked_count(total, "total")
        self.name = name

    def items(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """How many items a call stands for; None where no total was given.

        Raises:
            TypeError: The total is no integer, or the argument it names has no length.
            ValueError: The total is negative.
        """
        if isinstance(self.total, str):
            bound = inspect.signature(self.function).bind(*args, **kwargs)
            bound.apply_defaults()
            value = bound.arguments[self.total]
            if not isinstance(value, Sized):
                raise TypeError(
                    f"total={self.total!r} of {self.name}: {type(value).__name__} has no length; "
                    f"give total= as a function of the call's arguments instead"
                )
            return len(value)
        if callable(self.total):
            return checked_count(self.total(*args, **kwargs), f"the total of {self.name}")
        return self.total
