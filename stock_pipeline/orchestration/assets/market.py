"""Assets of the group ``market``: raw bars, their validation, and the report on their quality."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from stock_pipeline.core.market.bars import BAR_SCHEMA, QUARANTINED_SCHEMA, VALIDATED_SCHEMA
from stock_pipeline.core.quality import validate_bars
from stock_pipeline.orchestration import reports
from stock_pipeline.orchestration.checks import market as checks
from stock_pipeline.orchestration.metadata import (
    frame_metadata,
    quality_metadata,
    sessions_result,
    table_metadata,
    up_to_date,
)
from stock_pipeline.orchestration.partitions import rebuild, window, years
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.specs import COLUMNS, spec
from stock_pipeline.storage.code_version import code_version
from stock_pipeline.storage.watermarks import parameters_hash

VALIDATED = "market/validated_bars"
QUARANTINED = "market/quarantined_bars"
FINDINGS = "market/quality_findings"
SCORES = "market/quality_scores"
BENCHMARK = "market/benchmark"
MEMBERSHIP = "market/membership"


def build(platform: Platform) -> list[dg.AssetsDefinition]:
    """The market assets of one configuration."""
    settings = platform.settings
    owner = settings.market.owner
    partitions = years(settings.market.history.first, settings.market.history.last)
    fresh = timedelta(days=5) if settings.schedules.enabled else None

    @dg.multi_asset(
        name="raw_bars",
        specs=[
            spec(
                "market/raw_bars",
                "Prices as the vendor delivered them, append-only, with the instant at which each row was learnt.",
                owner=owner,
                kinds={"polars", "deltalake", settings.source.kind},
                schema=BAR_SCHEMA,
                columns=COLUMNS,
                fresh_within=fresh,
            ),
            spec(BENCHMARK, "The market's benchmark series, close by session.", owner=owner),
            spec(MEMBERSHIP, "Point-in-time universe: which symbol was a member from when to when.", owner=owner),
        ],
        check_specs=checks.RAW,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def raw_bars(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        start, end = window(context, settings.market.history)
        data = platform.source.fetch(start if start > date.min else None, end if end < date.max else None)
        ingested = platform.raw_bars.append(data.bars)
        context.log.info("fetched %s rows, %s new or revised", data.bars.height, ingested.added)
        metadata = frame_metadata(data.bars, version=ingested.version)
        metadata |= {"rows_added": ingested.added, "rows_revised": ingested.revised}
        metadata |= (
            table_metadata(platform.lake, "market/raw_bars", ingested.added)
            if ingested.added
            else up_to_date(ingested.version)
        )
        for problem in data.problems:
            context.log.warning("%s", problem)
        yield dg.MaterializeResult(
            asset_key=["market", "raw_bars"], metadata=metadata, check_results=checks.raw(data.bars)
        )
        for table, frame in ((BENCHMARK, data.benchmark), (MEMBERSHIP, data.membership)):
            before = platform.lake.version(table)
            version = platform.lake.replace(table, frame) if frame is not None and not frame.is_empty() else before
            changed = frame is not None and version != before
            metadata = frame_metadata(frame, version=version) if frame is not None and changed else up_to_date(version)
            yield dg.MaterializeResult(asset_key=table.split("/"), metadata=metadata)

    @dg.multi_asset(
        name="validated_bars",
        specs=[
            spec(
                VALIDATED,
                "Bars that passed every rule, or were repaired with the original kept: the only prices used below.",
                owner=owner,
                deps=["market/raw_bars"],
                schema=VALIDATED_SCHEMA,
                columns=COLUMNS,
                fresh_within=fresh,
            ),
            spec(
                QUARANTINED,
                "Bars that must not be used, with the rules that caught them.",
                owner=owner,
                deps=["market/raw_bars"],
                schema=QUARANTINED_SCHEMA,
                columns=COLUMNS,
            ),
            spec(
                FINDINGS,
                "Everything that the rules noticed, also where the row passed.",
                owner=owner,
                deps=["market/raw_bars"],
            ),
            spec(SCORES, "Quality score by symbol and session, 0 to 100.", owner=owner, deps=["market/raw_bars"]),
        ],
        check_specs=checks.VALIDATED,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def validated_bars(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        lake, rules = platform.lake, settings.quality
        raw = platform.raw_bars.current()
        parameters = parameters_hash(
            rules.model_dump_json(), settings.market.calendar, code_version("core/quality", "core/market")
        )
        plan = platform.watermarks.plan(
            VALIDATED,
            {"raw": raw},
            parameters,
            window=window(context, settings.market.history),
            rebuild=rebuild(context),
        )
        tables = (QUARANTINED, FINDINGS, SCORES, VALIDATED)
        if plan.start is None or plan.end is None:
            context.log.info("%s is up to date", VALIDATED)
            frames, versions = {}, {table: lake.version(table) for table in tables}
        else:
            first: Any = raw["session"].min()
            # rows outside what the calendar knows are for the rules to judge, not for the calendar to refuse
            sessions = platform.calendar.known_sessions(first, plan.end)
            known = [day for day in sessions if day < plan.start][-rules.lookback :]
            rows = raw.filter(pl.col("session").is_between(min([plan.start, *known]), plan.end))
            result = validate_bars(rows, sessions=sessions, rules=rules, emit_from=plan.start)
            frames = {
                VALIDATED: result.validated,
                QUARANTINED: result.quarantined,
                FINDINGS: result.findings,
                SCORES: result.scores,
            }
            # the validated table is written last: its watermark vouches for the others
            versions = {
                table: lake.write_sessions(table, frames[table], start=plan.start, end=plan.end) for table in tables
            }
            platform.watermarks.record(VALIDATED, plan, parameters)
        found = checks.validated(platform)
        for table in tables:
            metadata = frame_metadata(frames[table], version=versions[table]) if frames else up_to_date(versions[table])
            if frames:
                metadata |= table_metadata(lake, table, frames[table].height)
            if table == VALIDATED:
                metadata |= sessions_result(frames[table]["session"] if frames else None)
            if frames and table == SCORES:
                metadata |= quality_metadata(lake, table)
            yield dg.MaterializeResult(
                asset_key=table.split("/"),
                metadata=metadata,
                check_results=found if table == VALIDATED else [],
            )

    @dg.multi_asset(
        name="quality_report",
        specs=[
            spec(
                "market/quality_report",
                "The report on data quality that people look at, and Great Expectations' Data Docs of the newest bars.",
                owner=owner,
                deps=[VALIDATED, QUARANTINED, FINDINGS, SCORES],
                kinds={"html", "greatexpectations"},
            )
        ],
        check_specs=checks.REPORT,
    )
    def quality_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        written = reports.write_quality(platform)
        return dg.MaterializeResult(
            asset_key=["market", "quality_report"],
            metadata=reports.links(written),
            check_results=[checks.expectations(written)],
        )

    return [raw_bars, validated_bars, quality_report]
