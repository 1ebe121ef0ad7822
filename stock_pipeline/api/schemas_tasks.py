"""What requests for tasks look like, and tasks and events as they are answered."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stock_pipeline.api.instants import Instant
from stock_pipeline.api.paging import PageQuery
from stock_pipeline.api.streams.messages import EventKind, Severity, TaskId
from stock_pipeline.config.tasks import (
    BackfillRequest,
    BacktestRequest,
    PredictRequest,
    Priority,
    RefreshRequest,
    TrainRequest,
)
from stock_pipeline.storage.tasks.states import State

TASK_ID = "0f6a1c7e-2c0e-4a44-9a6d-6d0f3c1f2b7a"
AT = "2026-05-04T18:30:12.345678Z"


class _New(BaseModel):
    model_config = ConfigDict(extra="forbid")

    priority: Priority = Field("normal", description="its place in the queue")


class NewPrediction(_New):
    """Predict symbols for the newest session; nothing is published."""

    kind: Literal["predict"]
    parameters: PredictRequest


class NewBacktest(_New):
    """Back-test a strategy."""

    kind: Literal["backtest"]
    parameters: BacktestRequest


class NewTraining(_New):
    """Train, promote through the gate, score and publish."""

    kind: Literal["train"]
    parameters: TrainRequest = TrainRequest()


class NewRefresh(_New):
    """Bring everything up to the newest session of the source."""

    kind: Literal["refresh"]
    parameters: RefreshRequest = RefreshRequest()


class NewBackfill(_New):
    """Compute a range of sessions again."""

    kind: Literal["backfill"]
    parameters: BackfillRequest = BackfillRequest()


NewTask = Annotated[NewPrediction | NewBacktest | NewTraining | NewRefresh | NewBackfill, Field(discriminator="kind")]

EXAMPLES: dict[str, Any] = {
    "predict": {
        "summary": "Predict two symbols",
        "value": {"kind": "predict", "parameters": {"symbols": ["IBM", "KO"]}},
    },
    "backtest": {
        "summary": "Back-test a strategy",
        "value": {
            "kind": "backtest",
            "parameters": {"strategy": "sma_cross", "parameters": {"fast": 20, "slow": 100}},
            "priority": "high",
        },
    },
    "refresh": {"summary": "Refresh everything", "value": {"kind": "refresh"}},
}


class Progress(BaseModel):
    """How far a task is."""

    share: float | None = Field(description="from 0 to 1; null before its steps are known", examples=[0.4])
    steps_done: int = Field(examples=[2])
    steps_total: int | None = Field(examples=[5])
    current_step: str | None = Field(examples=["features__technical"])
    part: dict[str, Any] | None = Field(
        description="inside the step: `unit`, `done`, `total`", examples=[{"unit": "fold", "done": 1, "total": 4}]
    )


class Asked(BaseModel):
    """What a person asked of a task."""

    what: str = Field(examples=["pause"])
    by: str | None = Field(examples=["ada"])
    at: datetime | None = Field(examples=[AT])


class TaskInfo(BaseModel):
    """One task: a run with its repetitions."""

    id: str = Field(examples=[TASK_ID])
    kind: str = Field(
        description="predict, backtest, train, refresh or backfill; other words for what was started elsewhere",
        examples=["backtest"],
    )
    state: State = Field(examples=["running"])
    priority: str = Field(examples=["normal"])
    owner: str | None = Field(description="account that asked for it; null for the platform itself", examples=["ada"])
    origin: str = Field(description="api, schedule, dagster or command line", examples=["api"])
    job: str = Field(description="job of the pipeline", examples=["backtest_on_request"])
    parameters: dict[str, Any] = Field(examples=[{"strategy": "sma_cross", "parameters": {}}])
    created_at: datetime = Field(examples=[AT])
    started_at: datetime | None = Field(examples=[AT])
    ended_at: datetime | None = Field(examples=[None])
    expected_end: datetime | None = Field(
        description="estimated from past runs of its kind; null where there are none", examples=[AT]
    )
    attempts: int = Field(description="runs so far", examples=[1])
    run_id: str = Field(description="the newest of its runs", examples=[TASK_ID])
    progress: Progress
    asked: Asked | None = Field(description="what a person asked of it that has not happened yet, or explains its end")
    result: dict[str, Any] | None = Field(description="summary of what it made", examples=[None])
    error: dict[str, Any] | None = Field(
        description="why it failed: `step`, `cause`, `type` (kind of the platform's own error, else null), failed "
        "`checks`, and `next` with what to do",
        examples=[None],
    )
    allowed: list[str] = Field(
        description="what may be asked of it in this state, of those who may control it", examples=[["pause", "cancel"]]
    )
    links: dict[str, str] = Field(examples=[{"self": f"/api/tasks/{TASK_ID}"}])


class RunInfo(BaseModel):
    """One run of a task."""

    run_id: str = Field(examples=[TASK_ID])
    status: str = Field(description="Dagster's status; empty before it is known", examples=["STARTED"])
    created_at: datetime = Field(examples=[AT])
    started_at: datetime | None = Field(examples=[AT])
    ended_at: datetime | None = Field(examples=[None])
    step_seconds: dict[str, float] = Field(description="steps that succeeded", examples=[{"check_request": 0.4}])


class StateChange(BaseModel):
    """One change of a task's state."""

    sequence: int = Field(description="number of the event", examples=[17])
    state: str = Field(examples=["running"])
    at: datetime = Field(examples=[AT])
    run_id: str | None = Field(examples=[TASK_ID])
    data: dict[str, Any] = Field(description="what came with it", examples=[{"from": "starting"}])


class TaskDetail(TaskInfo):
    """One task with its history."""

    runs: list[RunInfo]
    history: list[StateChange] = Field(description="every change of its state, oldest first")
    as_of: datetime | None = Field(
        description="up to when what Dagster did is known; null where nothing was copied yet", examples=[AT]
    )


class TaskPage(BaseModel):
    """One page of tasks, newest first."""

    items: list[TaskInfo]
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last", examples=[None])
    as_of: datetime | None = Field(
        description="up to when what Dagster did is known; null where nothing was copied yet", examples=[AT]
    )


class TaskQuery(PageQuery):
    """Which tasks."""

    kind: str | None = Field(None, min_length=1, max_length=30, examples=["backtest"])
    state: State | None = Field(None, examples=["running"])
    active: bool | None = Field(None, description="true: only those that have not ended; false: only those that have")
    owner: str | None = Field(
        None, min_length=1, max_length=64, description="account; `me` for one's own", examples=["me"]
    )
    origin: Literal["api", "schedule", "dagster", "command line"] | None = None
    priority: Priority | None = None
    since: Instant | None = Field(None, description="made at or after this instant")
    until: Instant | None = Field(None, description="made before this instant")
    text: str | None = Field(
        None, min_length=1, max_length=100, description="found in id, kind, job, owner or parameters"
    )


class EventInfo(BaseModel):
    """One event."""

    sequence: int = Field(description="its number: without gaps, in order", examples=[17])
    kind: EventKind = Field(examples=["task.state"])
    severity: str = Field(examples=["info"])
    task_id: str | None = Field(examples=[TASK_ID])
    task_kind: str | None = Field(examples=["backtest"])
    run_id: str | None = Field(examples=[TASK_ID])
    owner: str | None = Field(description="account whose task it is", examples=["ada"])
    state: str | None = Field(description="state of the task", examples=["running"])
    at: datetime = Field(description="when it happened", examples=[AT])
    recorded_at: float = Field(description="Unix time at which it was copied", examples=[1777919412.4])
    data: dict[str, Any] = Field(examples=[{"from": "starting"}])


class EventList(BaseModel):
    """Events in order."""

    items: list[EventInfo]
    next_since: int = Field(description="pass as `since` to go on", examples=[17])
    newest: int = Field(description="number of the newest event of the log", examples=[17])
    oldest: int = Field(description="number of the oldest event that is kept", examples=[1])
    gap: bool = Field(description="whether events after `since` are not kept any more", examples=[False])


Kinds = Annotated[list[EventKind], Field(max_length=20, description="only these kinds; may be repeated")]
Severities = Annotated[list[Severity], Field(max_length=20, description="only these severities; may be repeated")]


class _EventFilters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Kinds = []
    severity: Severities = []
    task_id: TaskId | None = Field(None, description="only events of this task")
    mine: bool = Field(False, description="only events of one's own tasks")


class EventQuery(_EventFilters):
    """Which events."""

    since: int = Field(0, ge=0, le=2**53 - 1, description="number of the last event that one has")
    limit: int = Field(100, ge=1, le=1000, description="events of one answer")


class StreamQuery(_EventFilters):
    """Which events are followed."""

    since: int | None = Field(
        None,
        ge=0,
        le=2**53 - 1,
        description="number of the last event that one has; what comes from now on where absent",
    )


class TicketInfo(BaseModel):
    """A ticket for one WebSocket."""

    ticket: str = Field(description="send it in the first message; it works once", examples=["spt_..."])
    expires_in: int = Field(description="seconds", examples=[30])
