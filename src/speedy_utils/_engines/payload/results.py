"""What a worker in another process sends back: an outcome, and what the user's code has made, packed."""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any, NamedTuple

from ..._validation import first_line, shorten
from ..limits.failure import Failure, plain_text
from ..task import ChunkOutcome, Outcome
from .pickling import ProjectPickler
from .rebuild import make_exception
from .shipment import PLAIN_TYPES, Packed, pack_result
from .unsent import find_culprit


class Sent(NamedTuple):
    """What a chunk sends back.

    Attributes:
        outcome: Its outcome, without what the user's code has made.
        values: What the function returned, in a list, if that is not plain and in the outcome.
        each: The same one by one, if some of it can't be sent.
        errors: The exceptions of failures that can be sent, by the places of the tasks; that of the chunk's
            own failure by the place of the first task that has not ended.
        differences: What the worker has otherwise than the program: names, each with a sentence.
        printed: How much the chunk has printed: its process, and the bytes on stdout and on stderr.
        ends_worker: Whether its process ends now, as it was interrupted.
    """

    outcome: ChunkOutcome
    values: Packed | None = None
    each: tuple[Packed | None, ...] = ()
    errors: Mapping[int, Packed] = {}
    differences: tuple[tuple[str, str], ...] = ()
    printed: tuple[int, int, int] = (0, 0, 0)
    ends_worker: bool = False

    def size(self) -> int:
        """Return the bytes of what the function returned, as far as they are known."""
        size = sent_size(self.outcome.values)
        if self.values is not None or self.each:
            size += sum(each.size() for each in (self.values, *self.each) if each is not None)
        return size


MAX_PICKLED_BYTES = 100_000
"""Bytes of an outcome up to which it is sent as its pickle: Ray would copy a larger one once more."""


def as_sent(sent: Sent) -> Sent | bytes:
    """Return what Ray sends: a pickle where it need not make one itself, which takes ten times as long."""
    if sent.outcome.size > MAX_PICKLED_BYTES:
        return sent
    packed = [each for each in (sent.values, *sent.each, *sent.errors.values()) if each is not None]
    if packed and any(each.buffers or each.carried for each in packed):
        return sent
    # Of a plain tuple: to pickle objects by their classes takes several times as long.
    return pickle.dumps((_fields(sent.outcome), *sent[1:]), pickle.HIGHEST_PROTOCOL)


_fields = attrgetter(*(each.name for each in fields(ChunkOutcome)))


def read_sent(data: bytes) -> Sent:
    """Return what was sent, from what :func:`as_sent` has made of it."""
    outcome, *others = pickle.loads(data)  # noqa: S301 - the run's own
    return Sent(ChunkOutcome(*outcome), *others)


def sent_size(values: Sequence[Any], packed: Packed | None = None) -> int:
    """Return the bytes of what was packed, or of the texts and bytes among plain values."""
    if packed is not None:
        return packed.size()
    if {bytes, str}.isdisjoint(map(type, values)):  # in C: there may be a million
        return 0
    return sum(len(value) for value in values if isinstance(value, (bytes, str)))


def pack_outcome(pickler: type[ProjectPickler], outcome: ChunkOutcome, address: str) -> Sent:
    """Pack what the user's code has made.

    Args:
        pickler: Pickles for the program.
        outcome: The outcome of a chunk.
        address: Where it ran, for the failures of tasks whose worker was lost.
    """
    errors: dict[int, Packed] = {}

    def without_error(place: int, failure: Failure) -> Failure:
        if (packed := _pack_error(pickler, failure.error)) is not None:
            errors[place] = packed
        reason = f"{failure.reason} [{address}]" if failure.worker_lost else failure.reason
        return replace(failure, reason=reason, error=None)

    values, others, failure = outcome.values, outcome.others, outcome.failure
    if others or failure is not None:
        others = {
            place: replace(other, failure=other.failure and without_error(place, other.failure))
            for place, other in others.items()
        }
        outcome = replace(outcome, others=others, failure=failure and without_error(len(values), failure))
    if PLAIN_TYPES.issuperset(map(type, values)):
        return Sent(outcome, errors=errors)
    outcome.values = [None] * len(values)
    try:
        return Sent(outcome, pack_result(pickler, values), errors=errors)
    except Exception:  # pickling is code of the user's classes
        each = [_pack_value(pickler, value, place, others) for place, value in enumerate(values)]
        outcome.others = dict(sorted(others.items()))
        return Sent(outcome, None, tuple(each), errors)


def _pack_value(
    pickler: type[ProjectPickler], value: Any, place: int, others: dict[int, Outcome]
) -> Packed | None:
    """Pack one value; let its task fail if that can't be sent."""
    try:
        return pack_result(pickler, value)
    except Exception as error:  # as above
        culprit = find_culprit("result", value, error, pickler)
        listed = isinstance(culprit.value, Iterator) and not isinstance(culprit.value, io.IOBase)
        advice = "a list of it" if listed else "plain values in place of it"
        failure = Failure(f"its result can't be sent back: {culprit}: return {advice}")
        others[place] = Outcome(failure, others[place].counts if place in others else {})
        return None


def unpack_outcome(sent: Sent) -> ChunkOutcome:
    """Return the outcome that a chunk has sent, with its values and exceptions."""
    outcome, others = sent.outcome, sent.outcome.others
    for place, packed in sent.errors.items():
        with suppress(Exception):  # loading a pickle is code of the user's classes, and may raise anything
            error = packed.load()
            if place in others and (failure := others[place].failure):
                others[place] = replace(others[place], failure=replace(failure, error=error))
            elif outcome.failure is not None:
                outcome.failure = replace(outcome.failure, error=error)
    try:
        if sent.values is not None:
            outcome.values = sent.values.load()
    except Exception as error:  # as above
        if len(outcome.values) > 1:  # they run again, apart
            return ChunkOutcome(failure=_unread_result(error), seconds=outcome.seconds)
        outcome.others[0] = Outcome(_unread_result(error), {})
    for place, packed_value in enumerate(sent.each):
        _load(outcome, place, packed_value)
    return outcome


def _load(outcome: ChunkOutcome, place: int, packed: Packed | None) -> None:
    """Load the value of one task; let the task fail if it can't be read."""
    try:
        outcome.values[place] = None if packed is None else packed.load()
    except Exception as error:  # as above
        known = outcome.others.get(place)
        outcome.others[place] = Outcome(_unread_result(error), known.counts if known else {})
        outcome.others = dict(sorted(outcome.others.items()))


def _unread_result(error: Exception) -> Failure:
    return Failure(f"its result could not be read: {first_line(error)}", _traceback_of_user(error), error)


def unread(what: str, error: Exception) -> Sent:
    """Return what a chunk sends whose function or items its worker can't read."""
    reason = f"{what} could not be read in a worker: {first_line(error)}"
    return Sent(ChunkOutcome(failure=Failure(reason, _traceback_of_user(error))))


def _traceback_of_user(error: Exception) -> str:
    """Return the traceback from the user's code on; empty if there is none of that."""
    trace = error.__traceback__
    while trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith(_OURS):
        trace = trace.tb_next
    error.__traceback__ = trace  # in the program it is shown as the cause of a TaskError
    return "" if trace is None else plain_text("".join(traceback.format_exception(error)))


_OURS = f"{__name__.partition('.')[0]}."


def _pack_error(pickler: type[ProjectPickler], error: BaseException | None) -> Packed | None:
    """Pack an exception, or as much of it as can be; return None if its type can't be.

    At first those that have led to it are left out, then attributes that can't be pickled.
    """
    if error is None or (packed := _packed(pickler, error)) is not None:
        return None if error is None else packed
    error.__cause__ = error.__context__ = None
    if (packed := _packed(pickler, error)) is not None:
        return packed
    try:
        arguments = [each if _packed(pickler, each) else shorten(each) for each in error.args]
        bare = make_exception(type(error), tuple(arguments))
        vars(bare).update((name, each) for name, each in vars(error).items() if _packed(pickler, each))
    except Exception:  # code of the user's class, which may raise anything
        return None
    return _packed(pickler, bare)


def _packed(pickler: type[ProjectPickler], value: Any) -> Packed | None:
    try:
        packed = pack_result(pickler, value)
        packed.load()  # with a `__reduce__` of its own it may only pickle
    except Exception:  # its pickling is the user's code, and may raise anything; the text is sent anyway
        return None
    return packed
