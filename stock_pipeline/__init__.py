"""A Dagster data and machine-learning pipeline for stocks.

``core`` holds the mathematics (pure functions on frames), ``orchestration`` the Dagster shell around it,
``storage`` the lake and the model registry, ``api`` the service that reads what was published.
"""

__version__ = "0.1.0"
