"""The metadata database: state that is neither market data (the lake) nor models (MLflow) nor runs (Dagster).

SQLite by default, Postgres by configuration. Tables are in ``tables``, their history in ``migrations``.
"""

from stock_pipeline.storage.database.away import AWAY, away
from stock_pipeline.storage.database.engine import open_database, parse, reading, transaction

__all__ = ["AWAY", "away", "open_database", "parse", "reading", "transaction"]
