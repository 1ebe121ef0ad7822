"""Lets a run stop between two steps when its task is to pause or to end.

The run stops itself cleanly: it is recorded as canceled, and a repetition from failure goes on with the first step that
is not done. A step is never cut in two by a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.executor.in_process import inprocess_execution_iterator
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from stock_pipeline.config.launches import MAX_RETRIES, RETRIES_BEFORE
from stock_pipeline.core.errors import PipelineError
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.tasks import TaskStore

_WORDS = {"pause": "pausing: the steps that are done are kept", "cancel": "ending before the next step"}

_log = get_logger(__name__)


class Wishes:
    """What people ask of the tasks, as the metadata database tells it.

    Parameters
    ----------
    open_engine
        Opens the database; called when it is first needed, so that loading the definitions does not.
    """

    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        self._open = open_engine
        self._store: TaskStore | None = None

    def of(self, run: dg.DagsterRun) -> str | None:
        """``pause``, ``cancel`` or nothing; nothing too where the database cannot be asked: the work goes on."""
        try:
            self._store = self._store or TaskStore(self._open())
            return self._store.asked(run.run_id) or self._store.asked(run.root_run_id or run.run_id)
        except (SQLAlchemyError, PipelineError) as error:
            _log.warning("cannot see whether the run is to pause", run=run.run_id, error=str(error)[:300])
            return None


def stop_if_asked(context: Any, wishes: Wishes) -> None:
    """Stop the run where that is asked for.

    Raises
    ------
    DagsterExecutionInterruptedError
        It is; Dagster records the run as canceled.
    """
    run: dg.DagsterRun = context.dagster_run
    wish = wishes.of(run)
    if wish is None:
        return
    fresh = context.instance.get_run_by_id(run.run_id)
    if fresh is not None:
        # Dagster may be told to end the run at the same moment, and then find its process gone: it must not repeat it
        kept = fresh.tags.get(RETRIES_BEFORE, fresh.tags.get(MAX_RETRIES, "0"))
        context.instance.add_run_tags(run.run_id, {MAX_RETRIES: "0", RETRIES_BEFORE: kept})
    if fresh is not None and fresh.status != dg.DagsterRunStatus.CANCELING:
        context.instance.report_run_canceling(run, _WORDS[wish])
    raise DagsterExecutionInterruptedError(_WORDS[wish])


def before_each_step(job_context: Any, execution_plan: Any, wishes: Wishes) -> Iterator[Any]:
    """The events of Dagster's in-process execution, which ends before a step where that is asked for.

    Parameters
    ----------
    job_context
        The run's context, as the steps get it.
    execution_plan
        What Dagster is about to do.
    """
    make_context = job_context.for_step

    def for_step(*arguments: Any, **named: Any) -> Any:
        # here the step before has told everything, and the next one has not begun: nothing is cut off
        stop_if_asked(job_context, wishes)
        return make_context(*arguments, **named)

    job_context.for_step = for_step
    yield from inprocess_execution_iterator(job_context, execution_plan)
