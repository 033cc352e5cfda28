"""``multi_process_dataset``: cut a dataset, process its shards in many workers, merge what they wrote."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from .._display.base import Progress
from .._display.format import format_quantity
from .._engines.base import Engine
from .._engines.driver import Ended, drive
from .._engines.identity.parts import parts_of
from .._engines.limits.retries import RetryOn, RetryWait
from .._engines.payload.refs import plain_function, shared_arguments
from .._engines.per_worker import called_with_items, makes_callables, per_worker
from .._engines.task import TaskSettings
from .._engines.worker_logs import WorkerLogs
from .._interrupts import keeping_ctrl_c
from .._run.run import Run
from .._sharding.columns.agreement import checked_features
from .._sharding.fingerprint import fingerprint_run, hash_value
from .._sharding.merge import ColumnWatch, columns_error, merge_shards
from .._sharding.resume import checked_resume
from .._sharding.saved_dataset import silence_datasets
from .._sharding.shard_worker import BAD_ROWS_FILE, process_shard
from .._sharding.shards import LazyShards, default_shards, import_datasets, resolve_dataset
from .._sharding.workspace import ShardPlan, Workspace
from .._validation import checked_choice, checked_count, checked_optional, shorten
from ..errors import FailedShardsError, NotSharedError, ShardError, TaskError
from .arguments.options import Backend, RunOptions, checked_function, checked_ray_options

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features

logger = logging.getLogger("speedy_utils")


def multi_process_dataset(
    dataset: Dataset | str | os.PathLike[str],
    process_func: Callable[..., Any],
    output_path: str | os.PathLike[str],
    process_func_kwargs: Mapping[str, Any] | None = None,
    num_workers: int | None = None,
    *,
    backend: Backend | None = None,
    num_shards: int | None = None,
    seed: int | None = None,
    debug: bool = False,
    debug_size: int = 10_000,
    poll_interval: float = 0.3,
    desc: str | None = None,
    unit: str = "items",
    leave: bool = True,
    progress: Progress = True,
    adopt_tqdm: bool = True,
    worker_logs: WorkerLogs = "all",
    max_retries: int = 3,
    retry_on: RetryOn = (),
    retry_wait: RetryWait = 1.0,
    task_timeout: float | None = None,
    stall_after: float | None = 300.0,
    resume: bool | Literal["trust"] = True,
    overwrite: bool = False,
    ray_options: Mapping[str, Any] | None = None,
    features: Features | pa.Schema | None = None,
    on_column_mismatch: Literal["raise", "warn"] = "raise",
) -> str:
    """Process a Hugging Face dataset in many workers, under one bar, into one dataset on disk.

    The dataset is cut into contiguous shards. A worker calls ``process_func(shard, **process_func_kwargs)``
    for each; the rows that the calls yielded are merged in the order of the input. A shard counts for exactly
    its rows once its call has ended, whatever the call reported.

    All work happens in ``<output_path>.partial``. If it is interrupted, however hard, the same call again
    runs only the shards that are missing.

    Args:
        dataset: A ``datasets.Dataset``, or the path of one that ``save_to_disk`` wrote.
        process_func: What a worker calls for each shard. It yields rows, as dicts, or many at once as Arrow
            tables or DataFrames; they are written as they come. Or it returns its rows: a ``Dataset``, a list
            of rows, a dict of columns, a DataFrame or an Arrow table, or the path of a dataset or a Parquet
            file that it saved. If it has a second positional parameter, that gets a path to save to, and
            it may return None then. A parameter ``start`` gets the position of the shard's first row in the
            dataset, as :func:`current_shard` tells it. It may be a coroutine function that returns any of
            these. Of a class whose instances can be called each worker makes one, as
            ``process_func(**process_func_kwargs)``, and calls that with each shard; see ``multi_process``.
            Rows may be added, dropped and changed; the columns of all shards have to fit together.
        output_path: The folder to make, on storage that all workers share. ``load_from_disk`` reads it.
        process_func_kwargs: Sent to the workers once, not with each shard.
        num_workers: How many shards are processed at once; None for the number of CPUs, and for 32
            coroutines on ``"threads"``.
        backend: ``"processes"``, ``"ray"``, ``"threads"`` or ``"seq"``; None for Ray where there is one, and
            processes else. As in ``multi_process``.
        num_shards: How many shards to cut. More of them balance uneven rows, and lose less when the run
            stops or a worker dies. None for the number that an interrupted call had; or else for four a
            worker, fewer if these had less than 100 rows each, and one a worker if ``ray_options`` ask for
            GPUs, as each shard would load its model anew, unless ``process_func`` is made once per worker.
        seed: Shuffles the rows with this seed; the positions of shards are those of the shuffled rows.
        debug: Processes only the first ``debug_size`` rows.
        debug_size: How many rows that is.
        poll_interval: Seconds between two looks at the count. Workers on Ray send theirs every 0.2 seconds,
            and less often if there are more than 50.
        desc: What the bar is called.
        unit: What is counted, in the plural.
        leave: Whether the bars stay when the run is over.
        progress: False to show nothing; a function gets each :class:`Snapshot`, in a thread of its own.
        adopt_tqdm: Whether bars that ``process_func`` makes with tqdm count for the stages that they name,
            and draw nothing. False leaves them alone.
        worker_logs: Whose printed lines are shown: those of ``"all"`` workers, of the ``"first"`` that
            prints (once it is silent for a minute, of the next that does), or of ``"none"``. Ray's log
            files keep them all.
        max_retries: How often a shard is started again: after its worker was lost, and for exceptions that
            ``retry_on`` names.
        retry_on: Exceptions after which a shard is tried again, ``retry_wait``: how many seconds later, and
            ``task_timeout``: how many seconds an attempt at a shard may take; as in ``multi_process``.
        retry_wait: See ``retry_on``.
        task_timeout: See ``retry_on``.
        stall_after: Seconds after which a shard that has counted nothing meanwhile is named beside the bar,
            and once in the log with the stack of the thread that works on it. None for never.
        resume: True goes on where an interrupted call of the same dataset, function and arguments stopped;
            ``"trust"`` keeps its finished shards although these have changed; False starts over.
        overwrite: Allows a dataset at ``output_path`` to be replaced, once the new one is whole, and an
            interrupted call that differs from this one to be given up, or those of its finished shards
            that can't be cast to ``features``.
        ray_options: Options of Ray for the tasks; other backends ignore them.
        features: The columns of the output, which all shards are cast to, those of an interrupted call too. A
            value that would change, or a column that is not among them, is an error; a missing one is null.
            None finds them out: types that hold the values of all shards without loss.
        on_column_mismatch: What to do if the columns of a finished shard don't fit to those of others:
            ``"raise"`` starts no more shards, ``"warn"`` goes on. They can't be merged in either case, before
            ``features`` says how.

    Returns:
        The absolute path of the dataset.

    Raises:
        FileExistsError: ``output_path`` is there and no empty folder, and ``overwrite`` is False.
        FailedShardsError: Some shards failed; the others are kept for the next call.
        MergeError: The columns of the shards don't fit together; the shards are kept.
        ResumeError: An interrupted call lies there that was not the same.
        BusyError: Another call is at work on the same ``output_path``.
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that is not allowed.

    Example:
        >>> import tempfile
        >>> from datasets import Dataset, load_from_disk
        >>> from speedy_utils import multi_process_dataset, track
        >>> def shout(dataset):
        ...     for row in track(dataset):
        ...         yield {"text": row["text"].upper()}
        >>> words = Dataset.from_dict({"text": ["one", "bar"]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = multi_process_dataset(words, shout, f"{folder}/out", backend="seq", progress=False)
        ...     load_from_disk(out)["text"][:]
        ['ONE', 'BAR']
    """
    process_func, remote_options = plain_function(process_func)
    called = called_with_items(process_func)
    checked_function(called, "process_func", rows=True)
    options = RunOptions(
        backend=backend,
        num_workers=num_workers,
        desc=desc,
        unit=unit,
        leave=leave,
        poll_interval=poll_interval,
        progress=progress,
        adopt_tqdm=adopt_tqdm,
        worker_logs=worker_logs,
        max_retries=max_retries,
        retry_on=retry_on,
        retry_wait=retry_wait,
        task_timeout=task_timeout,
        stall_after=stall_after,
        ray_options=(remote_options or {}) | checked_ray_options(ray_options),
        asks_for_ray=remote_options is not None,
    )
    num_shards = checked_optional(num_shards, "num_shards", least=1)
    seed = checked_optional(seed, "seed")
    debug_size = checked_count(debug_size, "debug_size", least=1)
    if process_func_kwargs is not None and not isinstance(process_func_kwargs, Mapping):
        raise TypeError(
            f"process_func_kwargs must be a mapping of names to values, not {shorten(process_func_kwargs)}"
        )
    kwargs = dict(process_func_kwargs or {})
    checked_choice(on_column_mismatch, "on_column_mismatch", ("raise", "warn"))
    import_datasets()
    features = checked_features(features)
    resume = checked_resume(resume)
    if not isinstance(dataset, (str, os.PathLike)):
        dataset = resolve_dataset(dataset)
    with (
        options.ending_on_sigterm(),
        Workspace.open(output_path, overwrite=overwrite) as workspace,
    ):
        # A path is loaded only now: it may be that of the output, which has been put back if need be.
        rows = _choose(resolve_dataset(dataset), seed, debug_size if debug else None)
        workers = options.workers(called)  # looks for a running Ray, which may take seconds
        plan = workspace.resume(
            fingerprint_run(rows, process_func, parts_of(process_func, shared_arguments(kwargs), hash_value)),
            num_shards=num_shards,
            default_shards=default_shards(len(rows), workers, one_each=_loads_a_model(process_func, options)),
            resume=resume,
        )
        watch = ColumnWatch(workspace, features)
        misfits = []
        for record in list(plan.finished.values()):
            found = watch.add(record)
            if found and features is not None and overwrite:
                logger.warning("%s; the shard runs again", found[0])
                del plan.finished[record.spec.index]
            else:
                misfits += found
        if misfits and on_column_mismatch == "raise":
            raise columns_error(misfits, f"no shard was started; {_kept(plan, workspace)}")
        missing = plan.missing
        kept_from = workspace.kept_from(plan) if plan.finished else ""
        if plan.finished:
            logger.warning(
                "resumed: %d of %d shards kept from %s, %d to run",
                len(plan.finished),
                len(plan.specs),
                kept_from,
                len(missing),
            )
        running = min(workers, len(missing))
        shared = {
            "process_func": per_worker(process_func),
            "kwargs": shared_arguments(kwargs),
            "features": features,
        }
        settings = TaskSettings(
            options.adopt_tqdm,
            total_is_rows=True,
            stall_after=options.stall_after,
            task_timeout=options.task_timeout,
        )
        shards = LazyShards(rows, missing, workspace.shard_dir, len(plan.specs))
        engine = options.engine(process_shard, shared, running, settings, shards) if missing else None
        unit = options.unit or "items"
        run = Run(
            options.desc or f"Processing {format_quantity(len(rows), unit)}",
            len(rows),
            tasks=len(plan.specs),
            tasks_done=len(plan.finished),
            kept=[
                (counts, record.spec.num_rows)
                for record in plan.finished.values()
                if (counts := workspace.kept_counts(record.spec)) is not None
            ],
            kept_from=kept_from,
            task_unit="shards",
            task_numbers=[spec.index for spec in missing],
            after_counting="saving",
            workers=0 if engine is None else engine.workers,
            unit=unit,
            initial=len(rows) - sum(spec.num_rows for spec in missing),
            display=options.display(),
            feed=engine,
            poll_interval=options.poll_interval,
            stall_after=options.stall_after,
        )
        try:
            with run:
                if engine is not None:
                    stop = on_column_mismatch == "raise"
                    _process(engine, run, shards, workspace, plan, options, watch, stop=stop)
                with silence_datasets():
                    merge_shards(workspace, plan, run.enter, features)
        except ShardError:  # it says itself what is kept
            raise
        except BaseException as error:  # Ctrl-C too: the user wants to know what is kept
            if not workspace.published:
                stopped = f"stopped: {_kept(plan, workspace, 'the same call runs only the others')}"
                if type(error) is KeyboardInterrupt and not error.args:  # and no SIGTERM, which has none
                    error.args = (stopped,)  # printed last, below the traceback
                else:
                    logger.warning(stopped)
            raise
    if bad_rows := sum(record.bad_rows for record in plan.finished.values()):
        listing = workspace.output_path / BAD_ROWS_FILE
        logger.warning("skipped %s, listed in %s", format_quantity(bad_rows, "bad rows"), listing)
    return str(workspace.output_path)


multi_process_dataset.__module__ = "speedy_utils"


def _loads_a_model(process_func: Any, options: RunOptions) -> bool:
    """Return whether calls of a function are likely to begin with something slow, such as loading a model."""
    if makes_callables(process_func):
        return False  # each worker does so once
    return isinstance(process_func, type) or bool((options.ray_options or {}).get("num_gpus"))


@keeping_ctrl_c()
def _choose(dataset: Dataset, seed: int | None, size: int | None) -> Dataset:
    """Return the rows to process, in their order."""
    if seed is not None:
        # In memory: the indices of a saved dataset would be cached in the user's own folder.
        dataset = dataset.shuffle(seed=seed, keep_in_memory=True)
    return dataset if size is None else dataset.select(range(min(size, len(dataset))))


def _process(
    engine: Engine,
    run: Run,
    shards: LazyShards,
    workspace: Workspace,
    plan: ShardPlan,
    options: RunOptions,
    watch: ColumnWatch,
    *,
    stop: bool,
) -> None:
    """Run the missing shards; the failure of one does not stop the others.

    Raises:
        MergeError: The columns of shards don't fit together, and ``stop`` is True.
        FailedShardsError: Shards failed.
    """
    specs = plan.missing
    failed: list[TaskError] = []
    misfits: list[str] = []

    def finish(ended: Ended) -> bool:
        spec = specs[ended.first]
        if ended.failure is None:
            (value,) = ended.values
            plan.add(value)
            workspace.keep_counts(spec, ended.counts or {})
            found = watch.add(value)
            for misfit in found if not stop else ():
                logger.warning("the shards' columns don't fit together: %s", misfit)
            misfits.extend(found)
        else:
            reason = ended.failure.reason.removeprefix(f"{spec}: ")  # the error itself names it
            ended = ended._replace(failure=replace(ended.failure, reason=reason))
            failed.append(ended.error(spec.index, spec))
            if isinstance(failed[-1].__cause__, NotSharedError):  # no other shard would do better
                return True
        return stop and bool(misfits)

    totals = [spec.num_rows for spec in specs]
    drive(engine, run, shards, finish, max_retries=options.max_retries, totals=totals)
    if misfits and stop:
        raise columns_error(misfits, f"no more shards were started; {_kept(plan, workspace)}")
    if failed:
        failed.sort(key=lambda error: error.index)
        then = 'the same call runs only the others, with resume="trust" also after process_func was corrected'
        raise FailedShardsError(
            f"{len(failed)} of {len(plan.specs)} shards failed; {_kept(plan, workspace, then)}", failed
        )


def _kept(plan: ShardPlan, workspace: Workspace, then: str = "") -> str:
    """Say which shards are kept, or what to do if there is none.

    Args:
        plan: The shards.
        workspace: The folder of the run.
        then: What becomes of those that are kept.
    """
    count = len(plan.specs)
    if plan.finished:
        kept = f"{len(plan.finished)} of {count} shards are finished, and kept in {str(workspace.folder)!r}"
        return f"{kept}; {then}" if then else kept
    more = min(4 * count, plan.specs[-1].stop)
    advice = f". With more of them, such as num_shards={more}, less is lost" if more > count else ""
    return f"none of {count} shards is finished, so nothing is kept{advice}"
