"""Dagster's launcher for Celery workers, with what it does not do itself: tell a canceled run from a failed one, and
find a run whose worker is gone.
"""

import time
from typing import Any

from celery import Celery
from dagster import DagsterRun, DagsterRunStatus
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from stock_pipeline.orchestration.liveness import MESSAGE

ANSWER_SECONDS, PING_SECONDS = 2.0, 5.0
"""So long workers are waited for when they are asked for a task, and when it is asked which there are. Each answers
within milliseconds unless its machine is very busy.
"""

SILENT_SECONDS = 90.0
"""A run is given up when its worker has not answered for so long: it may only have lost the broker for a moment."""

CELERY: dict[str, Any] = {
    # a fresh process for each run, as without workers
    "worker_max_tasks_per_child": 1,
    # a worker takes a run when it has a slot for it, so that none waits behind another beside an idle worker
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # about a minute without the broker is survived by whatever is launched meanwhile
    "task_publish_retry_policy": {"max_retries": 30, "interval_start": 0.2, "interval_step": 0.2, "interval_max": 2.0},
}
"""How Celery works for us. The rest is its own default: a run is acknowledged when it begins, and never begun twice."""


class WorkerLauncher(CeleryRunLauncher):
    """Hands runs to Celery workers; see `orchestration.worker`."""

    def __init__(self, **config: Any) -> None:
        config["config_source"] = CELERY | (config.get("config_source") or {})
        super().__init__(**config)
        self._silent_since: dict[str, float] = {}

    def terminate(self, run_id: str) -> bool:
        """End a run: its process is interrupted and records it as canceled; one that has not begun never does."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            return False
        begun = run.status in (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)
        if run.status != DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        # waits for the answers: every worker knows then that it must not begin the run any more
        self.celery.control.revoke(task_id, terminate=True, reply=True, timeout=ANSWER_SECONDS)
        fresh = self._instance.get_run_by_id(run_id)
        if not begun and fresh is not None and fresh.status == DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(fresh)
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether a worker is at the run. Dagster's monitoring asks again and again, and ends the run where none is."""
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:  # it is being launched
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        result = self.celery.AsyncResult(task_id)
        state, told = result.state, result.info
        if state in ("SUCCESS", "FAILURE", "REVOKED"):  # Celery's word for the process, not for the run
            return CheckRunHealthResult(WorkerStatus.FAILED, MESSAGE)
        worker = told.get("hostname") if isinstance(told, dict) else None
        answers = self._ask(task_id, worker)
        if any(task_id in known for known in answers):
            self._silent_since.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if worker is None or not answers:  # that others do not know it says nothing
            since = self._silent_since.setdefault(run.run_id, time.monotonic())
            if time.monotonic() - since < SILENT_SECONDS:
                return CheckRunHealthResult(WorkerStatus.RUNNING)
        self._silent_since.pop(run.run_id, None)
        return CheckRunHealthResult(WorkerStatus.FAILED, MESSAGE)

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Which worker has, or had, the run."""
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        told = self.celery.AsyncResult(task_id).info if task_id is not None else None
        return f"worker: {told['hostname']}" if isinstance(told, dict) and "hostname" in told else None

    def workers(self) -> list[str]:
        """Names of the workers of this market that answer."""
        return answering(self.celery, self.default_queue)

    def _ask(self, task_id: str, worker: str | None) -> list[dict[str, Any]]:
        """What the worker that began a task, or all of them where it is not known, know of the task."""
        answers = self.celery.control.broadcast(
            "query_task",
            arguments={"ids": [task_id]},
            destination=None if worker is None else [worker],
            reply=True,
            timeout=ANSWER_SECONDS,
            limit=None if worker is None else 1,
        )
        return [known for answer in answers or [] for known in answer.values() if isinstance(known, dict)]


def answering(app: Celery, queue: str) -> list[str]:
    """Names of the workers of a queue that answer now.

    Raises
    ------
    kombu.exceptions.OperationalError
        The broker cannot be reached.
    """
    answers = app.control.ping(timeout=PING_SECONDS) or []
    names = {name for answer in answers for name in answer}
    return sorted(name for name in names if name.startswith(f"{queue}@"))
