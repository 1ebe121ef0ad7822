"""One event as it is sent, and which events a client may see."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import orjson

from stock_pipeline.access.principal import Principal
from stock_pipeline.storage.tasks import Event
from stock_pipeline.storage.tasks.events import KINDS

STREAM = "events:read"
"""What one must be permitted to follow the stream at all."""

_NEEDED = {"task": "tasks:read", "publication": "predictions:read", "alert": "alerts:read"}
"""What one must be permitted besides, by the first word of an event's kind."""

_TYPE = '{"type":"event",'
"""What a message over the WebSocket begins with; the rest is the event."""


class Item:
    """One event, written as JSON once for all who get it.

    Parameters
    ----------
    event
        The event.
    """

    __slots__ = ("event", "message", "sequence")

    def __init__(self, event: Event) -> None:
        self.event, self.sequence = event, event.sequence
        self.message = f"{_TYPE}{orjson.dumps(as_json(event), default=str)[1:].decode()}"

    @property
    def size(self) -> int:
        """Characters that one client gets."""
        return len(self.message)

    @property
    def server_sent(self) -> str:
        """The event in the form of Server-Sent Events."""
        return f"id: {self.sequence}\nevent: {self.event.kind}\ndata: {{{self.message[len(_TYPE) :]}\n\n"


def as_json(event: Event) -> dict[str, Any]:
    """An event as plain values."""
    return {
        "sequence": event.sequence,
        "kind": event.kind,
        "severity": event.severity,
        "task_id": event.task_id,
        "task_kind": event.task_kind,
        "run_id": event.run_id,
        "owner": event.owner,
        "state": event.state,
        "at": event.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "recorded_at": event.recorded_at,
        "data": event.data,
    }


def readable_kinds(principal: Principal) -> frozenset[str]:
    """Kinds of events that somebody may see; none without the permission for the stream itself."""
    if not principal.may(STREAM):
        return frozenset()
    return frozenset(kind for kind in KINDS if principal.may(_NEEDED[kind.partition(".")[0]]))
