"""Tasks: ask for work, see how far it is, stop it, go on with it, repeat it, forget it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.api.answers import Answer, entity_tag
from stock_pipeline.api.auditing import audit
from stock_pipeline.api.client import origin
from stock_pipeline.api.dependencies import authorise, no_repeats, principal, require, service
from stock_pipeline.api.paging import cut, decode
from stock_pipeline.api.problems import problem_responses
from stock_pipeline.api.schemas_admin import NoQuery
from stock_pipeline.api.schemas_tasks import EXAMPLES, NewTask, TaskDetail, TaskInfo, TaskPage, TaskQuery
from stock_pipeline.api.task_service import PERMISSIONS
from stock_pipeline.api.task_views import ACCEPTED, ACTIVE, KEY, accepted, detail_json, encode, start_task, task_json
from stock_pipeline.storage.tasks import EventFilter, Task, TaskFilter
from stock_pipeline.storage.tasks.states import ENDED

router = APIRouter(prefix="/api", tags=["tasks"], dependencies=[Depends(no_repeats)])

READ = [Depends(require("tasks:read"))]
LEAST = PERMISSIONS["predict"]
CONTROL = [Depends(require("tasks:control"))]
TaskId = Annotated[str, Path(min_length=1, max_length=36, examples=["0f6a1c7e-2c0e-4a44-9a6d-6d0f3c1f2b7a"])]

_HISTORY = 1_000
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not Modified: the tag sent is still right"}}
_ACTION = {202: {"model": TaskInfo, "description": "Accepted"}, **problem_responses(404, 409, 503)}


async def by_kind(request: Request) -> None:
    """Let a request for a task pass with the permission that its kind needs; without a kind, with the least of them."""
    try:
        body = await request.json()
    except ValueError:
        body = None
    await authorise_kind(request, body.get("kind") if isinstance(body, dict) else None)


async def authorise_kind(request: Request, kind: Any) -> None:
    """Demand the permission that a kind of task needs, whatever was sent as its name."""
    await authorise(request, PERMISSIONS.get(kind if isinstance(kind, str) else "", LEAST))


by_kind.permission = LEAST  # type: ignore[attr-defined]


@router.post(
    "/tasks",
    summary="Ask for work",
    status_code=202,
    dependencies=[Depends(by_kind)],
    response_class=Response,
    responses={202: {"model": TaskInfo, **ACCEPTED[202]}, **problem_responses(409, 410, 422, 429, 503)},
)
async def create_task(
    request: Request,
    wanted: Annotated[NewTask, Body(openapi_examples=EXAMPLES)],
    query: Annotated[NoQuery, Query()],
    key: Annotated[
        str | None,
        Header(alias=KEY, max_length=100, description="the same key of the same account never starts a second task"),
    ] = None,
) -> Response:
    """Queue a task.

    Each kind needs its own permission: `predict` needs `predictions:request`, `backtest` needs `backtests:create`,
    the others need `tasks:operate`.
    """
    return await start_task(request, wanted.kind, wanted.parameters, wanted.priority)


@router.get(
    "/tasks",
    summary="Tasks, newest first",
    dependencies=READ,
    response_class=Response,
    responses={200: {"model": TaskPage}, **_NOT_MODIFIED, **problem_responses(400, 422)},
)
def list_tasks(request: Request, query: Annotated[TaskQuery, Query()]) -> Response:
    """Tasks of everybody, also those that a schedule, the command line or Dagster's web UI has started."""
    store, question = service(request).tasks.store, query.question()
    after = decode(query.cursor, question) if query.cursor else None
    rows, following = cut(
        store.list(_filter(query, principal(request)), after, query.limit + 1),
        query.limit,
        question,
        lambda task: task.number,
    )
    items = [task_json(task) for task in rows]
    tag = entity_tag(encode([items, following]))
    body = encode({"items": items, "next_cursor": following, "as_of": store.as_of()})
    return Answer(body, "application/json", tag).respond(request)


@router.get(
    "/tasks/{task_id}",
    summary="One task with its history",
    dependencies=READ,
    response_class=Response,
    responses={200: {"model": TaskDetail}, **_NOT_MODIFIED, **problem_responses(404, 422)},
)
def get_task(request: Request, task_id: TaskId, query: Annotated[NoQuery, Query()]) -> Response:
    """One task: how far it is, when it is expected to end, every change of its state, its result or why it failed."""
    parts = service(request)
    task = parts.tasks.get(task_id)
    changes = parts.events.latest(limit=_HISTORY, filters=EventFilter(tasks=(task_id,), kinds=("task.state",)))
    found = detail_json(task, list(parts.tasks.store.runs(task_id)), changes, None)
    tag = entity_tag(encode(found))
    body = encode({**found, "as_of": parts.tasks.store.as_of()})
    return Answer(body, "application/json", tag).respond(request)


@router.post(
    "/tasks/{task_id}/cancel",
    summary="End a task",
    status_code=202,
    dependencies=CONTROL,
    response_class=Response,
    responses=_ACTION,
)
async def cancel_task(request: Request, task_id: TaskId, query: Annotated[NoQuery, Query()]) -> Response:
    """End a task that has not ended: one that waits at once, one that runs as soon as its process obeys."""
    return accepted(await _act(request, "task.cancel", service(request).tasks.cancel, task_id))


@router.post(
    "/tasks/{task_id}/pause",
    summary="Pause a task",
    status_code=202,
    dependencies=CONTROL,
    response_class=Response,
    responses=_ACTION,
)
async def pause_task(request: Request, task_id: TaskId, query: Annotated[NoQuery, Query()]) -> Response:
    """Stop a task after its current step; one that waits at once."""
    return accepted(await _act(request, "task.pause", service(request).tasks.pause, task_id))


@router.post(
    "/tasks/{task_id}/resume",
    summary="Go on with a paused task",
    status_code=202,
    dependencies=CONTROL,
    response_class=Response,
    responses=_ACTION,
)
async def resume_task(request: Request, task_id: TaskId, query: Annotated[NoQuery, Query()]) -> Response:
    """Queue the steps of a paused task that have not succeeded."""
    return accepted(await _act(request, "task.resume", service(request).tasks.resume, task_id))


@router.post(
    "/tasks/{task_id}/retry",
    summary="Repeat a task from where it failed",
    status_code=202,
    dependencies=CONTROL,
    response_class=Response,
    responses=_ACTION,
)
async def retry_task(request: Request, task_id: TaskId, query: Annotated[NoQuery, Query()]) -> Response:
    """Queue the steps of a failed or canceled task that have not succeeded."""
    return accepted(await _act(request, "task.retry", service(request).tasks.retry, task_id))


@router.delete(
    "/tasks/{task_id}",
    summary="Delete an ended task",
    status_code=204,
    dependencies=CONTROL,
    responses=problem_responses(404, 409, 503),
)
async def delete_task(request: Request, task_id: TaskId, query: Annotated[NoQuery, Query()]) -> Response:
    """Forget an ended task and its runs; its events stay in the log until they expire."""
    await _act(request, "task.delete", service(request).tasks.delete, task_id)
    return Response(status_code=204)


async def _act(request: Request, action: str, do: Callable[[Principal, str], Task], task_id: str) -> Task:
    """Do something to a task, and write it into the audit trail."""
    who, parts = principal(request), service(request)

    def work() -> Task:
        try:
            task = do(who, task_id)
        except AccessError as error:
            if error.status == 403:
                parts.access.watch.refused(who, "tasks:control_any", origin(request))
            raise
        audit(
            request,
            action,
            object=("task", task_id),
            after={"kind": task.kind, "state": task.state, "owner": task.owner},
            run_id=task.run_id,
        )
        return task

    return await run_in_threadpool(work)


def _filter(query: TaskQuery, who: Principal) -> TaskFilter:
    states: tuple[str, ...] = ()
    if query.active is not None:
        states = ACTIVE if query.active else tuple(sorted(ENDED))
    if query.state is not None:
        states = (query.state,) if not states or query.state in states else ("none",)
    return TaskFilter(
        kinds=() if query.kind is None else (query.kind,),
        states=states,
        owner=who.name if query.owner == "me" else query.owner,
        origins=() if query.origin is None else (query.origin,),
        priorities=() if query.priority is None else (query.priority,),
        created_from=query.since,
        created_before=query.until,
        text=query.text,
    )
