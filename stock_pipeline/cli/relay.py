"""The command that copies runs into tasks and events."""

from __future__ import annotations

import signal
import threading

import typer

from stock_pipeline.cli.app import Context, app
from stock_pipeline.cli.console import err


@app.command()
def relay(context: typer.Context) -> None:
    """Copy what Dagster's runs do into tasks and events, until Ctrl-C; `dev` starts it too. A second one waits."""
    from stock_pipeline.config.home import claim_home
    from stock_pipeline.orchestration.relay import serve

    given: Context = context.obj
    settings = given.settings()
    claim_home(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    serve(settings, stop, lambda text: err.print(text, markup=False))
