"""Tasks found by a piece of text, whatever its case, anywhere in what somebody may remember of them."""

from __future__ import annotations

import json

from sqlalchemy import ColumnElement, insert
from sqlalchemy.orm import Session

from stock_pipeline.storage.database.tables.tasks import TaskRow, TaskSearchRow


def make_findable(session: Session, row: TaskRow) -> None:
    """Note the id, kind, job, owner and parameters of a task, which never change, for `holds`."""
    parameters = json.dumps(row.parameters, ensure_ascii=False).encode("utf-8", "replace").decode()
    words = "\n".join((row.id, row.kind, row.job, row.owner or "", parameters))
    session.execute(insert(TaskSearchRow).values(number=row.number, text=words.lower()))


def holds(text: str) -> ColumnElement[bool]:
    """The condition on `TaskSearchRow` that a task has a piece of text."""
    return TaskSearchRow.text.contains(text.lower(), autoescape=True)
