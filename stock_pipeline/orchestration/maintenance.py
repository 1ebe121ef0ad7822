"""The job that looks after the house: compacts tables, removes what nobody refers to, forgets old runs.

What a published prediction or a registered model names is never removed: it must stay possible to compute it again.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from stock_pipeline.config.launches import KIND
from stock_pipeline.core.errors import PipelineError
from stock_pipeline.orchestration import inputs, scoring, work_files
from stock_pipeline.orchestration.resources import Platform
from stock_pipeline.orchestration.task_jobs import backtest_folder, predictions_folder
from stock_pipeline.storage.tasks import EventLog, NotNowError, TaskFilter, TaskStore
from stock_pipeline.storage.tasks.states import RESTING

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
OLD_VERSIONS_DAYS = 30
"""For so long every version of every table can be read; afterwards only those that something names."""


def maintenance_job(platform: Platform) -> dg.JobDefinition:
    """Build the maintenance job of one configuration."""

    @dg.op(description="Join small files of every table and remove files that no kept version refers to.")
    def tidy_lake(context: dg.OpExecutionContext) -> None:
        kept = {inputs.VALIDATED: named_versions(platform)}
        failed = []
        for table in platform.lake.tables():
            try:
                platform.lake.compact(table)
                deleted = platform.lake.vacuum(
                    table, retention_days=OLD_VERSIONS_DAYS, keep_versions=kept.get(table) or None
                )
            except PipelineError as error:  # one damaged table must not keep the others from being looked after
                context.log.error("%s could not be tidied: %s", table, error)
                failed.append(table)
                continue
            context.log.info("tidied %s, %s old files deleted", table, deleted)
        context.add_output_metadata({"tables": len(platform.lake.tables()), "failed": len(failed)})
        if failed:
            raise dg.Failure(f"these tables could not be tidied: {', '.join(failed)}")

    @dg.op(
        description="Forget ended runs with their tasks, requests and logs, reports on request, settled alerts and "
        "events beyond the configured age; the newest materialisation of every asset and partition stays.",
    )
    def forget_the_past(context: dg.OpExecutionContext) -> None:
        before = datetime.now(UTC) - timedelta(days=platform.settings.schedules.keep_runs_days)
        works: dict[str, Callable[[], int]] = {
            "runs": lambda: forget_runs(context.instance, before),
            "reports": lambda: forget_reports(platform, before),
            "alerts": lambda: platform.alert_outbox.purge(before),
            "unfinished_work": lambda: work_files.remove_old(platform.settings.home, before),
            "tasks": lambda: forget_tasks(platform, context.instance),
            "requests": lambda: TaskStore(platform.database).forget_requests(before),
            "events": lambda: forget_events(platform),
        }
        figures, failed = dict[str, int](), list[str]()
        for name, work in works.items():
            try:
                figures[name] = work()
            except Exception as error:  # what cannot be forgotten must not keep the rest
                context.log.exception("old %s could not be forgotten", name)
                failed.append(f"{name} ({error})")
        context.log.info("forgotten from before %s: %s", before.date(), figures)
        if failed:
            raise dg.Failure(f"these could not be forgotten: {'; '.join(failed)}", metadata=figures)
        context.add_output_metadata(figures)

    @dg.job(
        name="maintenance",
        description="Compaction, vacuum and retention.",
        tags={"dagster/max_runtime": "7200", KIND: "maintenance"},
    )
    def maintenance() -> None:
        tidy_lake()
        forget_the_past()

    return maintenance


def named_versions(platform: Platform) -> list[int]:
    """Versions of the validated bars that a scored prediction or a registered model names."""
    lake, named = platform.lake, set[int]()
    newest = lake.version(inputs.VALIDATED)
    if lake.exists(scoring.SCORED):
        stored = lake.read(scoring.SCORED, columns=["lake_version"])["lake_version"]
        named |= set(stored.cast(pl.Int64).drop_nulls().unique().to_list())
    named |= {
        version.data_version[inputs.VALIDATED]
        for version in platform.model_registry.versions()
        if inputs.VALIDATED in version.data_version
    }
    return sorted(version for version in named if newest is not None and version <= newest)


def forget_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete ended runs with their events and logs; returns how many.

    Deleting a run deletes the materialisations that it made: a run that made the newest one of an asset or partition
    is kept, or the web UI would show the partition as never computed.
    """
    kept = set(_runs_of_newest_materialisations(instance))
    records = instance.get_run_records(dg.RunsFilter(statuses=ENDED, created_before=before), ascending=True)
    old = [record.dagster_run.run_id for record in records if record.dagster_run.run_id not in kept]
    for run_id in old:
        instance.delete_run(run_id)
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    return len(old)


def forget_tasks(platform: Platform, instance: dg.DagsterInstance) -> int:
    """Forget tasks that rest and whose runs are gone; returns how many. Their events stay until they are old."""
    store, after, forgotten = TaskStore(platform.database), None, 0
    while page := store.list(TaskFilter(states=tuple(RESTING)), after, 200):
        after = page[-1].number
        runs = store.run_ids([task.id for task in page])
        named = {run_id for task in page for run_id in (*runs[task.id], task.run_id)}
        there = set(instance.get_run_ids(dg.RunsFilter(run_ids=list(named))))
        for task in page:
            if there.isdisjoint({*runs[task.id], task.run_id}):
                with suppress(NotNowError):  # somebody has begun to go on with it
                    if task.state == "paused":
                        store.ask(task.id, "cancel", "maintenance")
                    forgotten += store.forget(task.id)
    return forgotten


def forget_events(platform: Platform) -> int:
    """Forget events that are older than the configuration keeps them; returns how many."""
    before = datetime.now(UTC) - timedelta(days=platform.settings.tasks.keep_events_days)
    return EventLog(platform.database).purge(before)


def forget_reports(platform: Platform, before: datetime) -> int:
    """Delete what was made on request before an instant: reports of back-tests, predictions; returns how many files."""
    folders = (backtest_folder(platform), predictions_folder(platform))
    files = [path for folder in folders for path in folder.glob("*") if path.is_file()]
    old = [path for path in files if path.stat().st_mtime < before.timestamp()]
    for path in old:
        path.unlink()
    return len(old)


def _runs_of_newest_materialisations(instance: dg.DagsterInstance) -> Iterable[str]:
    made = dg.DagsterEventType.ASSET_MATERIALIZATION
    for key in instance.get_asset_keys():
        newest = instance.get_latest_materialization_event(key)
        if newest is not None:
            yield newest.run_id
        by_partition = instance.event_log_storage.get_latest_storage_id_by_partition(key, made)
        for storage_id in set(by_partition.values()):
            chosen = dg.AssetRecordsFilter(asset_key=key, storage_ids=[storage_id])
            for record in instance.fetch_materializations(chosen, limit=1).records:
                yield record.run_id
