"""Dagster's launcher for Celery workers, with what it does not do itself: tell a canceled run from a failed one, and
find a run whose worker is gone.
"""

import time
from typing import Any

from celery import Celery
from dagster import DagsterEvent, DagsterRun, DagsterRunStatus
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster_celery.defaults import broker_transport_options
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from stock_pipeline.orchestration.liveness import MESSAGE

ANSWER_SECONDS, PING_SECONDS = 2.0, 5.0
"""So long workers are waited for when they are asked for a task, and when it is asked which there are. Each answers
within milliseconds unless its machine is very busy.
"""

SILENT_SECONDS = 90.0
"""A run is given up when its worker has not answered for so long: it may only have lost the broker for a moment."""

SOCKET_SECONDS = 5.0
"""A broker that takes longer to connect or to answer is away. Waiting for messages is not bound by it."""

AWAY_SECONDS, LOOK_SECONDS = 60.0, 2.0
"""So long the queue rests at most when the broker is away before a run is launched again, and how often it is asked."""

CELERY: dict[str, Any] = {
    # a fresh process for each run, as without workers
    "worker_max_tasks_per_child": 1,
    # a worker takes a run when it has a slot for it, so that none waits behind another beside an idle worker
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # nobody waits for minutes for a broker that accepts and never answers
    "broker_transport_options": {
        **broker_transport_options,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
    },
    "redis_socket_timeout": SOCKET_SECONDS,
    "redis_socket_connect_timeout": SOCKET_SECONDS,
}
"""How Celery works for us. The rest is its own default: a run is acknowledged when it begins, and never begun twice."""


class WorkerLauncher(CeleryRunLauncher):
    """Hands runs to Celery workers; see `orchestration.worker`."""

    def __init__(self, **config: Any) -> None:
        config["config_source"] = CELERY | (config.get("config_source") or {})
        super().__init__(**config)
        self._silent_since: dict[str, float] = {}

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand a run to the workers; while the broker is away, it goes back into Dagster's queue instead.

        Dagster's queue itself would record the run as failed, and then each one behind it.
        """
        run_id = context.dagster_run.run_id
        if not self._broker_answers():
            self._put_back(run_id)
            return
        try:
            super().launch_run(context)
        except Exception:
            if self._broker_answers():
                raise
            self._put_back(run_id)

    def _put_back(self, run_id: str) -> None:
        """Put a run back into Dagster's queue, and let the queue rest until the broker answers, at most a minute."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.status != DagsterRunStatus.STARTING:  # somebody has ended it meanwhile
            return
        text = "The broker of the workers cannot be reached. The run waits in the queue and is handed out once it can."
        self._instance.report_engine_event(text, run, cls=type(self))
        self._instance.report_dagster_event(DagsterEvent.job_enqueue(run), run_id=run_id)
        end = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < end and not self._broker_answers():
            time.sleep(LOOK_SECONDS)

    def _broker_answers(self) -> bool:
        try:
            with self.celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0.0)
                connection.default_channel.client.ping()
        except (OperationalError, RedisError, OSError):
            return False
        return True

    def terminate(self, run_id: str) -> bool:
        """End a run: its process is interrupted and records it as canceled; one that has not begun never does.

        It may be said again until the run has ended: a process that has heard of it is not interrupted twice.

        Raises
        ------
        kombu.exceptions.OperationalError
            The broker cannot be reached.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            return False
        again = run.status == DagsterRunStatus.CANCELING
        if not again:
            self._instance.report_run_canceling(run)
        try:
            if not again or not self._is_revoked(task_id):
                # waits for the answers: every worker knows then that it must not begin the run any more
                self.celery.control.revoke(task_id, terminate=True, reply=True, timeout=ANSWER_SECONDS)
        except RedisError as error:
            raise OperationalError(str(error)) from error
        fresh = self._instance.get_run_record_by_id(run_id)
        if fresh is not None and fresh.start_time is None and fresh.dagster_run.status == DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(fresh.dagster_run)
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
        worker = _worker_of(told)
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
        worker = _worker_of(self.celery.AsyncResult(task_id).info) if task_id is not None else None
        return None if worker is None else f"worker: {worker}"

    def workers(self) -> list[str]:
        """Names of the workers of this market that answer."""
        return answering(self.celery, self.default_queue)

    def _ask(self, task_id: str, worker: str | None) -> list[dict[str, Any]]:
        """What the worker that began a task, or all of them where it is not known, know of the task."""
        return [known for known in self._answers("query_task", worker, ids=[task_id]) if isinstance(known, dict)]

    def _is_revoked(self, task_id: str) -> bool:
        """Whether the worker that began a task, or one of all where it is not known, has heard that it is to end."""
        result = self.celery.AsyncResult(task_id)
        return result.state == "REVOKED" or any(
            task_id in known for known in self._answers("revoked", _worker_of(result.info))
        )

    def _answers(self, command: str, worker: str | None, **arguments: Any) -> list[Any]:
        answers = self.celery.control.broadcast(
            command,
            arguments=arguments,
            destination=None if worker is None else [worker],
            reply=True,
            timeout=ANSWER_SECONDS,
            limit=None if worker is None else 1,
        )
        return [known for answer in answers or [] for known in answer.values()]


def _worker_of(told: Any) -> str | None:
    """Name of the worker that began a task, as its result tells it."""
    return told.get("hostname") if isinstance(told, dict) else None


def answering(app: Celery, queue: str) -> list[str]:
    """Names of the workers of a queue that answer now.

    Raises
    ------
    kombu.exceptions.OperationalError
        The broker cannot be reached.
    """
    try:
        answers = app.control.ping(timeout=PING_SECONDS) or []
    except RedisError as error:
        raise OperationalError(str(error)) from error
    names = {name for answer in answers for name in answer}
    return sorted(name for name in names if name.startswith(f"{queue}@"))
