"""The state machine of a task: its states, which may follow which, and what may be asked for in each.

Nothing here knows Dagster's library: statuses of runs are their names. The table of ``docs/concepts/tasks.md`` is this
module in words; a test compares the two.
"""

from __future__ import annotations

from typing import Literal, get_args

from stock_pipeline.core.errors import PipelineError

State = Literal[
    "queued", "starting", "running", "pausing", "paused", "canceling", "canceled", "succeeded", "failed", "retrying"
]
Wish = Literal["pause", "cancel", "resume", "retry"]
"""What a person may ask of a task."""

STATES: tuple[State, ...] = get_args(State)
ENDED: frozenset[State] = frozenset({"canceled", "succeeded", "failed"})
"""Nothing happens any more unless a person asks for it; only such tasks may be deleted."""

RESTING: frozenset[State] = ENDED | {"paused"}
"""No run of the task is under way or about to be."""

_ENDS: frozenset[State] = frozenset({"succeeded", "failed", "canceled", "retrying"})

ALLOWED: dict[State, frozenset[State]] = {
    "queued": _ENDS | {"starting", "running", "pausing", "paused", "canceling"},
    "starting": _ENDS | {"queued", "running", "pausing", "paused", "canceling"},
    "running": _ENDS | {"pausing", "paused", "canceling"},
    "pausing": _ENDS | {"paused", "canceling"},
    "canceling": _ENDS,
    "retrying": frozenset({"queued", "pausing", "canceling", "canceled", "paused", "failed"}),
    "paused": frozenset({"queued", "canceled"}),
    "failed": frozenset({"queued", "retrying", "succeeded", "canceled"}),
    "canceled": frozenset({"queued", "retrying", "failed"}),
    "succeeded": frozenset({"queued"}),
}
"""The states that may follow each state.

``failed`` is followed by another end where Dagster corrects itself: a run that was given up for lost and then ended by
itself, or one that it decides to start again. So is ``canceled``: a run that meets its time limit is first interrupted.
``starting`` is followed by ``queued`` where a run could not be handed to the workers.
"""

WISHES: dict[Wish, frozenset[State]] = {
    "pause": frozenset({"queued", "starting", "running", "retrying"}),
    "cancel": frozenset({"queued", "starting", "running", "pausing", "retrying", "paused"}),
    "resume": frozenset({"paused"}),
    "retry": frozenset({"failed", "canceled"}),
}
"""The states in which each wish may be uttered."""

_WAITING = frozenset({"NOT_STARTED", "QUEUED", "MANAGED"})


class NotNowError(PipelineError):
    """A task is in a state in which it cannot do what is asked."""


def derive(dagster_status: str, asked: str | None, will_retry: bool) -> State:
    """State of a task from its newest run.

    Parameters
    ----------
    dagster_status
        Status of the run in Dagster's words.
    asked
        ``pause`` or ``cancel`` where a person asked for it and the run was not yet over.
    will_retry
        Whether Dagster will start the failed run again by itself.

    Returns
    -------
    str
        One of `STATES`.
    """
    if dagster_status == "SUCCESS":
        return "succeeded"
    if dagster_status == "CANCELED":
        return "paused" if asked == "pause" else "canceled"
    if dagster_status == "FAILURE" and not will_retry:
        # some launchers record a run that was told to stop as failed
        return "canceled" if asked == "cancel" else "failed"
    if asked in ("pause", "cancel"):
        return "pausing" if asked == "pause" else "canceling"
    if dagster_status == "FAILURE":
        return "retrying"
    if dagster_status == "CANCELING":
        return "canceling"
    if dagster_status == "STARTING":
        return "starting"
    if dagster_status == "STARTED":
        return "running"
    if dagster_status in _WAITING:
        return "queued"
    raise ValueError(f"Dagster has no status {dagster_status!r}")


def may(wish: Wish, state: str) -> bool:
    """Whether something may be asked of a task in a state."""
    return state in WISHES[wish]


def refuse(wish: str, state: str, task_id: str) -> NotNowError:
    """The error that says why a wish is refused, and when it would be granted."""
    allowed = ENDED if wish == "delete" else WISHES[wish]  # type: ignore[index]
    in_order = ", ".join(state for state in STATES if state in allowed)
    return NotNowError(
        f"the task {task_id} is {state}, so it cannot {wish} now" if wish != "delete" else "the task has not ended",
        value=state,
        allowed=in_order,
        fix="cancel it first" if wish == "delete" else "look at the task's state again",
    )
