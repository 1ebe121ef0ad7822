"""The tables of the metadata database, one module a subject. Times are UTC."""

from stock_pipeline.storage.database.tables import accounts, alerts, tasks
from stock_pipeline.storage.database.tables.base import Base, UtcDateTime

__all__ = ["Base", "UtcDateTime", "accounts", "alerts", "tasks"]
