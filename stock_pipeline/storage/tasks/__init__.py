"""Tasks and their events in the metadata database: what the relay writes, and what the service reads and asks for."""

from stock_pipeline.storage.tasks.events import Event, EventFilter, EventLog, NewEvent
from stock_pipeline.storage.tasks.records import Launched, Reservation, Task, TaskFilter, TaskRun, share_done
from stock_pipeline.storage.tasks.states import NotNowError
from stock_pipeline.storage.tasks.store import KeyReusedError, TaskStore

__all__ = [
    "Event",
    "EventFilter",
    "EventLog",
    "KeyReusedError",
    "Launched",
    "NewEvent",
    "NotNowError",
    "Reservation",
    "Task",
    "TaskFilter",
    "TaskRun",
    "TaskStore",
    "share_done",
]
