"""The application object, its commands and how errors reach the user."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from stock_pipeline import __version__
from stock_pipeline.cli.console import err, out
from stock_pipeline.core.errors import PipelineError

ORDER = (
    "demo", "init", "doctor", "settings", "run", "show", "predict", "backtest", "replay", "features", "dev", "serve",
    "relay", "worker", "tasks", "users", "roles", "audit", "promote", "rollback", "validate",
)  # fmt: skip
"""Commands in the order in which a newcomer meets them."""


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of `ORDER`."""
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=_Commands,
    help="A Dagster data and machine-learning pipeline for stocks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@dataclass
class Context:
    """What every command gets: where the configuration is, and whether to be quiet."""

    config: Path | None
    quiet: bool

    def settings(self):
        """Load the configuration, and refuse a home folder that belongs to another market."""
        from stock_pipeline.config import load_settings
        from stock_pipeline.config.home import check_home

        settings = load_settings(self.config)
        check_home(settings)
        return settings


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="Configuration file; else $STOCK_PIPELINE_CONFIG, ./stock_pipeline.yaml, the sample market.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""
    context.obj = Context(config, quiet)


def main() -> None:
    """Run the command line; errors of the platform become one readable message and exit code 1."""
    try:
        # they register their commands
        from stock_pipeline.cli import (  # noqa: F401
            audit,
            data,
            initial,
            operate,
            pipeline,
            relay,
            roles,
            show,
            tasks,
            users,
            worker,
        )

        app()
    except PipelineError as error:
        err.print("[bold red]error[/bold red] ", end="")
        err.print(str(error), markup=False, soft_wrap=True)
        sys.exit(1)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        err.print(
            f"[bold red]error[/bold red] the system refused{escape(where)}: {escape(error.strerror or str(error))}"
        )
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)
    except Exception as error:
        found = _of_a_database(error)
        if found is None:
            raise
        why = str(getattr(found, "orig", found)).strip().partition("\n")[0]
        err.print("[bold red]error[/bold red] ", end="")
        err.print(
            f"a database cannot be used: {why}; to fix it: start it, or correct its address under storage "
            "(`stock-pipeline settings` prints what is in force)",
            markup=False,
            soft_wrap=True,
        )
        sys.exit(1)


def _of_a_database(error: Exception) -> BaseException | None:
    """The error by which a database did not answer or refused; no database library is imported to find out."""
    if "sqlalchemy.exc" not in sys.modules:
        return None
    from stock_pipeline.storage.database import away

    return away(error)
