"""What stands under ``tasks``, and what may be asked for: the parameters of each kind of task.

The service validates requests against the same models that the jobs read their run configuration with.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from stock_pipeline.config.workers import WorkerSettings
from stock_pipeline.core.parameters import Parameters

Priority = Literal["low", "normal", "high", "urgent"]
PRIORITIES: dict[str, int] = {"low": -5, "normal": 0, "high": 5, "urgent": 10}
"""Dagster's priority of each of ours."""

Kind = Literal["predict", "backtest", "train", "refresh", "backfill"]
Symbol = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\s,][^,\x00-\x1f]*$")]
Day = Annotated[date, Field(ge=date(1900, 1, 1), le=date(2200, 12, 31))]


class TaskSettings(Parameters):
    """The queue, who does the work, and how its events are copied."""

    max_running: int = Field(3, ge=1, le=1000, description="runs at a time")
    max_running_per_kind: int = Field(
        1, ge=1, le=1000, description="of each kind; runs that write the same tables wait for each other in any case"
    )
    max_queued: int = Field(100, ge=1, le=100_000, description="tasks that may wait; further ones are refused")
    max_queued_per_account: int = Field(20, ge=1, le=100_000, description="of one account")
    poll_seconds: float = Field(0.3, ge=0.05, le=60, description="how often new events of runs are looked for")
    keep_events_days: int = Field(180, ge=1, le=3650)
    dagster_url: str | None = Field(
        None, pattern=r"^https?://", description="Dagster's web server; null: the one that `services` describes"
    )
    workers: WorkerSettings | None = Field(
        default=None, description="who does the runs; null: this machine, started by Dagster's code server"
    )


class PredictRequest(Parameters):
    """Predict symbols for the newest session with the best model that can be used; nothing is published."""

    symbols: list[Symbol] = Field(min_length=1, max_length=500, description="symbols of the market")

    @model_validator(mode="after")
    def _once(self) -> Self:
        twice = sorted({symbol for symbol in self.symbols if self.symbols.count(symbol) > 1})
        if twice:
            raise ValueError(f"each symbol may be listed once; listed again: {', '.join(twice)}")
        return self


class BacktestRequest(Parameters):
    """Back-test one strategy with one set of parameters."""

    strategy: str = Field(min_length=1, max_length=100, description="name of a registered or configured strategy")
    parameters: dict[str, JsonValue] = Field({}, description="its parameters; the defaults where left out")
    start: Day | None = Field(None, description="first session of the account")
    end: Day | None = Field(None, description="last session of the account")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start ({self.start}) must be before end ({self.end})")
        return self


class TrainRequest(Parameters):
    """Train candidates walk-forward, promote through the gate, score and publish."""

    families: list[str] | None = Field(None, min_length=1, description="configured model families; all where null")


class RefreshRequest(Parameters):
    """Bring bars, features, risk and predictions up to the newest session of the source."""


class BackfillRequest(Parameters):
    """Compute a range of sessions again, without predictions."""

    start: Day | None = Field(None, description="first session; the first of the history where null")
    end: Day | None = Field(None, description="last session; the newest where null")
    rebuild: bool = Field(False, description="also where nothing has changed")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise ValueError(f"start ({self.start}) must not be after end ({self.end})")
        return self


REQUESTS: dict[str, type[Parameters]] = {
    "predict": PredictRequest,
    "backtest": BacktestRequest,
    "train": TrainRequest,
    "refresh": RefreshRequest,
    "backfill": BackfillRequest,
}
"""The parameters of each kind of task."""

JOBS: dict[str, str] = {
    "predict": "predict_on_request",
    "backtest": "backtest_on_request",
    "train": "weekly_retrain",
    "refresh": "nightly",
    "backfill": "prepare",
}
"""The job that each kind of task is a run of."""


def as_json(request: Parameters) -> dict[str, Any]:
    """A request as plain JSON values, for tags, run configuration and tables."""
    return request.model_dump(mode="json")
