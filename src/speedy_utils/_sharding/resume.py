"""Whether a dataset run begins anew, resumes an interrupted one, or is refused: a pure decision.

What the interrupted run left is read, and what was decided is carried out, by :mod:`.workspace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .._validation import shorten
from .fingerprint import Fingerprint, Part, differences
from .shard_worker import ShardRecord
from .shards import ShardSpec, plan_shards

_KIND = "speedy_utils.multi_process_dataset"
_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a run works on, and how it is cut.

    Attributes:
        fingerprint: The dataset, the function and its arguments.
        num_shards: How many shards the dataset is cut into.
        written_by: The version of the package that wrote the manifest.
        version: The version of the manifest's form.
    """

    fingerprint: Fingerprint
    num_shards: int
    written_by: str
    version: int = _VERSION

    def to_json(self) -> dict[str, Any]:
        """Return what is written to disk: ``{"kind": ..., "version": 1, "identity": ..., "parts": ...}``."""
        return {
            "kind": _KIND,
            "version": self.version,
            "written_by": self.written_by,
            "num_shards": self.num_shards,
            # Version 0.1.0 reads this, and takes a function whose ``code`` is None for unknown.
            "identity": {
                "dataset": self.fingerprint.dataset,
                "num_rows": self.fingerprint.num_rows,
                "function": self.fingerprint.function,
                "code": None,
                "kwargs": {},
            },
            "parts": self.fingerprint.parts,
        }

    @classmethod
    def from_json(cls, raw: Any) -> Manifest:
        """Return what :meth:`to_json` was called on.

        Raises:
            ValueError: If ``raw`` is no manifest of a dataset run.
        """
        try:
            if raw["kind"] != _KIND:
                raise ValueError("another program's manifest")
            identity = raw["identity"]
            parts = raw.get("parts")  # earlier versions noted one fingerprint for the function's code
            fingerprint = Fingerprint(
                identity["dataset"],
                identity["num_rows"],
                identity["function"],
                None if parts is None else {name: Part(*part) for name, part in parts.items()},
            )
            return cls(fingerprint, raw["num_shards"], raw["written_by"], raw["version"])
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError("not a manifest") from error

    @property
    def specs(self) -> list[ShardSpec]:
        """The shards of the run."""
        return plan_shards(self.fingerprint.num_rows, self.num_shards)


@dataclass(frozen=True)
class Fresh:
    """Start over; what an earlier run has left is deleted."""

    specs: list[ShardSpec]


@dataclass(frozen=True)
class Resume:
    """Keep the finished shards of the interrupted run, and its cut."""

    specs: list[ShardSpec]
    finished: dict[int, ShardRecord]


@dataclass(frozen=True)
class Refuse:
    """Change nothing: finished shards would be lost, or rows of another run be merged."""

    why: str


def checked_resume(resume: object) -> bool | Literal["trust"]:
    """Return ``resume``, or raise ValueError if it is none of the allowed values."""
    if resume in (True, False, "trust"):
        return "trust" if resume == "trust" else bool(resume)
    raise ValueError(f'resume must be True, False or "trust", not {shorten(resume)}')


def decide(
    manifest: Manifest | None,
    finished: Mapping[int, ShardRecord],
    fingerprint: Fingerprint,
    *,
    num_shards: int | None,
    default_shards: int,
    resume: bool | Literal["trust"],
    overwrite: bool,
) -> Fresh | Resume | Refuse:
    """Decide how a run begins.

    ============================  ===========  =========  ========
    interrupted run               resume       overwrite  decision
    ============================  ===========  =========  ========
    none, or no shard finished    any          any        Fresh
    any                           False        any        Fresh
    the same                      True, trust  any        Resume
    differs, but has the rows     trust        any        Resume
    differs, but has the rows     True         True       Fresh
    differs, but has the rows     True         False      Refuse
    has other rows or shards      True, trust  True       Fresh
    has other rows or shards      True, trust  False      Refuse
    ============================  ===========  =========  ========

    Args:
        manifest: That of the interrupted run, or None if there is none.
        finished: The records of its finished shards, by index.
        fingerprint: What this run works on and with.
        num_shards: How many shards the user asked for. None leaves it to the interrupted run, so that it
            can be resumed with another number of workers.
        default_shards: How many shards to cut if neither the user nor an interrupted run says.
        resume: True resumes a run of the same dataset, function and arguments; "trust" keeps its finished
            shards although these differ; False starts over.
        overwrite: Whether an interrupted run that differs may be given up.
    """
    fresh = Fresh(plan_shards(fingerprint.num_rows, default_shards if num_shards is None else num_shards))
    if manifest is None or not resume or not finished:
        return fresh
    found, same_shards = _compare(manifest, fingerprint, None if num_shards is None else len(fresh.specs))
    if not found or (resume == "trust" and same_shards):
        return Resume(manifest.specs, dict(finished))
    if overwrite:
        return fresh
    return Refuse(_refusal(f"{len(finished)} of {manifest.num_shards}", found, same_shards))


def _compare(manifest: Manifest, fingerprint: Fingerprint, num_shards: int | None) -> tuple[list[str], bool]:
    """Return how a run differs from an interrupted one, and whether both have the same shards."""
    found = differences(manifest.fingerprint, fingerprint)
    same_shards = manifest.fingerprint.num_rows == fingerprint.num_rows
    if manifest.version != _VERSION:
        found.append(f"it was written by speedy_utils {manifest.written_by}, in another form")
        same_shards = False
    # The number of shards follows from the rows if the user leaves it open.
    if same_shards and num_shards not in (None, manifest.num_shards):
        found.append(f"num_shards is {num_shards}; it was {manifest.num_shards}")
        same_shards = False
    return found, same_shards


def _refusal(finished: str, found: list[str], same_shards: bool) -> str:
    """Say why an interrupted run is not resumed, and what to do."""
    lines = "".join(f"\n  - {sentence}" for sentence in found)
    number = finished.partition(" of ")[0]
    if same_shards:
        ways = (
            f'To go on, pass resume="trust": the {number} finished shards stay, their columns are made to '
            "fit, and only the others run, with what has changed. Or undo the change; or start over with "
            "overwrite=True, which gives the finished shards up."
        )
    else:
        ways = (
            "The finished shards don't fit those of this call, so resume=\"trust\" can't keep them. Call as "
            "before to keep them; or start over with overwrite=True, which gives them up."
        )
    return (
        f"an interrupted run with {finished} shards finished, and this call differs from it:{lines}\n{ways}"
    )
