"""The tutorial is true: its commands are run as they stand, with the plug pulled in the middle."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from stock_pipeline.config import Settings
from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.running import Running, services_running

TUTORIAL = REPOSITORY / "docs" / "tutorial" / "a-team-at-work.md"
PART = re.compile(
    r"^<!-- test: (?P<mark>\w+) -->$|^```(?P<kind>bash|python) run(?:=(?P<file>\S+))?\n(?P<text>.*?)^```$", re.M | re.S
)


@pytest.mark.slow
@pytest.mark.requirement("R2.1", "R2.2", "R2.5", "R5.1", "R5.4", "R8.1", "R8.2", "R8.4", "V5")
def test_the_tutorial_runs_as_it_stands(copy_of_finished: Callable[[], Settings], tmp_path: Path) -> None:
    settings = copy_of_finished()
    folder = tmp_path / "alice"
    folder.mkdir()
    with ExitStack() as stack:
        running = stack.enter_context(services_running(settings.config_file, tmp_path / "dev.log"))
        ports = _ports(running)
        for mark, file, text in _parts():
            if mark == "kill":
                _kill(running)
            elif mark == "start":
                running = stack.enter_context(
                    services_running(settings.config_file, tmp_path / "again.log", ports=ports)
                )
            elif file:
                (folder / file).write_text(text)
            else:
                _run(text, folder, running, settings)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    states = [event["state"] for event in events if event["kind"] == "task.state"]
    assert states[0] == "queued"
    assert "retrying" in states, "the plug was pulled while it ran"
    assert states[-1] == "succeeded"
    assert len({event["sequence"] for event in events}) == len(events)
    assert json.loads((folder / "ended.json").read_text())["attempts"] == 2


def _parts() -> Iterator[tuple[str | None, str | None, str]]:
    for found in PART.finditer(TUTORIAL.read_text()):
        yield found["mark"], found["file"], found["text"] or ""


def _run(text: str, folder: Path, running: Running, settings: Settings) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("STOCK_PIPELINE_HOME", "DAGSTER_HOME")},
        "API": running.api.rstrip("/"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "STOCK_PIPELINE_CONFIG": str(settings.config_file),
    }
    log = folder / "shell.log"
    with log.open("ab") as output:  # not a pipe: what is left running in the background would keep it open
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder, env=environment, stdout=output, stderr=output, timeout=240,
        )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{log.read_text()[-3000:]}"


def _ports(running: Running) -> dict[str, int]:
    address = {"dagster": running.dagster, "mlflow": running.mlflow, "api": running.api}
    return {name: int(url.rstrip("/").rsplit(":", 1)[1]) for name, url in address.items()}


def _kill(running: Running) -> None:
    """Everything at once and without warning, the run's process included."""
    family = running.family()
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=20)
