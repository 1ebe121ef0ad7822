"""Everything that the routes work with, made once a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stock_pipeline.access.facade import Access
from stock_pipeline.api.dagster_client import DagsterClient, RunControl
from stock_pipeline.api.reading.backtests import Results
from stock_pipeline.api.reading.market import Market
from stock_pipeline.api.reading.models import Models
from stock_pipeline.api.task_checks import RequestChecks
from stock_pipeline.api.task_service import TaskService
from stock_pipeline.config import Settings, addresses
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.storage.outbox import AlertOutbox
from stock_pipeline.storage.publication import PublicationCache
from stock_pipeline.storage.stores import Stores
from stock_pipeline.storage.tasks import EventLog, TaskStore
from stock_pipeline.storage.tasks.wake import Waker


@dataclass
class Service(Stores):
    """The parts of one running service; each is made when first used.

    Attributes
    ----------
    settings
        The configuration.
    """

    settings: Settings

    @cached_property
    def publications(self) -> PublicationCache:
        """The newest publication, in memory."""
        return PublicationCache(self.lake)

    @cached_property
    def alert_outbox(self) -> AlertOutbox:
        """Alerts."""
        return AlertOutbox(self.database)

    @cached_property
    def events(self) -> EventLog:
        """The stream of events."""
        return EventLog(self.database)

    @cached_property
    def runs(self) -> RunControl:
        """What launches and ends runs: Dagster's web server."""
        return DagsterClient(addresses.dagster(self.settings))

    @cached_property
    def tasks(self) -> TaskService:
        """Tasks."""
        checks = RequestChecks(self.settings, self.lake, self.publications)
        return TaskService(self.settings, TaskStore(self.database), self.runs, checks, self.waker.wake)

    @cached_property
    def waker(self) -> Waker:
        """What tells other processes of new events."""
        return Waker(self.settings.access.redis)

    @cached_property
    def access(self) -> Access:
        """Who may come in, and what they may do."""
        return Access(
            self.database,
            self.settings.access,
            self.settings.home,
            environment=self.settings.environment,
            outbox=self.alert_outbox,
            timezone=SessionCalendar(self.settings.market.calendar).timezone,
        )

    @cached_property
    def market(self) -> Market:
        """What the tables say about the market."""
        return Market(self.lake)

    @cached_property
    def models(self) -> Models:
        """Versions of models, and decisions about them."""
        return Models(self.model_registry, self.settings, self.lake)

    @cached_property
    def backtests(self) -> Results:
        """Results of back-tests."""
        return Results(self.reports)

    @property
    def reports(self) -> Path:
        """Folder of the reports that people open."""
        return self.settings.home / "reports"

    def close(self) -> None:
        """Let go of all connections; what is used afterwards makes new ones."""
        made = vars(self)
        if isinstance(made.get("runs"), DagsterClient):
            made.pop("runs").close()
            made.pop("tasks", None)  # it holds the client
        if "waker" in made:
            self.waker.close()
        if "database" in made:
            self.database.dispose()
