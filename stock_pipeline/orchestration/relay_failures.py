"""Runs that could not be copied: remembered across restarts, and tried again with growing pauses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from stock_pipeline.storage.database import reading
from stock_pipeline.storage.database.tables.tasks import CounterRow
from stock_pipeline.storage.tasks.events import SEQUENCE, take_turn

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 600.0
"""Seconds before the first repetition, and between the later ones at most."""

_PREFIX = "relay:failed:"


class FailedRuns:
    """The runs that are still to be copied although the reading of changes has gone on behind them.

    Parameters
    ----------
    engine
        The metadata database, where each of them is a row beside the cursor until it is copied.
    clock
        Seconds that only grow.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine, self._clock = engine, clock
        self._pauses: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._due)

    def load(self) -> set[str]:
        """Read which runs an earlier relay could not copy; they are due at once."""
        names = select(CounterRow.name).where(CounterRow.name.startswith(_PREFIX, autoescape=True))
        with Session(reading(self._engine)) as session:
            found = {name.removeprefix(_PREFIX) for name in session.scalars(names)}
        self._due |= {run_id: self._clock() for run_id in found - self._due.keys()}
        return found

    def waits(self, run_id: str) -> bool:
        """Whether a run failed and is not to be tried again yet."""
        return self._clock() < self._due.get(run_id, float("-inf"))

    def add(self, run_id: str) -> float:
        """Remember that a run could not be copied; returns the seconds until it is tried again."""
        if run_id not in self._due:
            with Session(self._engine) as session, session.begin():
                take_turn(session, SEQUENCE)
                session.merge(CounterRow(name=_PREFIX + run_id, value=datetime.now(UTC).isoformat()))
        pause = min(self._pauses.get(run_id, FIRST_PAUSE / 2) * 2, LONGEST_PAUSE)
        self._pauses[run_id], self._due[run_id] = pause, self._clock() + pause
        return pause

    def discard(self, run_id: str) -> None:
        """Forget a run that was copied after all, or that is gone."""
        if run_id in self._due:
            with Session(self._engine) as session, session.begin():
                take_turn(session, SEQUENCE)
                session.execute(delete(CounterRow).where(CounterRow.name == _PREFIX + run_id))
            del self._due[run_id]
            self._pauses.pop(run_id, None)
