"""What people ask of a task that exists: cancel, pause, resume, retry, delete.

The wish is remembered in the tables first, because a run looks there between its steps; then Dagster is told. A wish
that Dagster cannot be told is refused with 503 before anything is remembered.
"""

from __future__ import annotations

import contextlib

from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.api.dagster_client import RunControl, Strategy, UnavailableError, UncertainError
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.config.launches import MAX_RETRIES, RETRIES_BEFORE
from stock_pipeline.core.errors import NotFoundError
from stock_pipeline.observability.logging import get_logger
from stock_pipeline.storage.tasks import NotNowError, Task, TaskStore
from stock_pipeline.storage.tasks.states import ENDED, RESTING, WISHES, Wish, may, refuse
from stock_pipeline.storage.tasks.store import COMMAND_LINE

OWN, ANY = "tasks:control", "tasks:control_any"

_WAITING = frozenset({"queued", "starting"})
_QUEUED = frozenset({"NOT_STARTED", "QUEUED"})
"""Statuses in Dagster of a run that has no process yet."""

_log = get_logger(__name__)


class TaskActions:
    """Actions on tasks.

    Parameters
    ----------
    store
        The tables of tasks.
    control
        What runs them.
    """

    def __init__(self, store: TaskStore, control: RunControl) -> None:
        self._store, self._control = store, control

    def cancel(self, principal: Principal, task_id: str) -> Task:
        """End a task; see `TaskService.cancel`."""
        task = self._allowed(principal, task_id, "cancel")
        if task.state in RESTING:
            return self._ask(task, "cancel", principal)
        self._control.get(task.run_id)  # cannot be reached: nothing is remembered
        return self._stop(self._ask(task, "cancel", principal))

    def pause(self, principal: Principal, task_id: str) -> Task:
        """Stop a task after its current step; see `TaskService.pause`."""
        task = self._allowed(principal, task_id, "pause")
        if task.state not in _WAITING:  # the run itself looks between its steps
            return self._ask(task, "pause", principal)
        run = self._control.get(task.run_id)
        task = self._ask(task, "pause", principal)
        # the tables may lag behind Dagster: a run that has a process already would be cut in the middle of a step
        return self._stop(task) if run is not None and run.status in _QUEUED else task

    def resume(self, principal: Principal, task_id: str) -> Task:
        """Go on with a paused task; see `TaskService.resume`."""
        return self._again(self._allowed(principal, task_id, "resume"), "resume", principal)

    def retry(self, principal: Principal, task_id: str) -> Task:
        """Repeat a failed or canceled task from where it ended; see `TaskService.retry`."""
        return self._again(self._allowed(principal, task_id, "retry"), "retry", principal)

    def delete(self, principal: Principal, task_id: str) -> Task:
        """Forget an ended task and its runs; returns what it was."""
        task = self._owned(principal, task_id)
        if task.state not in ENDED:
            raise _not_now(refuse("delete", task.state, task.id))
        for run in reversed(self._store.runs(task_id)):
            self._control.delete(run.run_id)
        try:
            self._store.forget(task_id)
        except NotNowError as error:
            raise _not_now(error) from error
        return task

    def _stop(self, task: Task) -> Task:
        # the wish is remembered: the run obeys by itself after its step where Dagster cannot be told now
        try:
            self._control.terminate(task.run_id)
        except UnavailableError as error:
            _log.warning("a run could not be told to stop", run_id=task.run_id, problem=error.detail)
        return self._store.get(task.id) or task

    def _again(self, task: Task, wish: Wish, principal: Principal) -> Task:
        self._ask(task, wish, principal)
        strategy: Strategy = "FROM_FAILURE" if task.steps_done else "ALL_STEPS"
        try:
            self._control.repeat(task.run_id, strategy, self._retries(task))
        except UncertainError:
            raise  # the run may exist: the claim holds others off until it is seen or has lapsed
        except ProblemError:
            with contextlib.suppress(NotFoundError):
                self._store.ask(task.id, None, principal.name)
            raise
        return self._store.get(task.id) or task

    def _retries(self, task: Task) -> dict[str, str]:
        """As many automatic retries as the first run had: Dagster counts every run of the chain as one of them."""
        first = self._control.get(task.id)
        tags = {} if first is None else first.tags
        most = tags.get(RETRIES_BEFORE, tags.get(MAX_RETRIES, ""))
        return {MAX_RETRIES: str(int(most) + task.attempts)} if most.isdecimal() and int(most) else {}

    def _ask(self, task: Task, wish: Wish, principal: Principal) -> Task:
        try:
            return self._store.ask(task.id, wish, principal.name)
        except NotNowError as error:
            raise _not_now(error) from error
        except NotFoundError as error:
            raise not_found(task.id) from error

    def _allowed(self, principal: Principal, task_id: str, wish: Wish) -> Task:
        task = self._owned(principal, task_id)
        if task.origin == COMMAND_LINE:
            raise ProblemError(
                409, "task-state", "a run of the command line is ended and repeated there, not from here"
            )
        if not may(wish, task.state):
            raise _not_now(refuse(wish, task.state, task.id))
        return task

    def _owned(self, principal: Principal, task_id: str) -> Task:
        task = self._store.get(task_id)
        if task is None:
            raise not_found(task_id)
        own = task.owner is not None and task.owner == principal.name
        needed = OWN if own else ANY
        if not principal.may(needed):
            whose = "this task" if own else f"the task of {task.owner or 'the platform'}"
            raise AccessError(403, "forbidden", f"{principal.name} may not control {whose}; that needs {needed}")
        return task


def allowed(task: Task) -> list[str]:
    """What may be asked of a task in its state."""
    wishes = [] if task.origin == COMMAND_LINE else [wish for wish in WISHES if may(wish, task.state)]
    return [*wishes, *(["delete"] if task.state in ENDED else [])]


def not_found(task_id: str) -> ProblemError:
    """The problem that there is no such task."""
    return ProblemError(404, "task-not-found", f"there is no task {task_id!r}; it may have been deleted")


def _not_now(error: NotNowError) -> ProblemError:
    return ProblemError(409, "task-state", str(error))
