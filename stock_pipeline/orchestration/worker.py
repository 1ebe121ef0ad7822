"""The worker: a Celery worker that does Dagster's runs, each in a process of its own.

It is a program of its own (``python -m``), started by ``stock-pipeline worker``: its process is forked for every run,
so it must not have loaded what does not survive that.
"""

import argparse
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
from celery.signals import worker_process_init
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from stock_pipeline.core.errors import PipelineError
from stock_pipeline.orchestration.worker_launcher import WorkerLauncher
from stock_pipeline.storage.locks import file_lock

LOOK_SECONDS = 0.5
START_SECONDS = 60.0
"""So long a process may take until it is ready for a run, on a busy machine."""


def main(arguments: list[str] | None = None) -> int:
    """Work until told to stop: the first Ctrl-C or TERM waits for what runs, a second one does not."""
    parser = argparse.ArgumentParser(prog="stock-pipeline worker")
    parser.add_argument("--slots", type=int, required=True)
    slots = parser.parse_args(arguments).slots
    with dg.DagsterInstance.get() as instance:
        launcher = instance.run_launcher
        folder = Path(instance.root_directory)
    if not isinstance(launcher, WorkerLauncher):
        print("error: Dagster's configuration has no workers; set tasks.workers", file=sys.stderr)
        return 1
    host, app = socket.gethostname(), launcher.celery
    create_execute_job_task(app)
    create_resume_job_task(app)
    app.conf.worker_proc_alive_timeout = START_SECONDS
    try:
        # two of one name would be taken for one another when it is asked which of them still lives
        with file_lock(folder.parent / "locks" / f"worker-{host}.lock", timeout=0.0):
            app.worker_main(
                [
                    "worker", "--hostname", f"{launcher.default_queue}@{host}", "--queues", launcher.default_queue,
                    "--concurrency", str(slots), "--pool", "prefork", "--loglevel", "INFO",
                ]
            )  # fmt: skip
    except PipelineError:
        print(f"error: a worker of this market runs on {host} already; give it more --slots", file=sys.stderr)
        return 1
    return 0


@worker_process_init.connect
def _prepare_process(**_: Any) -> None:
    """A process of a run must neither outlive its worker nor get what a terminal tells it."""
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
