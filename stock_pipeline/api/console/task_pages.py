"""Tasks: what runs, what waits, what came of it; one task live; and the buttons that its state allows."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, Query, Request, Response

from stock_pipeline.access.principal import Principal
from stock_pipeline.api.console.forms import (
    REFUSALS,
    Fields,
    apart,
    go,
    model,
    refusal,
    sentence,
    status_of,
    text,
    texts,
)
from stock_pipeline.api.console.notices import Notice
from stock_pipeline.api.console.paging import Pager
from stock_pipeline.api.console.rendering import page
from stock_pipeline.api.dependencies import principal, service
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.api.routes import tasks
from stock_pipeline.api.routes.requested import read_requested
from stock_pipeline.api.schemas_admin import NoQuery
from stock_pipeline.api.task_views import ACTIVE, start_task, task_json
from stock_pipeline.config import addresses
from stock_pipeline.config.tasks import PRIORITIES, REQUESTS, Kind, Priority
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.storage.tasks import EventFilter, Task, TaskFilter
from stock_pipeline.storage.tasks.states import ENDED, STATES

router = APIRouter(include_in_schema=False)

ROWS = 30
EVENTS = 200
KINDS = get_args(Kind)
LABELS = {
    "cancel": "Cancel",
    "pause": "Pause",
    "resume": "Resume",
    "retry": "Retry",
    "delete": "Delete",
}
_ACTIONS = {
    "cancel": tasks.cancel_task,
    "pause": tasks.pause_task,
    "resume": tasks.resume_task,
    "retry": tasks.retry_task,
    "delete": tasks.delete_task,
}


async def by_kind(request: Request) -> None:
    """Let a form pass with the permission that its kind of task needs."""
    await tasks.authorise_kind(request, text(await request.form(), "kind"))


by_kind.permission = tasks.LEAST  # type: ignore[attr-defined]


@router.get("/tasks", dependencies=tasks.READ)
def task_list(
    request: Request,
    kind: Annotated[str, Query(max_length=30)] = "",
    state: Annotated[str, Query(max_length=12)] = "",
    mine: str = "",
    q: Annotated[str, Query(max_length=100)] = "",
    after: int | None = None,
) -> Response:
    """List tasks, newest first."""
    return _list(request, {"kind": kind, "state": state, "mine": mine, "q": q.strip()}, after)


@router.post("/tasks", dependencies=[Depends(by_kind)])
async def create_task(request: Request, form: Fields) -> Response:
    """Start a task of any kind but a back-test, which has a page of its own."""
    kind = text(form, "kind")
    try:
        if kind not in REQUESTS:
            raise ProblemError(422, "invalid-parameters", f"kind: one of {', '.join(KINDS)}")
        answer = await start_task(request, kind, _request(kind, form), _priority(text(form, "priority")))
    except REFUSALS as error:
        return await apart(_list, request, {}, None, [refusal(error)], status_of(error))
    return go(started(answer), done="task-created")


@router.get("/tasks/{task_id}", dependencies=tasks.READ)
def task_page(request: Request, task_id: tasks.TaskId) -> Response:
    """Show one task; a script keeps it up to date."""
    return _task(request, task_id)


@router.post("/tasks/{task_id}/{action}", dependencies=tasks.CONTROL)
async def act(request: Request, task_id: tasks.TaskId, action: str) -> Response:
    """Cancel, pause, resume, retry or delete a task."""
    if action not in _ACTIONS:
        raise ProblemError(404, "not-found", f"nothing is done at {action}")
    try:
        await _ACTIONS[action](request, task_id, NoQuery())
    except ProblemError as error:
        if error.status == 404:
            raise
        return await apart(_task, request, task_id, [refusal(error)], error.status)
    if action == "delete":
        return go("/tasks", done="task-deleted")
    return go(f"/tasks/{task_id}", done="task-asked")


def started(answer: Response) -> str:
    """Page of the task that an answer of the API names."""
    return answer.headers["Location"].removeprefix("/api")


def shown(task: Task, who: Principal) -> dict[str, Any]:
    """A task as templates show it: the fields of the API, and which buttons this person has."""
    found = task_json(task)
    own = task.owner == who.name and who.may("tasks:control")
    allowed = found["allowed"] if own or who.may("tasks:control_any") else []
    return {
        **found,
        "seconds": None if task.started_at is None or task.ended_at is None else _seconds(task),
        "buttons": [(action, LABELS[action]) for action in allowed if action in LABELS],
        "over": task.state in ENDED,
        "subject": _subject(task),
    }


def _list(
    request: Request,
    asked: dict[str, str],
    after: int | None,
    notices: list[Notice] | None = None,
    status: int = 200,
) -> Response:
    parts, who = service(request), principal(request)
    state = asked.get("state", "")
    chosen = TaskFilter(
        kinds=(asked["kind"],) if asked.get("kind") else (),
        states=ACTIVE if state == "active" else (state,) if state else (),
        owner=who.name if asked.get("mine") else None,
        text=asked.get("q") or None,
    )
    newest = parts.events.newest()
    found = parts.tasks.store.list(chosen, after, ROWS + 1)
    rows = found[:ROWS]
    return page(
        request,
        "tasks/list.html",
        title="Tasks",
        section="tasks",
        notices=notices or [],
        status=status,
        tasks=[shown(task, who) for task in rows],
        asked={name: asked.get(name, "") for name in ("kind", "state", "mine", "q")},
        kinds=KINDS,
        states=STATES,
        priorities=list(PRIORITIES),
        families=parts.settings.models.families,
        newest=newest,
        as_of=parts.tasks.store.as_of(),
        pager=Pager.after("/tasks", asked, rows[-1].number if len(found) > ROWS else None, begun=after is not None),
    )


def _task(request: Request, task_id: str, notices: list[Notice] | None = None, status: int = 200) -> Response:
    parts, who = service(request), principal(request)
    newest = parts.events.newest()
    task = parts.tasks.get(task_id)
    events = parts.events.latest(limit=EVENTS, filters=EventFilter(tasks=(task_id,)))
    return page(
        request,
        "tasks/task.html",
        title=f"{task.kind.capitalize()} task",
        section="tasks",
        crumbs=[("Tasks", "/tasks"), (task.id[:8], None)],
        notices=notices or [],
        status=status,
        task=shown(task, who),
        runs=list(parts.tasks.store.runs(task_id)),
        events=[{"event": one, "words": words(one.kind, one.state, one.data)} for one in reversed(events)],
        newest=newest,
        result_page=_result_page(task),
        predictions=_predictions(request, task),
        dagster=addresses.dagster_page(parts.settings, f"runs/{task.run_id}") if who.may("dagster:use") else None,
    )


def words(kind: str, state: str | None, data: dict[str, Any]) -> str:
    """An event of a task in words."""
    if kind == "task.state":
        said = f"{(state or '').capitalize()}"
        error = data.get("error")
        if isinstance(error, dict) and error.get("cause"):
            said += f": {error['cause']}"
        return sentence(said)
    done, total, step = data.get("steps_done"), data.get("steps_total"), data.get("current_step") or data.get("step")
    said = f"{done} of {total} steps done" if total else "Progress"
    part = data.get("part")
    if step:
        said += f", {step}"
    if isinstance(part, dict) and part.get("total"):
        said += f", {part.get('unit', 'part')} {part.get('done')} of {part['total']}"
    return sentence(said)


def _request(kind: str, form: Any) -> Parameters:
    fields: dict[str, Any] = {}
    if kind == "predict":
        fields["symbols"] = text(form, "symbols").replace(",", " ").split()
    elif kind == "train":
        fields["families"] = texts(form, "families") or None
    elif kind == "backfill":
        fields = {
            "start": text(form, "start") or None,
            "end": text(form, "end") or None,
            "rebuild": text(form, "rebuild") == "true",
        }
    return model(REQUESTS[kind], **fields)


def _priority(name: str) -> Priority:
    return name if name in PRIORITIES else "normal"  # type: ignore[return-value]


def _result_page(task: Task) -> str | None:
    """Where the result of a task is shown."""
    if task.state != "succeeded":
        return None
    if task.kind == "backtest" and task.result and task.result.get("id"):
        return f"/backtests/{task.result['id']}"
    return {"refresh": "/", "train": "/models"}.get(task.kind)


def _predictions(request: Request, task: Task) -> dict[str, Any] | None:
    """What a prediction task has made, where it may be read and is there."""
    if task.kind != "predict" or task.state != "succeeded" or not principal(request).may("predictions:read"):
        return None
    return read_requested(request, task.id)


def _seconds(task: Task) -> float:
    assert task.started_at is not None
    assert task.ended_at is not None
    return (task.ended_at - task.started_at).total_seconds()


def _subject(task: Task) -> str:
    """What a task is about, in a few words."""
    parameters = task.parameters or {}
    if parameters.get("strategy"):
        return str(parameters["strategy"])
    symbols = parameters.get("symbols")
    if isinstance(symbols, list) and symbols:
        return ", ".join(map(str, symbols[:4])) + (f" and {len(symbols) - 4} more" if len(symbols) > 4 else "")
    families = parameters.get("families")
    return ", ".join(map(str, families)) if isinstance(families, list) else ""
