"""Tasks and their events as people read them in a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.table import Table

from stock_pipeline.cli.console import cell, number_of, out, table

if TYPE_CHECKING:
    from stock_pipeline.storage.tasks import Event

SHORT_ID = 8
STALE = timedelta(seconds=30)
"""Nothing was copied for so long: the relay does not run."""


def task_table(tasks: Sequence[Mapping[str, Any]], nothing: str) -> Table:
    """Tasks as `task_views.task_json` describes them, one a row."""
    columns = [(heading, "left") for heading in ("id", "kind", "state", "asked for", "by", "progress", "end", "what")]
    rows = [
        [
            task["id"][:SHORT_ID],
            task["kind"],
            task["state"],
            _short(task["created_at"]),
            task["owner"] or task["origin"],
            _progress(task["progress"]) if task["ended_at"] is None else _percent(task["progress"]["share"]) or "-",
            _end(task),
            _words(task["parameters"]),
        ]
        for task in tasks
    ]
    return table("Tasks", columns, rows, "times are UTC" if rows else nothing)


def print_task(task: Mapping[str, Any]) -> None:
    """Print one task as `task_views.detail_json` describes it."""
    error = task["error"] or {}
    advice = error.get("next") or {}
    asked = task["asked"]
    rows = [
        ("id", task["id"]),
        ("state", task["state"]),
        ("progress", _progress(task["progress"])),
        ("parameters", _words(task["parameters"])),
        ("priority", task["priority"]),
        ("owner", task["owner"]),
        ("started from", task["origin"]),
        ("asked for", _when(task["created_at"], " UTC")),
        ("began", _when(task["started_at"], " UTC")),
        ("ended" if task["ended_at"] else "should end", _when(task["ended_at"] or task["expected_end"], " UTC")),
        ("runs", ", ".join(f"{run['run_id'][:SHORT_ID]} {run['status'].lower()}" for run in task["runs"])),
        ("asked of it", asked and f"{asked['what']}, by {asked['by']}, {_when(asked['at'], ' UTC')}"),
        ("result", _words(task["result"])),
        ("failed in", error.get("step")),
        ("because", error.get("cause")),
        ("checks", ", ".join(str(check.get("name", check)) for check in error.get("checks", []))),
        ("to do", advice.get("text")),
        ("it can", ", ".join(wish for wish in task["allowed"] if wish != "delete")),
    ]
    shown = [[name, str(value)] for name, value in rows if value not in (None, "", "-")]
    out.print(table(f"The {task['kind']}", [("", "left"), ("", "left")], shown))
    out.print("What it was, in UTC", style="bold")
    for change in task["history"]:
        line = [_when(change["at"]), change["state"], _by(change["data"])]
        out.print("  " + "  ".join(filter(None, line)), markup=False)


def line_of(event: Event, *, named: bool) -> str:
    """One event as a line; with the kind and id of its task where that is not known (`named`)."""
    data = event.data
    parts = [f"{event.at.astimezone(UTC):%H:%M:%S}"]
    if named:
        parts.append(f"{event.task_kind} {(event.task_id or '')[:SHORT_ID]}")
    if event.kind == "task.progress":
        parts.append(_progress({**data, "current_step": data.get("step")}))
    else:
        parts.append(str(event.state))
        error = data.get("error") or {}
        said = [error.get("cause"), (error.get("next") or {}).get("text"), _words(data.get("result")), _by(data)]
        parts += [str(text) for text in said if text and text != "-"]
    return "  ".join(parts)


def warning_of_age(as_of: datetime | None, now: datetime) -> str | None:
    """What to say where nothing was copied from Dagster for some time; ``None`` where it is up to date."""
    start = "start the services (`stock-pipeline dev`) to see what happens now"
    if as_of is None:
        return f"nothing was copied from Dagster yet: {start}"
    return None if now - as_of < STALE else f"as of {_when(as_of)} UTC, nothing was copied since: {start}"


def _progress(progress: Mapping[str, Any]) -> str:
    part = progress.get("part") or {}
    inside = f"{part['unit']} {part['done']} of {part['total']}" if part.get("total") else ""
    step = progress.get("current_step") or progress.get("step")
    total = progress.get("steps_total")
    steps = f"{progress['steps_done']} of {number_of(total, 'step')}" if total else ""
    return ", ".join(filter(None, [_percent(progress.get("share")), steps, step, inside])) or "-"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _end(task: Mapping[str, Any]) -> str:
    if task["ended_at"] is not None:
        return _short(task["ended_at"])
    return "-" if task["expected_end"] is None else f"~ {_short(task['expected_end'])}"


def _words(values: Mapping[str, Any] | None) -> str:
    if not values:
        return "-"
    said = {name: value for name, value in values.items() if value not in (None, {}, [], "")}
    ordered = sorted(said.items(), key=lambda item: isinstance(item[1], dict))  # databases keep no order of keys
    return "; ".join(f"{name} {_word(value)}" for name, value in ordered)


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_word(inner)}" for name, inner in value.items())
    return json.dumps(value) if isinstance(value, bool) else cell(value)


def _by(data: Mapping[str, Any]) -> str:
    return f"by {data['by']}" if data.get("by") else ""


def _short(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%m-%d %H:%M}"


def _when(moment: datetime | None, behind: str = "") -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}{behind}"
