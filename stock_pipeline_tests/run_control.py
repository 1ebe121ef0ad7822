"""Something that launches runs at once and remembers them, for tests of what the service makes of requests.

It keeps the promises of `api.dagster_client.RunControl`, and can be told to break down as Dagster's web server does.
What Dagster itself does with runs is shown where all services really run.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from stock_pipeline.api.dagster_client import FoundRun, Strategy, UnavailableError, UncertainError


class Runs:
    """Runs in memory.

    Attributes
    ----------
    down
        Whether it cannot be reached.
    lost
        Whether it does what it is asked, and the answer does not arrive.
    terminated, deleted
        Runs that it was told to end, and to delete.
    """

    def __init__(self) -> None:
        self.runs: dict[str, FoundRun] = {}
        self.configs: dict[str, Mapping[str, Any]] = {}
        self.repeated: list[tuple[str, str]] = []
        self.terminated: list[str] = []
        self.deleted: list[str] = []
        self.down = self.lost = False
        self.gate = threading.Event()
        self.gate.set()

    def launch(self, job: str, run_config: Mapping[str, Any], tags: Mapping[str, str]) -> FoundRun:
        self._reached()
        assert self.gate.wait(300), "nobody has opened the gate"
        run = FoundRun(str(uuid.uuid4()), "QUEUED", job, None, datetime.now(UTC), dict(tags))
        self.runs[run.run_id], self.configs[run.run_id] = run, run_config
        self._answered()
        return run

    def repeat(self, run_id: str, strategy: Strategy, tags: Mapping[str, str]) -> FoundRun:
        self._reached()
        parent = self.runs[run_id]
        root = parent.root_run_id or parent.run_id
        run = FoundRun(str(uuid.uuid4()), "QUEUED", parent.job, root, datetime.now(UTC), {**parent.tags, **tags})
        self.runs[run.run_id] = run
        self.repeated.append((run_id, strategy))
        self._answered()
        return run

    def terminate(self, run_id: str) -> bool:
        self._reached()
        self.terminated.append(run_id)
        return run_id in self.runs

    def delete(self, run_id: str) -> None:
        self._reached()
        self.runs.pop(run_id, None)
        self.deleted.append(run_id)

    def find(self, tags: Mapping[str, str]) -> list[FoundRun]:
        self._reached()
        known = list(self.runs.values())  # as they are now: another thread may launch one meanwhile
        return [run for run in reversed(known) if tags.items() <= run.tags.items()]

    def get(self, run_id: str) -> FoundRun | None:
        self._reached()
        return self.runs.get(run_id)

    def health(self) -> str:
        self._reached()
        return "test"

    def _reached(self) -> None:
        if self.down:
            raise UnavailableError("nothing answers at its address")

    def _answered(self) -> None:
        if self.lost:
            raise UncertainError("it did not answer in time; what was asked may still happen")
