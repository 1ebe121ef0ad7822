"""What the assets work with, made from the settings: lake, source, model registry, calendar, alert outbox.

Parts are named by their role.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from stock_pipeline.config import addresses
from stock_pipeline.config.settings import Settings
from stock_pipeline.core.market.calendar import SessionCalendar
from stock_pipeline.storage.raw_bars import RawBars
from stock_pipeline.storage.stores import Stores
from stock_pipeline.storage.watermarks import Watermarks

if TYPE_CHECKING:
    from stock_pipeline.sources.protocol import Source
    from stock_pipeline.storage.outbox import AlertOutbox


@dataclass(frozen=True)
class Platform(Stores):
    """Everything that is made from one `Settings`; parts are made when first used."""

    settings: Settings

    @cached_property
    def raw_bars(self) -> RawBars:
        """Raw bars as they came."""
        return RawBars(self.lake)

    @cached_property
    def watermarks(self) -> Watermarks:
        """What is new."""
        return Watermarks(self.lake)

    @cached_property
    def calendar(self) -> SessionCalendar:
        """Sessions of the market's exchange."""
        return SessionCalendar(self.settings.market.calendar)

    @cached_property
    def source(self) -> Source:
        """Where prices come from."""
        from stock_pipeline.sources import build

        return build(self.settings.source, calendar=self.calendar, currency=self.settings.market.currency)

    @cached_property
    def alert_outbox(self) -> AlertOutbox:
        """Where alerts wait until they are delivered."""
        from stock_pipeline.storage.outbox import AlertOutbox, DeliveryPolicy

        alerts = self.settings.alerts
        policy = DeliveryPolicy(
            group=timedelta(minutes=alerts.group_minutes), suppress=timedelta(minutes=alerts.suppress_minutes)
        )
        return AlertOutbox(self.database, policy)

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow UI for people."""
        return addresses.mlflow_page(self.settings)

    @property
    def reports(self) -> Path:
        """Folder of the HTML reports."""
        folder = self.settings.home / "reports"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
