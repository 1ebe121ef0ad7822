"""Tasks as the routes use them: who may ask for what, exactly one run for each request, and what a task's state allows.

A task is a Dagster run with its repetitions. Everything that must reach Dagster goes through `RunControl`; everything
that is read comes from the tables, which the relay keeps up to date.
"""

from __future__ import annotations

from collections.abc import Callable

from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.api.dagster_client import RunControl
from stock_pipeline.api.task_actions import ANY, TaskActions, not_found
from stock_pipeline.api.task_checks import RequestChecks
from stock_pipeline.api.task_launching import Submission, TaskLauncher
from stock_pipeline.config import Settings
from stock_pipeline.config.tasks import Priority
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.storage.tasks import Task, TaskStore

OPERATE = "tasks:operate"

PERMISSIONS: dict[str, str] = {
    "predict": "predictions:request",
    "backtest": "backtests:create",
    "train": OPERATE,
    "refresh": OPERATE,
    "backfill": OPERATE,
}
"""What one must be permitted to start a task of each kind."""


class TaskService:
    """Tasks of one service; all methods block and belong into a thread.

    Parameters
    ----------
    settings
        The configuration.
    store
        The tables of tasks.
    control
        What runs them.
    checks
        What can be asked for.
    changed
        Called after each change, so that followers of the stream in other processes look at once.
    """

    def __init__(
        self,
        settings: Settings,
        store: TaskStore,
        control: RunControl,
        checks: RequestChecks,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.store, self.control, self.checks, self._changed = store, control, checks, changed
        self.launcher = TaskLauncher(settings, store, control, checks.newest)
        self.actions = TaskActions(store, control)

    def create(
        self,
        principal: Principal,
        kind: str,
        request: Parameters,
        *,
        priority: Priority = "normal",
        idempotency_key: str | None = None,
    ) -> Task:
        """Start a task; see `submit`."""
        return self.submit(principal, kind, request, priority=priority, idempotency_key=idempotency_key).task

    def submit(
        self,
        principal: Principal,
        kind: str,
        request: Parameters,
        *,
        priority: Priority = "normal",
        idempotency_key: str | None = None,
    ) -> Submission:
        """Start a task, or find the one that the same request has started before.

        Parameters
        ----------
        principal
            Who asks; becomes the owner.
        kind, request
            Kind of task and its parameters, a model of `config.tasks.REQUESTS`.
        priority
            Its place in the queue.
        idempotency_key
            Whatever the client likes; the same key of the same account never starts a second task.

        Raises
        ------
        AccessError
            403 ``forbidden``.
        ProblemError
            422 ``invalid-parameters``, 409 ``no-data``, 409 ``idempotency-key-reused``, 409
            ``request-in-progress``, 429 ``queue-full``, 503 ``dagster-unavailable``.
        """
        needed = PERMISSIONS[kind]
        if not principal.may(needed):
            raise AccessError(403, "forbidden", f"{principal.name} lacks the permission {needed}")
        self.checks.check(kind, request)
        submission = self.launcher.submit(_owner(principal), kind, request, priority, idempotency_key)
        self._changed()
        return submission

    def get(self, task_id: str) -> Task:
        """One task.

        Raises
        ------
        ProblemError
            404 ``task-not-found``.
        """
        task = self.store.get(task_id)
        if task is None:
            raise not_found(task_id)
        return task

    def cancel(self, principal: Principal, task_id: str) -> Task:
        """End a task that has not ended: a waiting one at once, a running one as soon as its process obeys.

        Raises
        ------
        AccessError
            403 ``forbidden`` for the task of somebody else; the same for the other actions.
        ProblemError
            404 ``task-not-found``, 409 ``task-state``, 503 ``dagster-unavailable``; the same for the other actions.
        """
        return self._told(self.actions.cancel(principal, task_id))

    def pause(self, principal: Principal, task_id: str) -> Task:
        """Stop a task after its current step; a waiting one at once."""
        return self._told(self.actions.pause(principal, task_id))

    def resume(self, principal: Principal, task_id: str) -> Task:
        """Go on with a paused task; steps that have succeeded are not repeated."""
        self._may_start_again(principal, task_id)
        return self._told(self.actions.resume(principal, task_id))

    def retry(self, principal: Principal, task_id: str) -> Task:
        """Repeat a failed or canceled task from where it ended."""
        self._may_start_again(principal, task_id)
        return self._told(self.actions.retry(principal, task_id))

    def delete(self, principal: Principal, task_id: str) -> Task:
        """Forget an ended task and its runs; returns what it was."""
        return self._told(self.actions.delete(principal, task_id))

    def _may_start_again(self, principal: Principal, task_id: str) -> None:
        """Refuse to let somebody start again, as the owner, what they may not start any more or with this key."""
        needed = PERMISSIONS.get(self.get(task_id).kind, OPERATE)
        if not (principal.may(needed) or principal.may(ANY)):
            raise AccessError(403, "forbidden", f"{principal.name} lacks the permission {needed}")

    def _told(self, task: Task) -> Task:
        self._changed()
        return task


def _owner(principal: Principal) -> str:
    """Whose task it is; without a log-in never the name of an account, which somebody could take."""
    return f"{principal.name} (command line)" if principal.kind == "command_line" else principal.name
