"""Runs jobs from the command line in this process, on the instance that the web UI shows.

Nothing is computed here: which job is needed is decided, the job is executed, and its outcome is reported.
"""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg

from stock_pipeline.config import Settings
from stock_pipeline.config.launches import STARTED_BY, range_tags, window_tags, year_tags
from stock_pipeline.core.errors import PipelineError
from stock_pipeline.orchestration import backtesting, inputs, liveness, progress
from stock_pipeline.orchestration.bootstrap import open_instance
from stock_pipeline.orchestration.causes import cause
from stock_pipeline.orchestration.definitions import build_definitions
from stock_pipeline.orchestration.exclusive import parts, sole_writer
from stock_pipeline.orchestration.resources import Platform

FROM_HERE = {STARTED_BY: "command line", "dagster/max_retries": "0"}
"""Tags of runs of the command line: Dagster cannot start them again, for it does not know their code location."""

BLOCKED = "DagsterAssetCheckFailedError"
"""What Dagster calls a step that a blocking check of its own asset stopped."""


class RunFailed(PipelineError):
    """A step of a run failed, or a blocking check stopped it."""


@dataclass(frozen=True)
class Outcome:
    """What one run did: its id, seconds, and which steps computed something."""

    job: str
    run_id: str
    seconds: float
    computed: list[str] = field(default_factory=list)
    failed_checks: list[str] = field(default_factory=list)


class Runner:
    """Executes the jobs of one configuration.

    Parameters
    ----------
    settings
        The configuration.
    report
        Called with a line of progress whenever a step starts or ends.
    """

    def __init__(self, settings: Settings, report: Callable[[str], None] = lambda line: None) -> None:
        self.settings = settings
        self.report = report
        report(f"starting Dagster for the market {settings.market.name} ...")
        self.instance = open_instance(settings)
        self.platform = Platform(settings)
        self.definitions = build_definitions(self.platform)

    def catch_up(
        self, *, start: date | None = None, end: date | None = None, rebuild: bool = False, retrain: bool = False
    ) -> list[Outcome]:
        """Bring everything up to the newest session that the source has.

        Parameters
        ----------
        start, end
            Only these sessions.
        rebuild
            Compute the sessions again also where nothing changed.
        retrain
            Train and promote also when there is a champion. A champion that was trained on other features than are
            configured now cannot predict, so it counts as none.
        """
        champion = self.platform.model_registry.champion()
        has_champion = champion is not None and champion.feature_set_hash == self._feature_hash()
        data_job = "nightly" if has_champion and not retrain else "prepare"
        outcomes = [self.years(data_job, start, end, rebuild)]
        if data_job == "prepare":
            outcomes.append(self.named("weekly_retrain", self.settings.models.families))
        if backtesting.has_work(self.platform):
            outcomes.append(self.named("backtest", [s.name for s in self.settings.backtests.strategies]))
        return outcomes

    def _feature_hash(self) -> str | None:
        """Hash of the configured features; ``None`` before there are bars."""
        has_bars = self.platform.lake.exists(inputs.VALIDATED)
        return inputs.feature_hash(self.platform) if has_bars else None

    def years(self, job: str, start: date | None, end: date | None, rebuild: bool) -> Outcome:
        """Run a job of yearly partitions over the whole history, or the years of a range."""
        tags = year_tags(self.settings, start, end)
        return self.execute(job, tags | window_tags(start, end, rebuild))

    def named(self, job: str, names: Sequence[str]) -> Outcome:
        """Run a job whose partitions are names; `names` must be in the order of the configuration."""
        return self.execute(job, range_tags(names[0], names[-1]))

    def execute(self, job: str, tags: dict[str, str]) -> Outcome:
        """Run one job to its end.

        Raises
        ------
        RunFailed
            The run failed; the message names the step or the check and the cause.
        """
        resolved = self.definitions.resolve_job_def(job)
        with sole_writer(self.settings.home, parts(resolved.tags), self.report):
            return run_job(resolved, self.instance, tags, self.report)


def run_job(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    tags: dict[str, str],
    report: Callable[[str], None],
    run_config: Mapping[str, Any] | None = None,
) -> Outcome:
    """Execute a job in this process, recorded by the instance like any other run.

    Raises
    ------
    RunFailed
        The run failed; the message names the step or the check and the cause.
    """
    run_id, started = str(uuid.uuid4()), time.monotonic()
    instance.add_event_listener(run_id, _Narrator(report))
    result = job.execute_in_process(
        instance=instance,
        run_id=run_id,
        run_config={**(run_config or {}), "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags=tags | FROM_HERE | {liveness.HOST: socket.gethostname()},
        raise_on_error=False,
    )
    outcome = Outcome(job.name, result.run_id, time.monotonic() - started, _computed(result), _failed_checks(result))
    if not result.success:
        raise RunFailed(f"{job.name} failed, {_cause(result)} (run {result.run_id[:8]})")
    return outcome


class _Narrator:
    """Turns Dagster's events into lines of progress while a run goes on."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report

    def __call__(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            text = entry.user_message
            skipped = text.startswith("Dependencies for step") or progress.read(text) is not None
            if int(entry.level) >= logging.INFO and not skipped:
                self.report(entry.user_message)
        elif event.event_type == dg.DagsterEventType.STEP_START:
            self.report(f"{event.step_key} ...")


def _computed(result: dg.ExecuteInProcessResult) -> list[str]:
    """Tables that were written because something was new."""
    names = set()
    for event in result.get_asset_materialization_events():
        materialization = event.materialization
        if "up_to_date" not in materialization.metadata:
            names.add(materialization.asset_key.to_user_string())
    return sorted(names)


def _failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    return [
        f"{check.asset_key.to_user_string()}: {check.check_name}"
        for check in result.get_asset_check_evaluations()
        if not check.passed
    ]


def _cause(result: dg.ExecuteInProcessResult) -> str:
    blocking = [
        f"{check.asset_key.to_user_string()}: {check.check_name}"
        + (f" ({check.description})" if check.description else "")
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]
    for event in result.all_events:
        if event.is_step_failure:
            text = cause(event.step_failure_data.error).text
            if blocking and BLOCKED in text:
                return f"a check stopped it: {'; '.join(blocking)}"
            return f"at the step {event.step_key}: {text}"
    return f"look at the failed checks: {'; '.join(blocking)}" if blocking else "see the run in the Dagster web UI"
