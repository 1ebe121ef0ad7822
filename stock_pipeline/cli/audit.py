"""`stock-pipeline audit`: the trail of who did what, checked, looked at, exported and reported on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from stock_pipeline.cli.app import app
from stock_pipeline.cli.console import err, number_of, out, table
from stock_pipeline.cli.users import open_access
from stock_pipeline.core.errors import ConfigurationError

if TYPE_CHECKING:
    from stock_pipeline.access.audit_entry import AuditEntry

audit = typer.Typer(help="The audit trail: who did what, and whether it is as it was written.", no_args_is_help=True)
app.add_typer(audit, name="audit")


class ExportFormat(StrEnum):
    """Forms of an export."""

    jsonl = "jsonl"
    csv = "csv"


class ReportFormat(StrEnum):
    """Forms of the report."""

    markdown = "markdown"
    json = "json"


Since = Annotated[str | None, typer.Option("--since", help="From this day or instant on, UTC: 2026-01-31[T08:00].")]
Until = Annotated[str | None, typer.Option("--until", help="Before this instant; a day is included whole.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write, readable by its owner alone.")]


@audit.command()
def verify(context: typer.Context) -> None:
    """Check every entry of the trail; each fault is named, and then the exit code is 1."""
    access, _ = open_access(context)
    found = access.audit.verify()
    if found.intact:
        said = "as it was written" if found.entries == 1 else "all as they were written"
        out.print(f"{number_of(found.entries, 'entry', 'entries')}, {said}", markup=False)
        return
    for fault in found.faults:
        out.print(str(fault), markup=False, soft_wrap=True)
    count = len(found.faults) + found.further
    entries, faults = number_of(found.entries, "entry", "entries"), number_of(count, "fault")
    err.print(f"{entries}, {faults}: the trail was changed", markup=False)
    raise typer.Exit(1)


@audit.command()
def show(
    context: typer.Context,
    actor: Annotated[str | None, typer.Option("--actor", help="Who.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="What, such as role.change or role.*")] = None,
    result: Annotated[str | None, typer.Option("--result", help="done, refused or failed.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="From where.")] = None,
    object_: Annotated[str | None, typer.Option("--object", help="On what: KIND or KIND:IDENTITY.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Dagster run.")] = None,
    request_id: Annotated[str | None, typer.Option("--request", help="Request.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Most entries.")] = 50,
    details: Annotated[bool, typer.Option("--json", help="Print all fields, one entry a line as JSON.")] = False,
) -> None:
    """Print the newest entries that match."""
    from stock_pipeline.access.audit import AuditFilter
    from stock_pipeline.access.audit_entry import RESULTS
    from stock_pipeline.access.audit_export import plain

    if result is not None and result not in RESULTS:
        raise ConfigurationError("no such result", value=result, allowed=", ".join(RESULTS))
    access, _ = open_access(context)
    kind, _, identity = (object_ or "").partition(":")
    first, last = _period(since, until)
    filters = AuditFilter(
        actor=actor, action=action, result=result, address=address, object_kind=kind or None,
        object_id=identity or None, run_id=run_id, request_id=request_id, since=first, until=last,
    )  # fmt: skip
    found = list(reversed(access.audit.entries(filters, limit=limit)))
    if details:
        for entry in found:
            typer.echo(json.dumps(plain(entry), ensure_ascii=False))
        return
    columns = [("", "right"), ("at (UTC)", "left"), ("who", "left"), ("what", "left"), ("on", "left"),
               ("result", "left"), ("from", "left"), ("more", "left")]  # fmt: skip
    caption = None if found else "no entry matches"
    out.print(table("Audit trail", columns, [_row(entry) for entry in found], caption))


@audit.command()
def export(
    context: typer.Context,
    format: Annotated[ExportFormat, typer.Option("--format", "-f", help="Form.")] = ExportFormat.jsonl,
    since: Since = None,
    until: Until = None,
    output: Output = None,
) -> None:
    """Write the entries of a period, oldest first; the export is itself an entry."""
    access, by = open_access(context)
    first, last = _period(since, until)
    with _written(output) as file:
        count = -1 if format == ExportFormat.csv else 0
        for line in access.audit.export(format.value, first, last):
            file.write(line)
            count += 1
    access.audit.record("audit.export", actor=by, detail={"format": format.value, "since": since, "until": until})
    err.print(
        f"{number_of(count, 'entry', 'entries')} written" + (f" to {output}" if output else ""),
        markup=False,
        soft_wrap=True,
    )


@audit.command()
def report(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    format: Annotated[ReportFormat, typer.Option("--format", "-f", help="Form.")] = ReportFormat.markdown,
    output: Output = None,
) -> None:
    """Write the compliance report of a period; of the last 30 days where none is given."""
    access, by = open_access(context)
    first, last = _period(since, until)
    last = last or datetime.now(UTC)
    made = access.audit.report(first or last - timedelta(days=30), last)
    text = made.markdown() if format == ReportFormat.markdown else json.dumps(made.as_dict(), indent=2) + "\n"
    with _written(output) as file:
        file.write(text)
    access.audit.record("audit.report", actor=by, detail={"since": since, "until": until})
    if not made.verified:
        err.print("the trail was changed: see `stock-pipeline audit verify`", markup=False)


@audit.command(name="anchor")
def renew_anchor(
    context: typer.Context,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the trail.")],
) -> None:
    """Accept the present end of the trail, after a backup was restored; the faults until then are written into it."""
    access, by = open_access(context)
    sequence = access.audit.renew_anchor(by, reason)
    err.print(f"the trail is anchored at entry {sequence}", markup=False)


def _row(entry: AuditEntry) -> list[str]:
    whole = {"detail": entry.detail, "before": entry.before, "after": entry.after}
    more = "; ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in whole.items() if value)
    on = "-" if entry.object_kind is None else f"{entry.object_kind} {entry.object_id}"
    at = f"{entry.at:%Y-%m-%d %H:%M:%S}"
    shown = [str(entry.sequence), at, entry.actor, entry.action, on, entry.result, entry.address or "-", more[:120]]
    return ["".join(letter if letter.isprintable() else "?" for letter in cell) for cell in shown]


def _period(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    first, last = _instant(since), _instant(until, whole_day=True)
    if first is not None and last is not None and first >= last:
        raise ConfigurationError("--since must be before --until", value=f"{since} to {until}")
    return first, last


def _instant(text: str | None, *, whole_day: bool = False) -> datetime | None:
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            "not a day or instant", value=text, allowed="2026-01-31, 2026-01-31T08:00, 2026-01-31T08:00+01:00"
        ) from None
    instant = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed
    return instant + timedelta(days=1) if whole_day and len(text) == 10 else instant


@contextlib.contextmanager
def _written(output: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that is there when it is whole."""
    if output is None:
        yield _Echo()  # type: ignore[misc]
        return
    if not output.absolute().parent.is_dir():
        raise ConfigurationError(
            "the folder of the output file does not exist", value=str(output), fix=f"make {output.absolute().parent}"
        )
    draft = output.with_name(f".{output.name}.part")
    try:
        draft.touch(mode=0o600)
        with draft.open("w", encoding="utf-8", newline="") as file:
            yield file
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


class _Echo:
    """Standard output as it is now, which tests replace."""

    def write(self, text: str) -> Any:
        """Print without a further line break."""
        typer.echo(text, nl=False)
