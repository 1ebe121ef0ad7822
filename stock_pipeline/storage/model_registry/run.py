"""A training as an MLflow run: figures appear while it trains, and at the end the version is registered.

What is registered and how versions are found again is in ``registry``.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import polars as pl

from stock_pipeline.core.modelling.evaluation import evaluate
from stock_pipeline.core.modelling.progress import Progress, TrainingCancelled
from stock_pipeline.storage.model_registry.types import CALIBRATOR, ModelMetadata, ModelVersion

if TYPE_CHECKING:
    from stock_pipeline.core.modelling.training import TrainingResult
    from stock_pipeline.core.reporting.model_card import ModelCard
    from stock_pipeline.storage.model_registry.registry import ModelRegistry

_ROUND_SECONDS = 0.5
_TEXT_LIMIT = 5_000


class TrainingRun:
    """One MLflow run; use it as a context manager, and its `progress` as the callback of training.

    Leaving it by an error marks the run as failed (or killed, when training was cancelled) and keeps the reason.
    """

    def __init__(self, registry: ModelRegistry, family: str, metadata: ModelMetadata, name: str | None) -> None:
        self._registry, self._client = registry, registry.client
        self.family, self.metadata = family, metadata
        self._logged_at = {True: float("-inf"), False: float("-inf")}
        tags = {
            "family": family,
            "feature_set": metadata.feature_set,
            "feature_set_hash": metadata.feature_set_hash,
            "data_version": json.dumps(dict(metadata.data_version), sort_keys=True),
            "code_version": metadata.code_version,
            "market": metadata.market,
            **metadata.tags,
        }
        run = self._client.create_run(registry.experiment_id, run_name=name or family, tags=tags)
        self.run_id: str = run.info.run_id
        self.run_path = registry.run_path(self.run_id)
        self._log_inputs()

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._client.set_terminated(self.run_id, "FINISHED")
            return
        self._client.set_tag(self.run_id, "error", f"{type(error).__name__}: {error}"[:_TEXT_LIMIT])
        self._client.set_terminated(self.run_id, "KILLED" if isinstance(error, TrainingCancelled) else "FAILED")

    def progress(self, progress: Progress) -> None:
        """Log a message of training: folds at once, rounds at most twice a second."""
        now = time.monotonic()
        if progress.stage == "round":
            # rounds with a loss have their own interval, or the many without one would crowd them out
            kind = bool(progress.metrics)
            if now - self._logged_at[kind] < _ROUND_SECONDS:
                return
            self._logged_at[kind] = now
            values = {f"fold_{progress.fold}/{k}": v for k, v in progress.metrics.items()}
            self.log_metrics(values, step=progress.round)
            self._log_share(progress)
            return
        prefix = {"fold": "fold", "final": "holdout", "trial": "trial"}[progress.stage]
        self.log_metrics({f"{prefix}/{k}": v for k, v in progress.metrics.items()}, step=progress.fold)
        self._log_share(progress)

    def _log_share(self, progress: Progress) -> None:
        # one step for each thousandth: MLflow shows the value with the highest step as the present one
        self.log_metrics({"progress_percent": 100 * progress.share}, step=round(1000 * progress.share))

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Log figures under their names; undefined ones are left out."""
        from mlflow.entities import Metric

        stamp = int(time.time() * 1000)
        known = [Metric(k, float(v), stamp, step) for k, v in metrics.items() if v is not None]
        if known:
            self._client.log_batch(self.run_id, metrics=known)

    def log_frame(self, name: str, frame: pl.DataFrame, folder: str = "evaluation") -> None:
        """Store a table as Parquet among the run's artifacts."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"{name}.parquet"
            frame.write_parquet(path)
            self._client.log_artifact(self.run_id, str(path), folder)

    def finish(
        self,
        result: TrainingResult,
        card: ModelCard | None = None,
        calibrator_json: str | None = None,
        *,
        baselines: Mapping[str, pl.DataFrame] | None = None,
        example: pl.DataFrame | None = None,
        extra: Mapping[str, bytes] | None = None,
    ) -> ModelVersion:
        """Log everything that training found and register the final model as a new version.

        Parameters
        ----------
        result
            Of `train_walk_forward`.
        card
            The model card.
        calibrator_json
            The interval calibrator, stored with the model under the same checksums.
        baselines
            Out-of-sample predictions of the naive baselines; their figures are logged beside the model's.
        example
            A few rows of features, shown as input example.
        extra
            Further files that belong to the model, by plain name.

        Returns
        -------
        ModelVersion
            The new version, without an alias.
        """
        from mlflow.entities import Param

        parameters = {
            **{f"model.{k}": v for k, v in result.parameters.model_dump(mode="json").items()},
            **{f"training.{k}": v for k, v in result.settings.model_dump(mode="json").items()},
            "seed": result.seed,
            "features": len(result.model.feature_names),
            "train_rows": result.train_rows,
            "train_start": result.train_start,
            "trained_through": result.trained_through,
        }
        self._client.log_batch(self.run_id, params=[Param(k, str(v)[:_TEXT_LIMIT]) for k, v in parameters.items()])
        metrics = figures(result)
        self.log_metrics(metrics)
        for name, oos in (baselines or {}).items():
            beside = evaluate(oos, horizon=result.settings.horizon)
            self.log_metrics({f"baseline_{name}/{k}": v for k, v in beside.items()})
        self._store(result, card)
        files = dict(extra or {})
        if calibrator_json is not None:
            files[CALIBRATOR] = calibrator_json.encode()
        return self._registry.register_model(
            result, self.metadata, run_id=self.run_id, metrics=metrics, example=example, extra=files
        )

    def _store(self, result: TrainingResult, card: ModelCard | None) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            tables = root / "evaluation"
            tables.mkdir()
            result.oos.write_parquet(tables / "oos.parquet")
            result.holdout.write_parquet(tables / "holdout.parquet")
            result.importance.write_csv(tables / "importance.csv")
            result.fold_metrics.write_csv(tables / "folds.csv")
            if card is not None:
                shown = root / "card"
                shown.mkdir()
                (shown / "model_card.md").write_text(card.markdown, encoding="utf-8")
                (shown / "model_card.html").write_text(card.html, encoding="utf-8")
                for name, svg in card.figures.items():
                    (shown / f"{name}.svg").write_text(svg, encoding="utf-8")
            self._client.log_artifacts(self.run_id, str(root))
        if card is not None:
            self._client.set_tag(self.run_id, "mlflow.note.content", card.markdown[:_TEXT_LIMIT])

    def _log_inputs(self) -> None:
        from mlflow.entities import Dataset, DatasetInput

        tables = [
            DatasetInput(
                Dataset(name=table, digest=str(version), source_type="delta", source=json.dumps({"table": table}))
            )
            for table, version in self.metadata.data_version.items()
        ]
        if tables:
            self._client.log_inputs(self.run_id, datasets=tables)


def figures(result: TrainingResult) -> dict[str, float]:
    """Return the figures of all test folds (``oos/...``) and of the hold-out (``holdout/...``), defined ones only."""
    values = {f"oos/{k}": v for k, v in evaluate(result.oos, horizon=result.settings.horizon).items()}
    if result.holdout.height:
        values |= {f"holdout/{k}": v for k, v in evaluate(result.holdout, horizon=result.settings.horizon).items()}
    return {k: v for k, v in values.items() if v is not None}
