"""The stores of one configuration, each opened when first used; the service and the pipeline open them the same way."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from stock_pipeline.config.settings import Settings
from stock_pipeline.storage.lake import Lake

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from stock_pipeline.storage.model_registry import ModelRegistry


class Stores:
    """Tables, models and metadata of a configuration; base of what works with them."""

    settings: Settings

    @cached_property
    def lake(self) -> Lake:
        """The tables."""
        return Lake(self.settings.storage.lake_uri, self.settings.storage.options or None)

    @cached_property
    def database(self) -> Engine:
        """The metadata database."""
        from stock_pipeline.storage.database import open_database

        return open_database(self.settings.storage.metadata_url)

    @cached_property
    def model_registry(self) -> ModelRegistry:
        """The model store."""
        from stock_pipeline.storage.model_registry import ModelRegistry

        return ModelRegistry(
            tracking_uri=self.settings.storage.mlflow_uri,
            artifact_root=self.settings.storage.artifacts_uri,
            name=self.settings.market.name,
        )
