"""The program's folder, environment, import path and logging, for its tasks in other processes.

A worker process began before the program changed them, or on another machine. So they travel with the work::

    Surroundings(folder="/home/me/project",
                 variables={"MODEL_DIR": "/data/models", "http_proxy": None},     # set, removed
                 paths=SearchPath(first=("/home/me/lib",), between=(), last=()),
                 logs=LoggingSettings(levels={"": 20}, ...))

and hold while a task runs. Then the worker gets its own back, as its next task may be another run's, or one
that has nothing to do with this package.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from ..._worker.context import VARIABLE as RUN_VARIABLE
from .logging_settings import LoggingSettings
from .thread_limits import NO_LIMITS, ThreadLimits, is_limit

_VARIABLES_AT_IMPORT = dict(os.environ)

_changed_names: set[str] = set()
"""The variables that the program has changed at some time, as far as its runs have seen."""

Variables = Mapping[str, "str | None"]
"""Environment variables by name; None for one that is not set."""


class SearchPath(NamedTuple):
    """The entries of ``sys.path`` that are not of the Python installation, by where they stand.

    Attributes:
        first: Those before the standard library: the script's folder, ``sys.path.insert(0, ...)``.
        between: Those between the standard library and the installed packages: a notebook's folder.
        last: Those after the installed packages: ``sys.path.append(...)``, packages installed for editing.
    """

    first: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    last: tuple[str, ...] = ()

    @classmethod
    def of(cls, entries: Sequence[object]) -> SearchPath:
        """Return what a ``sys.path`` holds; relative entries are made absolute, missing ones are left out."""
        parts: tuple[list[str], list[str], list[str]] = ([], [], [])
        part = 0
        for entry in entries:
            if not isinstance(entry, str):  # the import system ignores it too
                continue
            if kind := _installed(entry):
                part = max(part, kind)
            elif os.path.exists(entry or os.curdir):  # else perhaps the name of an import hook
                parts[part].append(os.path.abspath(entry))
        return cls(*map(tuple, parts))

    def merged(self, own: Sequence[str], *, own_first: bool = False) -> list[str]:
        """Return the ``sys.path`` of a worker that has its own, with these entries where they stood.

        Args:
            own: Its own.
            own_first: Whether that comes first as it is.
        """
        if own_first:
            return [*own, *(entry for part in self for entry in part if entry not in own)]
        known = {*self.first, *self.between, *self.last}
        rest = [entry for entry in own if entry not in known]
        packages = next((n for n, entry in enumerate(rest) if _installed(entry) == _PACKAGES), len(rest))
        return [*self.first, *rest[:packages], *self.between, *rest[packages:], *self.last]


_STANDARD_LIBRARY, _PACKAGES = 1, 2


@cache
def _installed(entry: str) -> int:
    """Return which part of the Python installation an entry of ``sys.path`` is; 0 if it is none."""
    standard, packages = _installation()
    if f"{entry}{os.sep}".startswith(packages):
        return _PACKAGES
    return _STANDARD_LIBRARY if f"{entry}{os.sep}".startswith(standard) else 0


@cache
def _installation() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the folders of the standard library, and those of installed packages, each with a separator."""
    paths = sysconfig.get_paths()
    packages = {paths["purelib"], paths["platlib"], *site.getsitepackages()}
    with suppress(OSError, RuntimeError, TypeError):  # there is no home folder
        packages.add(site.getusersitepackages())
    # Its archive stands beside it: /usr/lib/python311.zip, /usr/lib/python3.11
    archive = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
    standard = {paths["stdlib"], paths["platstdlib"], str(Path(paths["stdlib"]).with_name(archive))}
    return tuple(f"{folder}{os.sep}" for folder in standard), tuple(
        f"{folder}{os.sep}" for folder in packages
    )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the program has around it when a run begins, as far as a worker may have something else.

    Attributes:
        folder: The current folder; None if it was deleted, or if the worker's own holds.
        variables: Environment variables that the program has changed, or removed, since it began. They may
            be secrets: the ``repr`` leaves them out, and no message may show a value.
        paths: The entries of ``sys.path``.
        own_paths_first: Whether the worker's own ``sys.path`` comes first.
        logs: The levels and the format of its logging.
        threads: How many threads libraries may start in a worker.
    """

    folder: str | None = None
    variables: Variables = field(default_factory=dict, repr=False)
    paths: SearchPath = field(default_factory=SearchPath)
    own_paths_first: bool = False
    logs: LoggingSettings = field(default_factory=LoggingSettings)
    threads: ThreadLimits = NO_LIMITS

    @classmethod
    def of_program(cls, threads: ThreadLimits = NO_LIMITS) -> Surroundings:
        """Return those of this process as they are now, with limits of its workers."""
        initial = _initial_variables()
        _changed_names.update(_changed(initial, os.environ))
        # Also those that are again what they were: workers may have begun in the meantime.
        # Which run a process counts for that a task starts is for its worker to say.
        names = [name for name in sorted(_changed_names - {RUN_VARIABLE}) if not is_limit(name)]
        variables = {name: os.environ.get(name) for name in names}
        paths, logs = SearchPath.of(sys.path), LoggingSettings.of_program()
        return cls(_current_folder(), variables, paths, logs=logs, threads=threads)

    def without(
        self, keeps: Callable[[str], bool], *, folder: bool, paths: bool, logs: bool = False
    ) -> Surroundings:
        """Return what a worker with settings of its own takes over.

        Args:
            keeps: Returns whether the worker keeps its own value of an environment variable.
            folder: Whether it keeps its own folder.
            paths: Whether its own ``sys.path`` comes first.
            logs: Whether it keeps its own logging.
        """
        return replace(
            self,
            folder=None if folder else self.folder,
            variables={name: value for name, value in self.variables.items() if not keeps(name)},
            own_paths_first=paths,
            logs=LoggingSettings() if logs else self.logs,
        )

    def missing_folder(self) -> str | None:
        """Return the folder if this machine does not have it, so that tasks stay in the worker's own."""
        return None if self.folder is None or os.path.isdir(self.folder) else self.folder

    def applied(self) -> Applied:
        """Return what lets them hold in this process for a block."""
        return Applied(self)


class Applied:
    """Lets surroundings hold in this process for a block, and then what held before.

    What the block itself changes lasts, as in any worker process: the variables that it sets, and the
    entries that it adds to ``sys.path``. But the program's folder and variables are set anew each time.

    It may be entered again, for the next task, which may take less time than to look at all of this. So it
    remembers what the worker had, and what it has made of that.

    Args:
        program: The surroundings.
    """

    def __init__(self, program: Surroundings) -> None:
        self._program, self._logs = program, program.logs.applied()
        self._variables = {**program.variables, **program.threads.variables()}
        # Without the encoding of names and values, which takes a microsecond for each three.
        environment: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
        encode = str if environment is os.environ else os.environ.encodekey
        self._look = partial(map, environment.get, [*map(encode, self._variables)])
        self._own_look: list[Any] | None = None
        self._set_look: list[Any] | None = None
        self._own_variables: Variables = {}
        self._changed: list[tuple[str, str | None, str | None]] = []  # names, the program's and own values
        self._own_path: list[str] | None = None
        self._path: list[str] = []
        self._own_folder = self._folder = program.folder
        self._began = 0.0

    def __enter__(self) -> Callable[[], None]:
        """Let them hold.

        Returns:
            What sets the folder and the variables anew within the block, between two tasks: if something is
            noted in ``noted_changes``, or if a task took longer than ``UNNOTICED_S``.
        """
        program, look, path = self._program, [*self._look()], list(sys.path)
        if program.threads.cores:
            program.threads.set_in_libraries()
        self._own_folder = self._folder = None if program.folder is None else _current_folder()
        if look != self._own_look:
            self._own_variables = own = {name: os.environ.get(name) for name in self._variables}
            both = ((name, value, own[name]) for name, value in self._variables.items())
            self._changed = [each for each in both if each[1] != each[2]]
            self._own_look = look
        if path != self._own_path:
            self._path = program.paths.merged(path, own_first=program.own_paths_first)
            self._own_path = path
        try:
            if program.folder is not None and program.folder != self._own_folder:
                with suppress(OSError):  # this machine does not have it: see missing_folder
                    os.chdir(program.folder)
                    self._folder = program.folder
            for name, value, _ in self._changed:
                _set_variable(name, value)
            if self._set_look is None:
                self._set_look = [*self._look()]
            sys.path[:] = self._path
            self._logs.__enter__()
            _note_changes()
            noted_changes.clear()
            self._began = time.monotonic()
        except BaseException:
            self.__exit__()
            raise
        return self.renew

    def __exit__(self, *exception: object) -> None:
        """Let hold what held before."""
        changed = bool(noted_changes) or time.monotonic() - self._began > UNNOTICED_S
        try:
            self._logs.__exit__()
        finally:
            own, path = self._own_path or [], self._path
            if sys.path == path:
                sys.path[:] = own
            else:
                added = {*path} - {*own}
                sys.path[:] = [each for each in sys.path if each not in added]
            if (look := [*self._look()]) == self._set_look:
                for name, _, value in self._changed:
                    _set_variable(name, value)
            elif look != self._own_look:
                _set_variables(self._own_variables)
            if (folder := self._own_folder) is not None and (changed or folder != self._folder):
                with suppress(OSError):
                    os.chdir(folder)

    def renew(self) -> None:
        """Set the folder and the variables as the block began with them."""
        _set_variables(self._program.variables)  # not the limits, which hold for libraries as they are
        if self._folder is not None and _current_folder() != self._folder:
            with suppress(OSError):  # a task has removed it
                os.chdir(self._folder)
        noted_changes.clear()  # these are among them
        self._began = 0.0  # the end of the block looks for itself


UNNOTICED_S = 0.001
"""Seconds that a task takes at the least which changes the folder, or a variable, by a library of C."""

noted_changes: list[str] = []
"""The audit event of a change of this worker's folder, or of a variable, by Python code; empty without one.

To ask the system after each of a million tasks takes a microsecond each."""


@cache
def _note_changes() -> None:
    """Have Python note changes from now on, as long as this process lives."""
    sys.addaudithook(_note)


def _note(event: str, _: object) -> None:
    if event in ("os.chdir", "os.putenv", "os.unsetenv") and not noted_changes:  # one is enough
        noted_changes.append(event)


def _current_folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _set_variables(variables: Variables) -> None:
    """Set or remove environment variables, those that differ."""
    for name, value in variables.items():
        if os.environ.get(name) != value:
            _set_variable(name, value)


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        del os.environ[name]
    else:
        os.environ[name] = value
    if name == "TZ" and hasattr(time, "tzset"):  # it is read when the process starts, or by this
        time.tzset()


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
    """Return the names of the variables that were set, changed or removed.

    Example:
        >>> sorted(_changed({"A": "1", "B": "2", "C": "3"}, {"A": "1", "B": "5", "D": "4"}))
        ['B', 'C', 'D']
    """
    return {name for name in {*before, *now} if before.get(name) != now.get(name)}


@cache
def _initial_variables() -> Mapping[str, str]:
    """Return the environment that this process began with.

    Linux keeps it. Elsewhere, and where a program has written its title over it, it is what stood when this
    package was imported.
    """
    try:
        raw = Path("/proc/self/environ").read_bytes()
    except OSError:
        return _VARIABLES_AT_IMPORT
    entries = raw.removesuffix(b"\0").split(b"\0") if raw else []
    if not all(b"=" in entry for entry in entries):
        return _VARIABLES_AT_IMPORT
    pairs = (os.fsdecode(entry).partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}
