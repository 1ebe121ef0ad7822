"""One writer at a time: two runs that write the same tables of a market wait for each other.

Every step reads, computes, writes and remembers what it has read. Two runs that do so to the same table at once could
leave the older content with the newer memory, which nothing would notice later. The queue keeps runs of the scheduled
jobs apart by the tag `WRITES`; the lock here holds for every run on this machine, also for assets that a person
materialises in the web UI and for the command line. A killed run leaves no lock behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.context_creation_job import PlanExecutionContextManager

from stock_pipeline.core.errors import PipelineError
from stock_pipeline.orchestration.pausing import Wishes, before_each_step, stop_if_asked
from stock_pipeline.storage.locks import file_lock

WRITES = "stock_pipeline/writes"
"""Run tag: which tables the run writes; the queue in ``dagster.yaml`` runs one at a time of each value."""

DATA, BACKTESTS = "data", "backtests"
LONGEST_WAIT = 4 * 3600.0
LOOK_UP_SECONDS = 2.0
"""A run that waits for another one looks so often whether it is still wanted."""


def parts(tags: Mapping[str, str], assets: Iterable[dg.AssetKey] | None = None) -> list[str]:
    """Which parts of the lake a run writes: from its tag, else from the assets that it materialises."""
    if WRITES in tags:
        return [tags[WRITES].rsplit(":", 1)[-1]]
    groups = {key.path[0] for key in assets or ()}
    found = {DATA} if groups - {BACKTESTS} else set()
    # always in the same order: two runs that want both never wait for each other in a circle
    return sorted(found | ({BACKTESTS} if BACKTESTS in groups else set()), reverse=True)


@contextmanager
def sole_writer(
    home: Path,
    wanted: Iterable[str],
    report: Callable[[str], None],
    *,
    wait: float = LONGEST_WAIT,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold the parts of the lake for the length of a ``with`` block; waits for other runs and says so.

    Parameters
    ----------
    meanwhile
        Called again and again while it waits; what it raises ends the waiting.

    Raises
    ------
    PipelineError
        Another run held a part for longer than `wait` seconds.
    """
    with ExitStack() as stack:
        for part in wanted:
            lock = home / "locks" / f"{part}.lock"
            try:
                stack.enter_context(file_lock(lock, timeout=0.0))
            except PipelineError:
                report(f"waiting for another run that writes the {part} of this market")
                _wait_for(stack, lock, wait, meanwhile)
        yield


def _wait_for(stack: ExitStack, lock: Path, wait: float, meanwhile: Callable[[], None]) -> None:
    deadline = time.monotonic() + wait
    while True:
        meanwhile()
        left = deadline - time.monotonic()
        try:
            stack.enter_context(file_lock(lock, timeout=max(0.0, min(LOOK_UP_SECONDS, left))))
            return
        except PipelineError:
            if left <= 0:
                raise


def executor(home: Path, wishes: Wishes) -> dg.ExecutorDefinition:
    """Dagster's in-process executor: a run is the sole writer of its part of the lake, and stops when it is asked to.

    Parameters
    ----------
    home
        Folder of the locks.
    wishes
        What people ask of the tasks.
    """
    inner = dg.in_process_executor
    create: Any = inner.executor_creation_fn
    schema: Any = inner.config_schema

    @dg.executor(name="in_process", config_schema=schema)
    def one_writer_at_a_time(context: dg.InitExecutorContext) -> dg.Executor:
        return _SoleWriter(create(context), home, wishes)

    return one_writer_at_a_time


class _SoleWriter(dg.Executor):
    def __init__(self, inner: dg.Executor, home: Path, wishes: Wishes) -> None:
        self._inner, self._home, self._wishes = inner, home, wishes

    @property
    def retries(self) -> Any:
        return self._inner.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._inner.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:
        run: dg.DagsterRun = plan_context.dagster_run

        def look_up() -> None:
            stop_if_asked(plan_context, self._wishes)

        look_up()
        wanted = parts(run.tags, run.asset_selection)
        with sole_writer(self._home, wanted, plan_context.log.info, meanwhile=look_up):
            yield dg.DagsterEvent.engine_event(
                plan_context,
                f"steps are executed in this process (pid: {os.getpid()})",
                EngineEventData.in_process(os.getpid(), execution_plan.step_keys_to_execute),
            )
            yield from ExecuteRunWithPlanIterable(
                execution_plan=plan_context.execution_plan,
                iterator=partial(before_each_step, wishes=self._wishes),
                execution_context_manager=PlanExecutionContextManager(
                    job=plan_context.job,
                    retry_mode=plan_context.retry_mode,
                    execution_plan=plan_context.execution_plan,
                    run_config=plan_context.run_config,
                    dagster_run=run,
                    instance=plan_context.instance,
                    raise_on_error=plan_context.raise_on_error,
                    output_capture=plan_context.output_capture,
                    step_dependency_config=self.step_dependency_config,
                ),
            )
