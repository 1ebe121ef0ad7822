"""One event as it is sent, and which events a client wants and may see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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


class Item:
    """One event, written as JSON once for all who get it.

    Parameters
    ----------
    event
        The event.
    """

    __slots__ = ("body", "event", "message", "sequence")

    def __init__(self, event: Event) -> None:
        self.event, self.sequence = event, event.sequence
        self.body = orjson.dumps(as_json(event), default=str).decode()
        self.message = f'{{"type":"event",{self.body[1:]}'

    @property
    def size(self) -> int:
        """Characters that one client gets."""
        return len(self.message)

    @property
    def server_sent(self) -> str:
        """The event in the form of Server-Sent Events."""
        return f"id: {self.sequence}\nevent: {self.event.kind}\ndata: {self.body}\n\n"


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


@dataclass(frozen=True)
class Wanted:
    """Which events a client asked for; empty means all.

    Attributes
    ----------
    tasks, kinds, severities
        Ids of tasks, kinds and severities of events.
    owner
        Only events of this account's tasks.
    """

    tasks: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    severities: frozenset[str] = frozenset()
    owner: str | None = None

    @classmethod
    def of(
        cls,
        tasks: Iterable[str] = (),
        kinds: Iterable[str] = (),
        severities: Iterable[str] = (),
        owner: str | None = None,
    ) -> Wanted:
        """Make one from lists."""
        return cls(frozenset(tasks), frozenset(kinds), frozenset(severities), owner)

    def matches(self, event: Event) -> bool:
        """Whether the client asked for an event."""
        return (
            (not self.tasks or event.task_id in self.tasks)
            and (not self.kinds or event.kind in self.kinds)
            and (not self.severities or event.severity in self.severities)
            and (self.owner is None or event.owner == self.owner)
        )
