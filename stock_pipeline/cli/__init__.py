"""The command line ``stock-pipeline``: thin, one function a command; heavy parts are imported when needed."""

from stock_pipeline.cli.app import main

__all__ = ["main"]
