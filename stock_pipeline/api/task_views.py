"""Tasks as they are answered, and the one way in which routes start them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from stock_pipeline.api.auditing import audit
from stock_pipeline.api.dependencies import principal, service
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.task_actions import allowed
from stock_pipeline.config.tasks import Priority
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.storage.tasks import Event, Task, TaskRun, share_done
from stock_pipeline.storage.tasks.states import ENDED, STATES

KEY = "Idempotency-Key"
_LONGEST_KEY = 100

ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Accepted: the task waits for its turn",
        "headers": {
            "Location": {"description": "the task", "schema": {"type": "string"}},
            "Idempotent-Replay": {
                "description": "`true` where an earlier request with this key had started it",
                "schema": {"type": "string"},
            },
        },
    }
}
"""What routes that start a task answer, for the OpenAPI document."""


def task_json(task: Task) -> dict[str, Any]:
    """A task as `schemas_tasks.TaskInfo` describes it."""
    asked = {"what": task.asked, "by": task.asked_by, "at": task.asked_at} if task.asked else None
    possible = allowed(task)
    address = f"/api/tasks/{task.id}"
    return {
        "id": task.id,
        "kind": task.kind,
        "state": task.state,
        "priority": task.priority,
        "owner": task.owner,
        "origin": task.origin,
        "job": task.job,
        "parameters": task.parameters,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "ended_at": task.ended_at,
        "expected_end": task.expected_end,
        "attempts": task.attempts,
        "run_id": task.run_id,
        "progress": {
            "share": 1.0 if task.state == "succeeded" else share_done(task),
            "steps_done": task.steps_done,
            "steps_total": task.steps_total,
            "current_step": task.current_step,
            "part": task.part,
        },
        "asked": asked,
        "result": task.result,
        "error": task.error,
        "allowed": possible,
        "links": {
            "self": address,
            "events": f"/api/events?task_id={task.id}",
            **{wish: f"{address}/{wish}" for wish in possible if wish != "delete"},
        },
    }


def detail_json(task: Task, runs: list[TaskRun], changes: list[Event], as_of: datetime | None) -> dict[str, Any]:
    """A task with its history, as `schemas_tasks.TaskDetail` describes it."""
    return {
        **task_json(task),
        "runs": [
            {
                "run_id": run.run_id,
                "status": run.status,
                "created_at": run.created_at,
                "started_at": run.started_at,
                "ended_at": run.ended_at,
                "step_seconds": run.step_seconds or {},
            }
            for run in runs
        ],
        "history": [
            {
                "sequence": event.sequence,
                "state": event.state,
                "at": event.at,
                "run_id": event.run_id,
                "data": event.data,
            }
            for event in changes
        ],
        "as_of": as_of,
    }


def accepted(task: Task, *, replayed: bool = False) -> Response:
    """Answer 202 with a task."""
    headers = {"Location": f"/api/tasks/{task.id}", "Cache-Control": "no-store"}
    if replayed:
        headers["Idempotent-Replay"] = "true"
    return Response(encode(task_json(task)), 202, headers, "application/json")


def encode(value: Any) -> bytes:
    """Write an answer as JSON; what JSON cannot carry becomes null."""
    return orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z)


async def start_task(request: Request, kind: str, parameters: Parameters, priority: Priority = "normal") -> Response:
    """Start a task for whoever asks, write it into the audit trail, and answer 202 with it.

    The header ``Idempotency-Key`` is heeded. See `TaskService.submit` for the problems.
    """
    who, key = principal(request), idempotency_key(request)
    tasks = service(request).tasks
    submission = await run_in_threadpool(
        lambda: tasks.submit(who, kind, parameters, priority=priority, idempotency_key=key)
    )
    task = submission.task
    if not submission.replayed:
        after = {"kind": kind, "priority": priority, "parameters": task.parameters}
        await run_in_threadpool(
            lambda: audit(request, "task.create", object=("task", task.id), after=after, run_id=task.run_id)
        )
    return accepted(task, replayed=submission.replayed)


def idempotency_key(request: Request) -> str | None:
    """The header ``Idempotency-Key``, where it was sent.

    Raises
    ------
    ProblemError
        422 where it was sent twice, is empty, too long, or holds other than visible ASCII characters.
    """
    given = request.headers.getlist(KEY)
    if not given:
        return None
    key = given[0].strip()
    visible = all("!" <= character <= "~" for character in key)
    if len(given) > 1 or not key or len(key) > _LONGEST_KEY or not visible:
        message = f"send it once, with 1 to {_LONGEST_KEY} visible ASCII characters"
        errors = [{"parameter": KEY, "message": message, "value": None}]
        raise ProblemError(422, "invalid-parameters", f"{KEY}: {message}", errors=errors)
    return key


ACTIVE = tuple(state for state in STATES if state not in ENDED)
"""States of tasks that have not ended."""
