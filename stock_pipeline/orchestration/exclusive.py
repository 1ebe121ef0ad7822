"""One writer at a time: two runs that write the same tables of a market wait for each other.

Every step reads, computes, writes and remembers what it has read. Two runs that do so to the same table at once could
leave the older content with the newer memory, which nothing would notice later. The queue keeps runs of the scheduled
jobs apart by the tag `WRITES`; the lock here holds for every run on this machine, also for assets that a person
materialises in the web UI and for the command line. A killed run leaves no lock behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from stock_pipeline.core.errors import PipelineError
from stock_pipeline.storage.locks import file_lock

WRITES = "stock_pipeline/writes"
"""Run tag: which tables the run writes; the queue in ``dagster.yaml`` runs one at a time of each value."""

DATA, BACKTESTS = "data", "backtests"
LONGEST_WAIT = 4 * 3600.0


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
    home: Path, wanted: Iterable[str], report: Callable[[str], None], *, wait: float = LONGEST_WAIT
) -> Iterator[None]:
    """Hold the parts of the lake for the length of a ``with`` block; waits for other runs and says so.

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
                stack.enter_context(file_lock(lock, timeout=wait))
        yield


def executor(home: Path) -> dg.ExecutorDefinition:
    """Dagster's in-process executor, each run as the sole writer of its part of the lake."""
    inner = dg.in_process_executor
    create: Any = inner.executor_creation_fn
    schema: Any = inner.config_schema

    @dg.executor(name="in_process", config_schema=schema)
    def one_writer_at_a_time(context: dg.InitExecutorContext) -> dg.Executor:
        return _SoleWriter(create(context), home)

    return one_writer_at_a_time


class _SoleWriter(dg.Executor):
    def __init__(self, inner: dg.Executor, home: Path) -> None:
        self._inner, self._home = inner, home

    @property
    def retries(self) -> Any:
        return self._inner.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._inner.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:
        run: dg.DagsterRun = plan_context.dagster_run
        with sole_writer(self._home, parts(run.tags, run.asset_selection), plan_context.log.info):
            yield from self._inner.execute(plan_context, execution_plan)
