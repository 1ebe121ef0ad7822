"""The command that does runs for all machines."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from stock_pipeline.cli.app import Context, app
from stock_pipeline.core.errors import ConfigurationError


@app.command()
def worker(
    context: typer.Context,
    slots: Annotated[int | None, typer.Option(min=1, help="Runs at a time, instead of tasks.workers.slots.")] = None,
) -> None:
    """Do runs that the queue hands out through Redis, until Ctrl-C; one on each machine, `dev` starts one too."""
    from stock_pipeline.config.home import claim_home
    from stock_pipeline.orchestration.bootstrap import prepare_home

    given: Context = context.obj
    settings = given.settings()
    workers = settings.tasks.workers
    if workers is None:
        raise ConfigurationError(
            "there is no broker that hands out runs",
            value="tasks.workers: null",
            fix="set tasks.workers.broker to the address of a Redis; see docs/how-to/use-postgres-and-s3.md",
        )
    claim_home(settings)
    prepare_home(settings)
    sys.stdout.flush()
    sys.stderr.flush()
    # a process of its own kind: see the module
    module = "stock_pipeline.orchestration.worker"
    os.execv(sys.executable, [sys.executable, "-m", module, "--slots", str(slots or workers.slots)])
