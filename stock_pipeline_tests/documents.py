"""Runs the commands of a document as they stand: blocks ```` ```bash run ```` and ```` ```python run ````."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stock_pipeline.config import Settings
from stock_pipeline_tests.conftest import REPOSITORY
from stock_pipeline_tests.running import Running

_PART = re.compile(
    r"^<!-- test: (?P<mark>\w+) -->$|^```(?P<kind>bash|python) run(?:=(?P<file>\S+))?\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Part:
    """A mark ``<!-- test: ... -->`` for the test, or a block: a file to write where it has a name, else to be run."""

    mark: str | None
    kind: str | None
    file: str | None
    text: str


def parts(document: Path) -> Iterator[Part]:
    """The marks and blocks of a document in their order."""
    for found in _PART.finditer(document.read_text()):
        yield Part(found["mark"], found["kind"], found["file"], found["text"] or "")


def run(part: Part, folder: Path, running: Running, settings: Settings) -> None:
    """Write or run one block in a folder, with the address of running services in ``API``."""
    if part.file:
        (folder / part.file).write_text(part.text)
        return
    command = (
        ["bash", "-euo", "pipefail", "-c", part.text] if part.kind == "bash" else [sys.executable, "-c", part.text]
    )
    log = folder / "shell.log"
    with log.open("ab") as output:  # not a pipe: what is left running in the background would keep it open
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(running, settings),
            stdout=output,
            stderr=output,
            timeout=600,
        )
    assert done.returncode == 0, f"{part.text}\n{log.read_text(errors='replace')[-3000:]}"


def environment(running: Running, settings: Settings) -> dict[str, str]:
    """What a shell of somebody who uses these services has set."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("STOCK_PIPELINE_HOME", "DAGSTER_HOME")
    }
    return {
        **inherited,
        "API": running.api.rstrip("/"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "STOCK_PIPELINE_CONFIG": str(settings.config_file),
    }
