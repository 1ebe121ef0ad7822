"""Commands that operate the platform: dev, doctor, validate, promote."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from stock_pipeline.cli.app import Context, app
from stock_pipeline.cli.console import AsJson, err, out, print_json, table

_VERDICTS = {True: ("ok", "green"), False: ("wrong", "red"), None: ("note", "yellow")}


@app.command()
def dev(context: typer.Context) -> None:
    """Start console and API, the Dagster web UI with its daemon, and the MLflow UI, on loopback; Ctrl-C stops all."""
    from stock_pipeline.cli.services import serve_all

    given: Context = context.obj
    serve_all(given.settings())


@app.command()
def serve(context: typer.Context) -> None:
    """Serve the console and the API alone."""
    from stock_pipeline.cli.services import serve_api

    given: Context = context.obj
    serve_api(given.settings())


@app.command()
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check configuration, data, storage and models, and say what is wrong and what to do."""
    from stock_pipeline.cli.diagnosis import diagnose

    given: Context = context.obj
    findings = diagnose(given.config)
    if as_json:
        print_json([{"verdict": _VERDICTS[f.good][0], "what": f.what, "found": f.found} for f in findings])
    else:
        columns = [("", "left"), ("what", "left"), ("found", "left")]
        out.print(table("Doctor", columns, [[Text(*_VERDICTS[f.good]), f.what, f.found] for f in findings]))
    if any(f.good is False for f in findings):
        raise typer.Exit(1)


@app.command()
def settings(context: typer.Context) -> None:
    """Print the configuration as it is in force: all layers merged, every default stated, secrets hidden."""
    import yaml

    from stock_pipeline.observability.redaction import HIDDEN, redact

    given: Context = context.obj
    values = given.settings().model_dump(mode="json")
    values["alerts"]["targets"] = [t if t.startswith("env:") else HIDDEN for t in values["alerts"]["targets"]]
    values["storage"]["options"] = dict.fromkeys(values["storage"]["options"], HIDDEN)
    typer.echo(yaml.safe_dump(redact(values), sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def validate(context: typer.Context) -> None:
    """Load the Dagster definitions as Dagster does, and check that every key they name exists."""
    from stock_pipeline.orchestration.validation import validate_definitions

    given: Context = context.obj
    counts = validate_definitions(given.settings())
    out.print("definitions are valid: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


@app.command()
def promote(
    context: typer.Context,
    version: Annotated[int, typer.Argument(help="Version of the registered model.")],
    by: Annotated[str, typer.Option("--by", help="Who decides; kept with the version.")],
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept with the version.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also a version of other features than configured.")] = False,
) -> None:
    """Make a version champion by hand, for example after an alarm was looked into."""
    from stock_pipeline.orchestration import inputs
    from stock_pipeline.orchestration.resources import Platform
    from stock_pipeline.storage.model_registry.decisions import promote_by_hand

    given: Context = context.obj
    platform = Platform(given.settings())
    configured = inputs.feature_hash(platform) if platform.lake.exists(inputs.VALIDATED) else None
    promoted = promote_by_hand(
        platform.model_registry, version, by=by, reason=reason, configured=configured, force=force
    )
    err.print(f"{promoted.family} version {promoted.version} is champion, promoted by {by}", markup=False)


@app.command()
def rollback(
    context: typer.Context, reason: Annotated[str, typer.Option("--reason", help="Why; kept with the version.")]
) -> None:
    """Make the previous champion champion again."""
    from stock_pipeline.orchestration.resources import Platform
    from stock_pipeline.storage.model_registry.decisions import roll_back

    given: Context = context.obj
    back = roll_back(Platform(given.settings()).model_registry, by=None, reason=reason)
    err.print(f"{back.family} version {back.version} is champion again", markup=False)
