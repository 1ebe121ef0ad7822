"""Work on request as the service launches it: real jobs of a real market, paused, resumed, and told by the relay."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run_iterator
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import filter_runs_to_should_retry

from stock_pipeline.config import Settings
from stock_pipeline.config.launches import OWNER, LaunchSpec, launch_spec
from stock_pipeline.config.tasks import BacktestRequest, PredictRequest
from stock_pipeline.orchestration.bootstrap import open_instance
from stock_pipeline.orchestration.definitions import build_definitions
from stock_pipeline.orchestration.on_request import backtest_strategy
from stock_pipeline.orchestration.relay import Relay
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.storage.tasks import EventFilter, EventLog, Task, TaskStore
from stock_pipeline_tests.task_runs import QUIET, states_of


class Market:
    """The small market with its Dagster instance and its relay; runs are executed in this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.platform = settings, Platform(settings)
        self.instance = open_instance(settings)
        self.definitions = build_definitions(self.platform)
        self.store, self.events = TaskStore(self.platform.database), EventLog(self.platform.database)
        self.relay = Relay(self.instance, self.platform.database)

    def launch(self, spec: LaunchSpec) -> dg.DagsterRun:
        job = self.definitions.resolve_job_def(spec.job)
        config = {**spec.run_config, **QUIET}
        tags = {**job.tags, **spec.tags, OWNER: "ann"}
        return self.instance.create_run_for_job(job, run_config=config, tags=tags)

    def repeat(self, run_id: str) -> dg.DagsterRun:
        parent = self.instance.get_run_by_id(run_id)
        assert parent is not None
        job = self.definitions.resolve_job_def(parent.job_name)
        steps, state = KnownExecutionState.build_resume_retry_reexecution(self.instance, parent)
        plan = create_execution_plan(job, parent.run_config, steps, state, tags=parent.tags)
        root = parent.root_run_id or run_id
        return self.instance.create_run_for_job(
            job, plan, run_config=parent.run_config, tags=parent.tags, root_run_id=root, parent_run_id=run_id
        )

    def execute(self, run: dg.DagsterRun, after_step: Callable[[str], Any] = lambda step: None) -> list[str]:
        """Execute a run; gives the steps that succeeded."""
        done = []
        for event in execute_run_iterator(
            InMemoryJob(self.definitions.resolve_job_def(run.job_name)), run, self.instance
        ):
            if event.is_step_success:
                done.append(str(event.step_key))
                after_step(str(event.step_key))
        self.relay.poll()
        return done

    def task(self, task_id: str) -> Task:
        found = self.store.get(task_id)
        assert found is not None
        return found


@pytest.fixture
def market(copy_of_finished: Callable[[], Settings]) -> Iterator[Market]:
    made = Market(copy_of_finished())
    yield made
    made.instance.dispose()


@pytest.mark.requirement("R2.1", "R2.3", "R2.4", "R5.2", "R5.4")
def test_a_backtest_is_paused_between_steps_and_goes_on_without_repeating_them(market: Market) -> None:
    request = BacktestRequest(strategy="sma_cross", parameters={"fast": 5, "slow": 30})
    run = market.launch(launch_spec(market.settings, "backtest", request, priority="high"))

    def pause_after_simulation(step: str) -> None:
        market.relay.poll()
        if step == "simulate":
            assert market.task(run.run_id).state == "running"
            assert market.store.ask(run.run_id, "pause", "ann").state == "pausing"

    assert market.execute(run, pause_after_simulation) == ["check_request", "simulate"]
    paused = market.task(run.run_id)
    assert (paused.state, paused.steps_done, paused.steps_total) == ("paused", 2, 4)
    assert (paused.kind, paused.owner, paused.priority, paused.origin) == ("backtest", "ann", "high", "api")
    assert paused.parameters == {
        "strategy": "sma_cross", "parameters": {"fast": 5, "slow": 30}, "start": None, "end": None,
    }  # fmt: skip
    place = market.settings.home / "work" / run.run_id
    assert place.is_dir()

    market.store.ask(run.run_id, "resume", "ann")
    again = market.repeat(run.run_id)
    other = Market(market.settings)  # all of it is opened anew, as in another process
    assert other.execute(again) == ["judge", "write_report"]
    ended = market.task(run.run_id)
    assert (ended.state, ended.steps_done, ended.attempts, ended.run_id) == ("succeeded", 4, 2, again.run_id)
    assert not place.exists()
    assert ended.result is not None
    report = market.platform.reports / "backtests" / "on_request" / f"{ended.result['id']}.json"
    kept = json.loads(report.read_text(encoding="utf-8"))
    assert ended.result["sharpe"] == kept["metrics"]["sharpe"]
    assert ended.result["trades"] == len(kept["trades"]) > 0
    whole, page = backtest_strategy(market.settings, "sma_cross", {"fast": 5, "slow": 30}, None, None)
    assert page == report.with_suffix(".html"), "the same inputs have the same report"
    assert {**whole.metrics} == kept["metrics"], "paused or not makes no difference"

    events = market.events.after(0, limit=1000, filters=EventFilter(tasks=(run.run_id,)))
    assert states_of(events, run.run_id) == [
        "queued", "running", "pausing", "paused", "queued", "running", "succeeded",
    ]  # fmt: skip
    assert events[-1].data["result"] == ended.result
    # the next one has an estimate from the start, and so has its first event
    market.relay.poll()
    third = market.launch(launch_spec(market.settings, "backtest", request))
    market.execute(third)
    started = next(
        event
        for event in market.events.after(0, limit=1000, filters=EventFilter(tasks=(third.run_id,)))
        if event.state == "running"
    )
    assert started.data["expected_end"] is not None


@pytest.mark.requirement("R2.3", "R2.5", "V2")
def test_a_canceled_run_is_not_started_again_although_dagster_finds_its_process_gone(market: Market) -> None:
    request = BacktestRequest(strategy="sma_cross", parameters={"fast": 5, "slow": 30})
    run = market.launch(launch_spec(market.settings, "backtest", request))

    def cancel_after_the_check(step: str) -> None:
        market.relay.poll()
        if step == "check_request":
            market.store.ask(run.run_id, "cancel", "ann")

    assert market.execute(run, cancel_after_the_check) == ["check_request"]
    assert market.task(run.run_id).state == "canceled"
    # the request to end it was under way as well, and the launcher then misses the process
    market.instance.report_run_canceling(run)
    market.instance.report_run_failed(run, "its process is gone")
    market.relay.poll()
    failed = market.instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert not list(filter_runs_to_should_retry([failed], market.instance))
    assert market.task(run.run_id).state == "canceled"
    first = run.tags["dagster/max_retries"]
    assert int(first) > 0
    assert failed.tags["stock_pipeline/max_retries"] == first, "a retry by hand has its automatic retries again"


@pytest.mark.requirement("R2.1", "R5.4", "R5.5", "R2.5")
def test_predictions_on_request_are_kept_with_the_reasons_of_the_others(market: Market) -> None:
    run = market.launch(launch_spec(market.settings, "predict", PredictRequest(symbols=["AAPL", "NFLX"])))
    assert market.execute(run) == ["check_symbols", "predict", "write_predictions"]
    task = market.task(run.run_id)
    assert task.state == "succeeded"
    assert task.result == {"symbols": 2, "predicted": 2, "unpredicted": {}}
    kept = json.loads((market.platform.reports / "predictions" / f"{run.run_id}.json").read_text(encoding="utf-8"))
    assert {row["symbol"] for row in kept["predictions"]} == {"AAPL", "NFLX"}
    wrong = market.launch(launch_spec(market.settings, "predict", PredictRequest(symbols=["NOPE"])))
    assert market.execute(wrong) == []
    failed = market.task(wrong.run_id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["step"] == "check_symbols"
    assert "there are no bars of these symbols: ['NOPE']" in failed.error["cause"]
    assert failed.error["next"]["action"] == "correct-symbols"
    (told,) = market.events.after(0, limit=10, filters=EventFilter(tasks=(wrong.run_id,), severities=("error",)))
    assert (told.state, told.data["error"]) == ("failed", failed.error)


@pytest.mark.requirement("R2.1", "R5.4")
def test_runs_of_the_command_line_are_tasks_and_publications_are_events(market: Market) -> None:
    market.relay.poll()
    tasks = {task.job: task for task in market.store.list()}
    assert {job: (task.kind, task.state, task.origin) for job, task in tasks.items()} == {
        "prepare": ("backfill", "succeeded", "command line"),
        "weekly_retrain": ("train", "succeeded", "command line"),
        "backtest": ("backtests", "succeeded", "command line"),
    }
    trained, prepared = tasks["weekly_retrain"].result, tasks["prepare"].result
    assert trained is not None
    assert prepared is not None
    assert trained["champion"] == market.platform.model_registry.champion().version  # type: ignore[union-attr]
    assert (trained["promoted"], trained["session"], trained["published"]) == (True, "2021-06-30", 4)
    assert prepared["last"] == "2021-06-30"
    assert prepared["sessions"] > 1300
    (published,) = market.events.after(0, limit=10, filters=EventFilter(kinds=("publication",)))
    assert published.data["session"] == "2021-06-30"
    assert published.run_id == tasks["weekly_retrain"].run_id
    told = market.events.after(0, limit=1000, filters=EventFilter(tasks=(tasks["weekly_retrain"].id,)))
    parts = [event.data["part"] for event in told if event.kind == "task.progress" and event.data["part"]]
    assert {"unit": "fold", "done": 3, "total": 3, "of": "lightgbm"} in parts
