"""`stock-pipeline tasks`: what waits and runs, how far it is, and the handles on it, from the service's machine.

Tasks are read from the metadata database, so that looking works without any service. Whatever must reach Dagster goes
the way that the API goes, and needs the services.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stock_pipeline.cli.app import Context, app
from stock_pipeline.cli.console import err, out, print_json
from stock_pipeline.cli.task_tables import line_of, print_task, task_table, warning_of_age
from stock_pipeline.cli.users import machine_user
from stock_pipeline.cli.values import named_values
from stock_pipeline.config.tasks import REQUESTS
from stock_pipeline.core.errors import ConfigurationError, NotFoundError, PipelineError

if TYPE_CHECKING:
    from stock_pipeline.access.principal import Principal
    from stock_pipeline.api.problems import ProblemError
    from stock_pipeline.api.service import Service
    from stock_pipeline.api.task_service import TaskService
    from stock_pipeline.storage.tasks import Task

tasks = typer.Typer(
    help="Work of the running services: what waits and runs, how far it is; cancel, pause, resume, retry it.",
    no_args_is_help=True,
)
app.add_typer(tasks, name="tasks")

POLL_SECONDS = 0.5
SHORTEST_ID = 4
"""Letters of an id that are enough to name a task."""
PAGE = 500

Kind = StrEnum("Kind", {kind: kind for kind in REQUESTS})  # type: ignore[misc]


class Priority(StrEnum):
    """Places in the queue."""

    low = "low"
    normal = "normal"
    high = "high"
    urgent = "urgent"


Id = Annotated[
    str, typer.Argument(metavar="ID", help=f"Id of the task, or its first letters (at least {SHORTEST_ID}).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as the API answers it.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end, as `tasks watch` does.")]


@tasks.command(name="list")
def list_(
    context: typer.Context,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only of this kind.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only in this state, such as queued or failed.")] = None,
    active: Annotated[bool, typer.Option("--active", help="Only those that have not ended.")] = False,
    owner: Annotated[str | None, typer.Option("--owner", help="Only of this account.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most tasks.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print the newest tasks of everybody, also those of schedules and of the command line.

    Example: stock-pipeline tasks list --active
    """
    from stock_pipeline.api.task_views import task_json
    from stock_pipeline.storage.tasks import TaskFilter
    from stock_pipeline.storage.tasks.states import ENDED, STATES

    if state is not None and state not in STATES:
        raise ConfigurationError("there is no such state", value=state, allowed=", ".join(STATES))
    states = (state,) if state else tuple(name for name in STATES if name not in ENDED) if active else ()
    chosen = TaskFilter(kinds=(kind.value,) if kind else (), states=states, owner=owner)
    service = _service(context)
    found = [task_json(task) for task in service.tasks.store.list(chosen, limit=limit)]
    if as_json:
        print_json(found)
        return
    out.print(task_table(found, "no task matches" if kind or states or owner else "no task was started yet"))
    _tell_how_new(service)


@tasks.command()
def show(context: typer.Context, task_id: Id, as_json: AsJson = False) -> None:
    """Print one task: its progress, its runs, every change of its state, its result, or why it failed and what to do.

    Example: stock-pipeline tasks show 0f6a1c7e
    """
    from stock_pipeline.api.task_views import detail_json
    from stock_pipeline.storage.tasks import EventFilter
    from stock_pipeline.storage.tasks.states import ENDED

    service = _service(context)
    store = service.tasks.store
    task = _find(service.tasks, task_id)
    changes = service.events.latest(limit=PAGE, filters=EventFilter(tasks=(task.id,), kinds=("task.state",)))
    found = detail_json(task, list(store.runs(task.id)), changes, store.as_of())
    if as_json:
        print_json(found)
        return
    print_task(found)
    if task.state not in ENDED:
        _tell_how_new(service)


@tasks.command()
def watch(
    context: typer.Context,
    task_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Id of the task or its first letters; without it, all tasks.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One event a line, as JSON.")] = False,
) -> None:
    """Print what happens to a task until it has ended, or to all tasks until Ctrl-C.

    The exit code is 0 when the task succeeded, and 1 when it failed or was canceled.
    Example: stock-pipeline tasks watch 0f6a1c7e
    """
    service = _service(context)
    if task_id is None:
        _follow(service, None, as_json)
    else:
        _to_the_end(service, _find(service.tasks, task_id), as_json)


@tasks.command()
def start(
    context: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="What to do.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", help="NAME=VALUE, a YAML value; repeatable. Dots go into it: parameters.fast=20."
        ),
    ] = None,
    priority: Annotated[Priority, typer.Option("--priority", help="Place in the queue.")] = Priority.normal,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Ask the running services for work; prints the id of the task. It goes on when this terminal is closed.

    Example: stock-pipeline tasks start backtest -p strategy=sma_cross -p parameters.fast=20 --watch
    """
    from stock_pipeline.api.task_views import task_json

    request = _request(kind.value, named_values(parameter or []))
    service, by = _service(context), machine_user()
    with _explained():
        task = service.tasks.create(by, kind.value, request, priority=priority.value)
    after = {"kind": task.kind, "priority": task.priority, "parameters": task.parameters}
    service.access.audit.record("task.create", actor=by, object=("task", task.id), after=after, run_id=task.run_id)
    if as_json:
        print_json(task_json(task))
    else:
        typer.echo(task.id)
    if watch:
        _to_the_end(service, task, as_json)


@tasks.command()
def cancel(context: typer.Context, task_id: Id, as_json: AsJson = False) -> None:
    """End a task that has not ended: one that waits at once, one that runs as soon as its process obeys."""
    _act(context, "cancel", lambda service, by, task: service.cancel(by, task), task_id, as_json)


@tasks.command()
def pause(context: typer.Context, task_id: Id, as_json: AsJson = False) -> None:
    """Stop a task after its current step; one that waits at once."""
    _act(context, "pause", lambda service, by, task: service.pause(by, task), task_id, as_json)


@tasks.command()
def resume(context: typer.Context, task_id: Id, watch: Watch = False, as_json: AsJson = False) -> None:
    """Go on with a paused task; steps that have succeeded are not repeated."""
    _act(context, "resume", lambda service, by, task: service.resume(by, task), task_id, as_json, watch)


@tasks.command()
def retry(context: typer.Context, task_id: Id, watch: Watch = False, as_json: AsJson = False) -> None:
    """Repeat a failed or canceled task from where it ended."""
    _act(context, "retry", lambda service, by, task: service.retry(by, task), task_id, as_json, watch)


def _service(context: typer.Context) -> Service:
    from stock_pipeline.api.service import Service

    given: Context = context.obj
    return Service(given.settings())


def _act(
    context: typer.Context,
    action: str,
    do: Callable[[TaskService, Principal, str], Task],
    task_id: str,
    as_json: bool,
    watch: bool = False,
) -> None:
    from stock_pipeline.api.task_views import task_json

    service, by = _service(context), machine_user()
    found = _find(service.tasks, task_id)
    since = service.events.newest()
    with _explained():
        task = do(service.tasks, by, found.id)
    after = {"kind": task.kind, "state": task.state, "owner": task.owner}
    service.access.audit.record(f"task.{action}", actor=by, object=("task", task.id), after=after, run_id=task.run_id)
    if as_json:
        print_json(task_json(task))
    else:
        said = f"is {task.state}" if action in ("cancel", "pause") else "goes on"
        err.print(f"the {task.kind} {task.id} {said}", markup=False, soft_wrap=True)
    if watch:
        _to_the_end(service, task, as_json, since, before=found)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Problems that the service would answer with, as errors of the command line."""
    from stock_pipeline.api.dagster_client import UnavailableError, UncertainError
    from stock_pipeline.api.problems import ProblemError

    try:
        yield
    except UncertainError as error:
        raise PipelineError(
            f"{_reason(error)}; it may have been done", fix="look at `stock-pipeline tasks list` before you ask again"
        ) from error
    except UnavailableError as error:
        raise PipelineError(_reason(error), fix="start the services: stock-pipeline dev") from error
    except ProblemError as error:
        # what a strategy says about its parameters together stands at the end
        raise PipelineError(error.detail.rpartition("Value error, ")[2]) from error


def _reason(error: ProblemError) -> str:
    return error.detail.partition(";")[0]  # behind it stands what clients of the API may do


def _find(service: TaskService, given: str) -> Task:
    """The task that an id or its first letters name.

    Raises
    ------
    NotFoundError, ConfigurationError
        There is none; there are several, or the letters are too few.
    """
    from stock_pipeline.storage.tasks import TaskFilter

    exact = service.store.get(given)
    if exact is not None:
        return exact
    if len(given) < SHORTEST_ID:
        raise ConfigurationError(
            "too short for the beginning of an id", value=given, allowed=f"{SHORTEST_ID} letters or more"
        )
    found: list[Task] = []
    page = service.store.list(TaskFilter(text=given), limit=PAGE)
    while page:
        found += [task for task in page if task.id.startswith(given.lower())]
        page = service.store.list(TaskFilter(text=given), page[-1].number, PAGE)
    if not found:
        raise NotFoundError("there is no such task", value=given, fix="see `stock-pipeline tasks list`")
    if len(found) > 1:
        raise ConfigurationError(
            "several tasks begin so",
            value=given,
            allowed=", ".join(task.id for task in found[:5]),
            fix="give more of the id",
        )
    return found[0]


def _request(kind: str, flat: dict[str, Any]) -> Any:
    """The parameters of a kind of task; a name with dots goes down into what it names."""
    from pydantic import ValidationError

    values: dict[str, Any] = {}
    for name, value in flat.items():
        *outer, last = name.split(".")
        at = values
        for part in outer:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise ConfigurationError("a parameter is both a value and holds others", value=name)
        at[last] = value
    try:
        return REQUESTS[kind].model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(
            f"the parameters of {kind} are not acceptable: {'; '.join(map(_fault, error.errors()))}",
            allowed=", ".join(REQUESTS[kind].model_fields) or "none",
        ) from error


def _fault(fault: Any) -> str:
    place = ".".join(map(str, fault["loc"]))
    said = {"missing": "must be given", "extra_forbidden": "there is no such parameter"}.get(
        fault["type"], fault["msg"]
    )
    return f"{place}: {said}" if place else said.removeprefix("Value error, ")


def _to_the_end(service: Service, task: Task, as_json: bool, since: int = 0, before: Task | None = None) -> None:
    if _follow(service, task.id, as_json, since, before) != "succeeded":
        raise typer.Exit(1)


def _follow(
    service: Service, task_id: str | None, as_json: bool, since: int | None = None, before: Task | None = None
) -> str:
    """Print events until the task has ended, or for ever; returns how it ended.

    Where it had ended `before` it was asked to go on, that end does not count.
    """
    from stock_pipeline.api.streams.items import as_json as event_json
    from stock_pipeline.storage.tasks import EventFilter
    from stock_pipeline.storage.tasks.states import ENDED

    chosen = EventFilter(tasks=() if task_id is None else (task_id,), kinds=("task.state", "task.progress"))
    number = (service.events.newest() if task_id is None else 0) if since is None else since
    _tell_how_new(service)
    while True:
        # the task first, then its events: those of its end are there when it has ended
        task = None if task_id is None else service.tasks.store.get(task_id)
        while page := service.events.after(number, limit=PAGE, filters=chosen):
            for event in page:
                typer.echo(json.dumps(event_json(event)) if as_json else line_of(event, named=task_id is None))
            number = page[-1].sequence
        if task_id is not None:
            if task is None:
                raise NotFoundError("the task was deleted", value=task_id)
            if task.state in ENDED and (before is None or _end(task) != _end(before)):
                return task.state
        time.sleep(POLL_SECONDS)


def _end(task: Task) -> tuple[object, ...]:
    return task.state, task.ended_at, task.run_id, task.attempts


def _tell_how_new(service: Service) -> None:
    warning = warning_of_age(service.tasks.store.as_of(), datetime.now(UTC))
    if warning is not None:
        err.print(warning, markup=False, soft_wrap=True)
