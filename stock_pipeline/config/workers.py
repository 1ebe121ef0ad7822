"""What stands under ``tasks.workers``: work that leaves the machine, and what everything must be for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from stock_pipeline.config.storage import from_variable
from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.parameters import Parameters

if TYPE_CHECKING:
    from stock_pipeline.config.settings import Settings

REDIS = ("redis://", "rediss://")


class WorkerSettings(Parameters):
    """Runs are done by Celery workers, on this machine or others, instead of by Dagster's code server."""

    broker: str = Field(
        pattern=r"^(env:|rediss?://)",
        repr=False,
        description="Redis that hands runs to the workers, such as env:PIPELINE_REDIS",
    )
    slots: int = Field(3, ge=1, le=256, description="runs that one worker does at a time")
    start_minutes: int = Field(
        60, ge=1, le=10_080, description="a run that no worker has begun after so long has failed"
    )

    def address(self, environment: Mapping[str, str]) -> str:
        """Address of the broker.

        Raises
        ------
        ConfigurationError
            It is ``env:NAME`` and there is no such variable, or it is no address of a Redis.
        """
        address = from_variable(self.broker, "tasks.workers.broker", environment)
        if not address.startswith(REDIS):
            raise ConfigurationError(
                "tasks.workers.broker is not the address of a Redis",
                value=self.broker,
                allowed="redis://[:password@]host:port/number, or rediss:// with TLS",
            )
        return address


def check_shared(settings: Settings) -> None:
    """Check that workers can share what they write.

    Parameters
    ----------
    settings
        Resolved.

    Raises
    ------
    ConfigurationError
        There are workers, and Dagster's history or the metadata are in SQLite, a file of one machine.
    """
    if settings.tasks.workers is None:
        return
    alone = [
        key
        for key, sqlite in (
            ("storage.dagster", settings.storage.dagster is None),
            ("storage.metadata", settings.storage.metadata_url.startswith("sqlite")),
        )
        if sqlite
    ]
    if alone:
        raise ConfigurationError(
            f"workers (tasks.workers) cannot share SQLite, in which {' and '.join(alone)} would be",
            allowed="env:NAME of a variable that holds postgresql+psycopg2://user:password@host/database",
            fix=f"set {' and '.join(alone)}, or leave tasks.workers out",
        )
