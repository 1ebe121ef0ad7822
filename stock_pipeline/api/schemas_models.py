"""Answers and requests about models."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from stock_pipeline.api.paging import PageQuery

Reason = Annotated[str, StringConstraints(min_length=3, max_length=1000, strip_whitespace=True, pattern=r"^[^\x00]*$")]
Alias = Literal["champion", "challenger", "previous"]


class ModelQuery(PageQuery):
    """Which versions."""

    family: str | None = Field(None, min_length=1, max_length=100, description="only this family", examples=["ridge"])
    alias: Alias | None = Field(None, description="only the version with this alias")
    usable: bool | None = Field(
        None, description="only versions that were (or were not) trained on the features of the present champion"
    )


class CardQuery(BaseModel):
    """In which form."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["markdown", "html"] = Field("markdown", description="Markdown, or a page with its figures")


class ModelSummary(BaseModel):
    """One version in the list."""

    name: str = Field(description="registered model", examples=["us_tech"])
    version: int = Field(examples=[4])
    family: str = Field(examples=["lightgbm"])
    aliases: list[Alias] = Field(examples=[["champion"]])
    horizon: int = Field(description="sessions that it looks ahead", examples=[5])
    trained_through: date = Field(description="newest session that it has seen", examples=["2023-06-30"])
    created_at: datetime
    feature_set_hash: str = Field(examples=["03107285114ff573"])
    figures: dict[str, float | None] = Field(
        description="out of sample; null where undefined", examples=[{"rank_ic": 0.021, "hit_rate": 0.53}]
    )


class ModelLineage(BaseModel):
    """Everything that made a version."""

    feature_set: str = Field(examples=["technical+statistical"])
    feature_set_hash: str = Field(examples=["03107285114ff573"])
    data_version: dict[str, int] = Field(
        description="version of each table that was read", examples=[{"market/validated_bars": 12}]
    )
    code_version: str = Field(examples=["0.1.0+5002103"])
    checksum: str = Field(description="SHA-256 of the list of all its files")
    seed: int = Field(examples=[7])
    trained_through: date
    run_id: str = Field(description="run in MLflow")
    model_id: str


class ModelLinks(BaseModel):
    """Where to read on."""

    card: str = Field(examples=["/api/models/4/card"])
    metrics: str = Field(examples=["/api/models/4/metrics"])
    mlflow: str = Field(description="page of its run in the MLflow UI")


class ModelDetail(ModelSummary):
    """One version with all that is known about it."""

    metrics: dict[str, float | None] = Field(
        description="`oos/...` on all test folds, `holdout/...` on the hold-out", examples=[{"oos/rank_ic": 0.021}]
    )
    lineage: ModelLineage
    tags: dict[str, str] = Field(description="decisions and remarks", examples=[{"acknowledged_by": "anna"}])
    links: ModelLinks


class ModelMetrics(BaseModel):
    """The figures of a version."""

    model_config = ConfigDict(extra="allow")

    version: int = Field(examples=[4])
    family: str = Field(examples=["lightgbm"])
    oos: dict[str, float | None] = Field(description="on all test folds", examples=[{"rank_ic": 0.021}])
    holdout: dict[str, float | None] = Field(description="on sessions kept back to the end")
    folds: list[dict[str, Any]] = Field(description="by walk-forward fold", examples=[[{"fold": 1, "rank_ic": 0.02}]])
    importance: list[dict[str, Any]] = Field(
        description="features, most important first", examples=[[{"feature": "rsi_14", "importance": 0.02}]]
    )


class PromoteModel(BaseModel):
    """Why a version becomes champion."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = Field(description="kept with the version and in the audit trail", examples=["alarm looked into"])
    force: bool = Field(False, description="also a version that was trained on other features than are configured")


class RollBack(BaseModel):
    """Why the previous champion comes back."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason = Field(examples=["coverage fell below its target"])


class ModelDecision(BaseModel):
    """What a decision changed; it takes effect with the next scoring."""

    before: int | None = Field(description="version that was champion", examples=[3])
    champion: ModelDetail
