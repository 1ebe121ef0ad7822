"""Who begins: the link that makes the first administrator, shown on the terminal and nowhere else."""

from __future__ import annotations

import sys

from stock_pipeline.cli.console import out
from stock_pipeline.config import Settings


def tell_how_to_begin(settings: Settings) -> None:
    """Print a link that works once, as long as the service has no administrator.

    What is not a terminal may be a log file, and a link in a log is one that others can use: there only the command is
    named that makes an administrator.
    """
    from stock_pipeline.api.service import Service
    from stock_pipeline.config import addresses

    service = Service(settings)
    access = service.access
    try:
        if access.accounts.any_administrator():
            return
        if not sys.stdout.isatty():
            out.print("No administrator yet: stock-pipeline users create NAME --role administrator")
            return
        address = access.links.address("setup", access.links.create("setup", by="system"), addresses.console(settings))
        out.print("No administrator yet. This link makes one; it works once:")
        out.print(f"  {address}", markup=False, soft_wrap=True)
    finally:
        service.close()
