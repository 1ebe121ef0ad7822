"""Runs of a trivial job of three steps on a real Dagster instance, driven step by step by a test.

The job has the platform's own executor, so pausing is the real thing; only launching is done by the test, which plays
Dagster's daemon and web server.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import create_execution_plan, execute_run_iterator
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from sqlalchemy import Engine

from stock_pipeline.config.launches import KIND, OWNER
from stock_pipeline.orchestration import exclusive
from stock_pipeline.orchestration.liveness import MESSAGE
from stock_pipeline.orchestration.pausing import Wishes

STEPS = ("one", "two", "three")
SETTINGS = {"run_retries": {"enabled": True, "max_retries": 0, "retry_on_asset_or_op_failure": False}}
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("stock_pipeline"), "__repository__"), "trio"
)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Runs:
    """Drives runs.

    Parameters
    ----------
    engine
        The metadata database, where people's wishes are.
    home
        Folder of the writers' locks.
    instance
        Where the runs are recorded; one in memory where ``None``.
    """

    def __init__(self, engine: Engine, home: Path, instance: dg.DagsterInstance | None = None) -> None:
        self.instance = instance or dg.DagsterInstance.ephemeral(settings=SETTINGS)
        self.done: Counter[tuple[str, str]] = Counter()
        """How often each step of each task has succeeded."""
        self.broken: set[str] = set()
        """Tasks whose next step fails."""
        self.hang_in: str | None = None
        """A step that never ends."""
        self.closed = False
        self._executing: dict[str, Iterator[dg.DagsterEvent]] = {}
        self._killed: list[Iterator[dg.DagsterEvent]] = []
        self.job = self._make_job(exclusive.executor(home, Wishes(lambda: engine)))

    def _make_job(self, executor: dg.ExecutorDefinition) -> dg.JobDefinition:
        nothing = dg.Out(dg.Nothing)

        def work(context: dg.OpExecutionContext) -> None:
            if self.closed:
                return
            task = context.run.root_run_id or context.run_id
            if context.op.name == self.hang_in:
                threading.Event().wait()
            if task in self.broken:
                self.broken.discard(task)
                raise ValueError("broken on purpose")
            self.done[task, context.op.name] += 1
            result = {"last": context.op.name}
            context.add_output_metadata({"task_result": dg.MetadataValue.json(result)})

        one = dg.op(name="one", out=nothing)(work)
        two = dg.op(name="two", ins={"before": dg.In(dg.Nothing)}, out=nothing)(work)
        three = dg.op(name="three", ins={"before": dg.In(dg.Nothing)}, out=nothing)(work)

        @dg.job(executor_def=executor, tags={KIND: "predict"})
        def trio() -> None:
            three(two(one()))

        return trio

    # ---------------------------------------------------------------- what Dagster's services do
    def launch(self, owner: str | None = None, *, queued: bool = True, retries: int = 0) -> dg.DagsterRun:
        """Make a run, as the web server does when it is asked to, or a person in its UI."""
        tags = {"dagster/max_retries": str(retries)} | ({OWNER: owner} if owner else {})
        run = self.instance.create_run_for_job(self.job, tags=tags, run_config=QUIET, remote_job_origin=ORIGIN)
        return self._enqueue(run) if queued else run

    def repeat(self, run_id: str) -> dg.DagsterRun:
        """Repeat an ended run from where it failed; all of it where no step of the task succeeded."""
        parent = self.instance.get_run_by_id(run_id)
        assert parent is not None
        assert parent.is_finished
        plan, root = None, parent.root_run_id or run_id
        if any(self.done[root, step] for step in STEPS):
            steps, state = KnownExecutionState.build_resume_retry_reexecution(self.instance, parent)
            plan = create_execution_plan(self.job, QUIET, steps, state, tags=parent.tags)
        kept = {name: value for name, value in parent.tags.items() if name not in _OF_ONE_RUN}
        return self._enqueue(
            self.instance.create_run_for_job(
                self.job,
                plan,
                run_config=QUIET,
                tags=kept,
                root_run_id=root,
                parent_run_id=run_id,
                remote_job_origin=ORIGIN,
            )
        )

    def start(self, run_id: str) -> None:
        """Take a run from the queue and begin it."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        self._report(run, dg.DagsterEventType.RUN_STARTING)
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        iterator = execute_run_iterator(InMemoryJob(self.job), run, self.instance)
        self._executing[run_id] = iterator
        next(iterator)

    def step(self, run_id: str) -> None:
        """Go on to the end of the next step, or of the run."""
        for event in self._executing[run_id]:
            if event.event_type in (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE):
                return
        del self._executing[run_id]

    def finish(self, run_id: str) -> None:
        """Go on to the end of the run."""
        while run_id in self._executing:
            self.step(run_id)

    def kill(self, run_id: str) -> None:
        """End a run's process without a word, and let it be noticed."""
        self._killed.append(self._executing.pop(run_id))
        self.fail(run_id, MESSAGE)

    def fail(self, run_id: str, message: str) -> None:
        """Record a run as failed, as Dagster's monitoring does."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        self.instance.report_run_failed(run, message)

    def terminate(self, run_id: str) -> None:
        """End a run as the web server does: one that waits at once, another by a signal to its process."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        self.instance.report_run_canceling(run)
        iterator = self._executing.pop(run_id, None)
        if iterator is None:
            self.instance.report_run_canceled(run)
            return
        # the signal arrives between two steps here; in a step, Dagster says no more than this
        self._killed.append(iterator)
        self.instance.report_run_canceled(run)

    def delete(self, run_id: str) -> None:
        """Delete a run and its events."""
        self.instance.delete_run(run_id)

    # ---------------------------------------------------------------- looking
    def status(self, run_id: str) -> str:
        """Dagster's status of a run."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status.value

    def will_retry(self, run_id: str) -> bool:
        """Whether Dagster decided to start a failed run again."""
        run = self.instance.get_run_by_id(run_id)
        return run is not None and run.tags.get("dagster/will_retry") == "true"

    def executing(self) -> list[str]:
        """Runs whose process lives."""
        return list(self._executing)

    def close(self) -> None:
        """Let go of what still runs: it goes on to its end without doing or recording anything; remove all runs."""
        self.closed = True
        self.instance.handle_new_event = lambda *arguments, **named: None  # type: ignore[method-assign]
        for iterator in [*self._executing.values(), *self._killed]:
            with contextlib.suppress(Exception, DagsterExecutionInterruptedError):
                for _ in iterator:
                    pass
        del self.instance.handle_new_event
        self.instance.wipe()

    def _enqueue(self, run: dg.DagsterRun) -> dg.DagsterRun:
        self._report(run, dg.DagsterEventType.RUN_ENQUEUED)
        return run

    def _report(self, run: dg.DagsterRun, kind: dg.DagsterEventType) -> None:
        event = dg.DagsterEvent(event_type_value=kind.value, job_name=run.job_name)
        self.instance.report_dagster_event(event, run.run_id)


_OF_ONE_RUN = frozenset({"dagster/will_retry", "dagster/run_failure_reason", "dagster/auto_retry_run_id"})


def states_of(events: Any, task_id: str) -> list[str]:
    """The states that the stream tells of a task, in order."""
    return [event.state for event in events if event.kind == "task.state" and event.task_id == task_id]
