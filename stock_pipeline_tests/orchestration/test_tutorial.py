"""The tutorial and the ten usual jobs are true: their commands are run as they stand, on real services."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from stock_pipeline.config import Settings
from stock_pipeline_tests import documents
from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.running import Running, services_running

TUTORIAL = REPOSITORY / "docs" / "tutorial" / "a-team-at-work.md"
JOBS = REPOSITORY / "docs" / "how-to" / "use-the-api.md"

pytestmark = [pytest.mark.slow]


@pytest.mark.requirement("R2.1", "R2.2", "R2.5", "R5.1", "R5.4", "R8.1", "R8.2", "R8.4", "V5")
def test_the_tutorial_runs_as_it_stands(copy_of_finished: Callable[[], Settings], tmp_path: Path) -> None:
    settings = copy_of_finished()
    folder = tmp_path / "alice"
    folder.mkdir()
    with ExitStack() as stack:
        running = stack.enter_context(services_running(settings.config_file, tmp_path / "dev.log"))
        ports = _ports(running)
        for part in documents.parts(TUTORIAL):
            if part.mark == "kill":
                _kill(running)
            elif part.mark == "start":
                running = stack.enter_context(
                    services_running(settings.config_file, tmp_path / "again.log", ports=ports)
                )
            else:
                documents.run(part, folder, running, settings)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    states = [event["state"] for event in events if event["kind"] == "task.state"]
    assert states[0] == "queued"
    assert "retrying" in states, "the plug was pulled while it ran"
    assert states[-1] == "succeeded"
    assert len({event["sequence"] for event in events}) == len(events)
    assert json.loads((folder / "ended.json").read_text())["attempts"] == 2


@pytest.mark.requirement("A1", "A2", "A3", "A4", "A5", "A6", "R1.2", "R2.1", "R2.3", "R8.1", "R8.4")
def test_the_ten_usual_jobs_run_as_they_stand(copy_of_finished: Callable[[], Settings], tmp_path: Path) -> None:
    settings = copy_of_finished()
    folder = tmp_path / "ana"
    folder.mkdir()
    with services_running(settings.config_file, tmp_path / "dev.log") as running:
        shell = documents.environment(running, settings)
        for name, role, password in (
            ("ana", "operator", "four blue kites over dover"),
            ("ada", "administrator", "seven tall ships sail 1851"),
        ):
            subprocess.run(
                ["stock-pipeline", "users", "create", name, "--role", role, "--password-stdin"],
                input=password, text=True, check=True, env=shell, cwd=folder,
            )  # fmt: skip
        for part in documents.parts(JOBS):
            documents.run(part, folder, running, settings)
    assert b"<html" in (folder / "report.html").read_bytes()


def _ports(running: Running) -> dict[str, int]:
    address = {"dagster": running.dagster, "mlflow": running.mlflow, "api": running.api}
    return {name: int(url.rstrip("/").rsplit(":", 1)[1]) for name, url in address.items()}


def _kill(running: Running) -> None:
    """Everything at once and without warning, the run's process included."""
    family = running.family()
    for process in family:
        with suppress(psutil.NoSuchProcess):  # it has ended by itself
            process.suspend()  # what stands still starts nothing between the look at its children and its end
            family += [child for child in process.children(recursive=True) if child not in family]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    alive = psutil.wait_procs(family, timeout=120)[1]
    assert not alive, alive
