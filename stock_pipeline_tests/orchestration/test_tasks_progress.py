"""Progress lines, estimates, advice and work files: the small parts of tasks."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from stock_pipeline.core.backtesting.run import run_backtest
from stock_pipeline.core.errors import NotFoundError
from stock_pipeline.orchestration import work_files
from stock_pipeline.orchestration.advice import RULES, next_step
from stock_pipeline.orchestration.causes import Cause
from stock_pipeline.orchestration.estimates import Durations, Estimates, durations
from stock_pipeline.orchestration.progress import Part, Reporter, read, write
from stock_pipeline.storage.database.tables.tasks import TaskRow, TaskRunRow
from stock_pipeline.storage.tasks import Launched, TaskStore

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=40)


@pytest.mark.requirement("R2.3", "R5.3")
@given(unit=st.from_regex(r"[a-z]+", fullmatch=True), done=st.integers(0), total=st.integers(0), of=st.none() | WORDS)
def test_what_is_written_is_read(unit: str, done: int, total: int, of: str | None) -> None:
    part = Part(unit, done, total, of)
    assert read(write(part)) == part


@given(st.text())
def test_other_lines_are_no_progress(text: str) -> None:
    assert read(text) is None
    assert read(f"lightgbm: fold 1 of 2 done {text}") is None


@pytest.mark.requirement("R5.3")
@given(pauses=st.lists(st.floats(0, 3), min_size=1, max_size=50))
def test_lines_are_throttled_and_the_last_one_is_written(pauses: list[float]) -> None:
    now, lines = [0.0], list[tuple[float, str]]()
    report = Reporter(lambda line: lines.append((now[0], line)), clock=lambda: now[0])
    for number, pause in enumerate(pauses, start=1):
        now[0] += pause
        report("year", number, len(pauses), "table")
    parts = [read(line) for _, line in lines]
    assert parts[-1] == Part("year", len(pauses), len(pauses), "table")
    moments = [moment for moment, _ in lines[:-1]]
    assert all(later - earlier >= 0.999 for earlier, later in itertools.pairwise(moments))


@pytest.mark.requirement("R2.3", "R5.2")
def test_estimates_are_medians_of_the_newest_runs_of_the_job(database: Engine) -> None:
    store, clock = TaskStore(database), [0.0]
    estimates = Estimates(clock=lambda: clock[0])

    def ended(number: int, seconds: float, status: str = "SUCCESS") -> None:
        at = START + timedelta(hours=number)
        store.enter(Launched(f"run-{number}", "train", "weekly_retrain", at))
        with Session(database) as session, session.begin():
            row = session.get_one(TaskRunRow, f"run-{number}")
            row.status, row.step_seconds = status, {"fit": seconds, "score": 1.0}
            row.started_at, row.ended_at = at, at + timedelta(seconds=seconds + 3)
            session.get_one(TaskRow, f"run-{number}").state = "succeeded"

    with Session(database) as session:
        assert estimates.of(session, "weekly_retrain") == Durations({}, None)
        assert Durations().end(START, {"fit"}, 2) is None
    for number in range(25):
        ended(number, 1000.0 if number < 5 else 10.0 + number % 3)
    ended(30, 5000.0, "FAILURE")
    with Session(database) as session:
        found = durations(session, "weekly_retrain")
        assert found == Durations({"fit": 11.0, "score": 1.0}, 14.0), "the old and the failed do not count"
        assert estimates.of(session, "weekly_retrain") == Durations({}, None), "read now and then"
        estimates.forget("weekly_retrain")
        assert estimates.of(session, "weekly_retrain") == found
        assert durations(session, "nightly") == Durations({}, None)
    assert found.end(START, {"fit", "score"}, 2) == START + timedelta(seconds=12)
    assert found.end(START, {"score"}, 2) == START + timedelta(seconds=1)
    assert found.end(START, set(), 2) == START
    assert found.end(START, {"unheard of"}, 2) == START + timedelta(seconds=7), "shared out evenly"


@pytest.mark.requirement("R5.5", "R2.5")
@pytest.mark.parametrize(
    ("kind", "cause", "action"),
    [
        ("NotFoundError", "there are no bars yet; to fix it: run `stock-pipeline run` first", "run-first"),
        ("NotFoundError", "there are no bars of these symbols: ['X']; allowed: A", "correct-symbols"),
        (None, "Exceeded maximum runtime of 3600 seconds.", "raise-time-limit"),
        (None, "its process is gone: it was killed, or the machine or the services were restarted", "retry"),
        (None, "Execution was interrupted unexpectedly.", "retry"),
        (None, "This run has been marked as failed from outside the execution context.", "retry"),
        ("PipelineError", "the strategy needs a model, and no champion has out-of-sample predictions", "train-first"),
        ("DataError", "too few sessions: 3; allowed: at least 250", "widen-history"),
        ("ConfigurationError", "fast (100) must be smaller than slow (50): 1; to fix it: lower fast", "fix-parameters"),
        ("ConfigurationError", "no such family: 'x'; allowed: ridge", "fix-parameters"),
        ("PipelineError", "another process has held the lock for more than 60 s; to fix it: wait", "retry-later"),
        ("NotFoundError", "what an earlier step left is gone; to fix it: repeat the whole task", "follow-advice"),
        ("IntegrityError", "it was made by a newer version: 9; to fix it: update the package", "follow-advice"),
        ("PipelineError", "cannot write: 'a'; to fix it: No space left on device", "free-space"),
        (None, "[Errno 28] No space left on device", "free-space"),
        (None, "Connection refused", "retry-later"),
        (None, "ValueError: kaput", "look-at-log"),
    ],
)
def test_each_failure_has_its_next_step(kind: str | None, cause: str, action: str) -> None:
    found = next_step(Cause(cause, kind), [])
    assert found["action"] == action
    assert found["text"]
    assert "{" not in found["text"]


@pytest.mark.requirement("R5.5")
def test_checks_and_repetitions_come_before_causes() -> None:
    checks = [{"check": "fresh", "asset": "market/bars"}, {"check": "whole", "asset": "market/bars"}]
    found = next_step(Cause("there are no bars yet; ...", "DataError"), checks)
    assert found["action"] == "look-at-check"
    assert "fresh of market/bars (and 1 more)" in found["text"]
    assert next_step(Cause("anything", None), checks, will_retry=True)["action"] == "wait"
    assert next_step(Cause("to fix it: lower fast", "ConfigurationError"), [])["text"] == "lower fast"
    assert len({(rule.pattern, rule.only) for rule in RULES}) == len(RULES)


@pytest.mark.requirement("R2.3")
def test_a_result_passes_from_step_to_step_unchanged(tmp_path: Path) -> None:
    days = [datetime(2024, 1, 1).date() + timedelta(days=n) for n in range(300)]
    price = [100 + (n % 37) - (n % 11) for n in range(300)]
    bars = pl.DataFrame({"symbol": ["A"] * 300, "session": days}).with_columns(
        *(pl.Series(name, price, dtype=pl.Float64) for name in ("open", "high", "low", "close", "adj_close")),
        volume=pl.lit(1e6), currency=pl.lit("USD"),
    )  # fmt: skip
    result = run_backtest("sma_cross", {"fast": 5, "slow": 20}, bars)
    work_files.save_result(tmp_path, "simulated", result)
    again = work_files.load_result(tmp_path, "simulated")
    assert again.to_json() == result.to_json()
    for name, frame in result.to_frames().items():
        assert frame.equals(again.to_frames()[name]), name
    assert again.settings == result.settings
    with pytest.raises(NotFoundError, match="repeat the whole task"):
        work_files.load_result(tmp_path, "judged")
    with pytest.raises(NotFoundError, match="repeat the whole task"):
        work_files.read_frame(tmp_path / "nothing.parquet")


def test_work_of_tasks_that_nobody_resumed_is_removed(tmp_path: Path) -> None:
    kept = work_files.folder(tmp_path, "kept")
    work_files.write_text(kept / "name.txt", "x")
    assert work_files.remove_old(tmp_path, datetime.now(UTC) - timedelta(days=1)) == 0
    assert work_files.remove_old(tmp_path, datetime.now(UTC) + timedelta(days=1)) == 1
    assert not kept.exists()
    work_files.remove(tmp_path, "never there")
