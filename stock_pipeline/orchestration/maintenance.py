"""The job that looks after the house: compacts tables, removes what nobody refers to, forgets old runs."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from stock_pipeline.orchestration.resources import Platform


def maintenance_job(platform: Platform) -> dg.JobDefinition:
    """Build the maintenance job of one configuration."""

    @dg.op(description="Join small files of every table and remove files that no kept version refers to.")
    def tidy_lake(context: dg.OpExecutionContext) -> None:
        for table in platform.lake.tables():
            platform.lake.compact(table)
            platform.lake.vacuum(table)
            context.log.info("tidied %s", table)

    @dg.op(
        description="Delete ended runs, with their events, that are older than the configured age.",
        ins={"after": dg.In(dg.Nothing)},
    )
    def forget_old_runs(context: dg.OpExecutionContext) -> None:
        before = datetime.now(UTC) - timedelta(days=platform.settings.schedules.keep_runs_days)
        ended = dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
            created_before=before,
        )
        records = context.instance.get_run_records(ended, limit=1000)
        for record in records:
            context.instance.delete_run(record.dagster_run.run_id)
        context.log.info("forgot %s runs from before %s", len(records), before.date())

    @dg.job(
        name="maintenance",
        description="Compaction, vacuum and retention.",
        tags={"dagster/max_runtime": "7200", "stock_pipeline/kind": "maintenance"},
    )
    def maintenance() -> None:
        forget_old_runs(after=tidy_lake())

    return maintenance
