"""The answers of the service, as the OpenAPI document describes them.

Prediction answers are sent as bytes that are ready in the publication; a test holds them against these models.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE: dict[str, Any] = {
    "prediction_id": "2023-06-30.IBM.5",
    "symbol": "IBM",
    "session": "2023-06-30",
    "horizon": 5,
    "expected_return": 0.0021,
    "lower": -0.031,
    "upper": 0.0352,
    "confidence": 0.61,
    "coverage_target": 0.9,
    "interval_level": 0.91,
    "rank": 3,
    "model_name": "us_sample",
    "model_version": "4",
    "arm": "champion",
    "fallback_level": 0,
    "fallback_reason": None,
    "volatility": 0.187,
    "var_95": 0.0192,
    "es_95": 0.0256,
    "close": 133.81,
    "currency": "USD",
}


class NoQuery(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid")


LINEAGE: dict[str, Any] = {
    "model_name": "us_sample",
    "model_version": "4",
    "arm": "champion",
    "fallback_level": 0,
    "fallback_reason": None,
    "feature_set_hash": "c0ffee0123456789",
    "lake_version": "12",
    "config_version": "3f2a90b1",
    "code_version": "0.1.0+5002103",
    "seed": 7,
    "published_at": "2023-07-01T00:31:04Z",
    "publication_id": "8d0c2b1f9a7e6d5c4b3a2918",
    "publication_version": 12,
}


class Prediction(BaseModel):
    """What is expected of one symbol from one session on."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    prediction_id: str = Field(description="names this prediction for ever")
    symbol: str
    session: date = Field(description="exchange date whose close the prediction knows")
    horizon: int | None = Field(description="sessions that it looks ahead")
    expected_return: float | None = Field(description="over the horizon, as a fraction")
    lower: float | None = Field(description="lower end of the interval of the horizon's return")
    upper: float | None = Field(description="upper end of the interval")
    confidence: float | None = Field(description="in [0, 1]")
    coverage_target: float | None = Field(description="share of outcomes that the interval shall hold")
    interval_level: float | None = Field(description="what the interval aims at: the target, adapted to recent misses")
    rank: int | None = Field(description="1 = highest expected return of the session")
    model_name: str | None
    model_version: int | str | None
    arm: str | None = Field(description="which alias of the model made it")
    fallback_level: int | None = Field(description="0 = the champion itself; higher = further down the ladder")
    fallback_reason: str | None = Field(description="why it is not the champion's")
    volatility: float | None = Field(description="annualised, as a fraction")
    var_95: float | None = Field(description="one-day value at risk at 95 %, positive loss fraction")
    es_95: float | None = Field(description="one-day expected shortfall at 95 %, positive loss fraction")
    close: float | None = Field(description="last close, in the currency")
    currency: str | None
    undefined: dict[str, str] | None = Field(
        None, description="only where a field holds no number: why it is null", examples=[{"var_95": "not a number"}]
    )


class PublicationInfo(BaseModel):
    """Which publication an answer is from."""

    session: date = Field(examples=["2023-06-30"])
    version: int = Field(description="version of the published table", examples=[12])
    published_at: datetime = Field(examples=["2023-07-01T00:31:04Z"])
    digest: str = Field(description="of the content", examples=["8d0c2b1f9a7e6d5c4b3a2918"])


class PredictionPage(BaseModel):
    """One page of predictions."""

    publication: PublicationInfo
    total: int = Field(description="rows that match on all pages", examples=[9])
    unpredicted: int = Field(description="symbols without a prediction; see /api/unpredicted", examples=[1])
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last", examples=[None])
    predictions: list[Prediction]


class PredictionColumns(BaseModel):
    """One page of predictions, one array a field: half as large as rows.

    Numbers have seven significant digits, as the features that they are made of; prices have all of theirs.
    """

    publication: PublicationInfo
    total: int = Field(description="rows that match on all pages", examples=[2])
    unpredicted: int = Field(description="symbols without a prediction; see /api/unpredicted", examples=[1])
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last", examples=[None])
    digits: int = Field(description="significant digits of the numbers", examples=[7])
    columns: dict[str, list[float | str | None]] = Field(
        description="the fields of a prediction, each with one value a row",
        examples=[{"symbol": ["IBM", "AAPL"], "expected_return": [0.0021, -0.0004]}],
    )
    undefined: dict[str, dict[str, str]] = Field(
        description="by prediction id and field: why a value is null", examples=[{}]
    )


class Lineage(BaseModel):
    """Everything that made a prediction, enough to make it again."""

    model_config = ConfigDict(extra="allow")

    model_name: str | None
    model_version: int | str | None
    arm: str | None
    fallback_level: int | None
    fallback_reason: str | None
    feature_set_hash: str | None = Field(examples=["c0ffee0123456789"])
    lake_version: int | str | None = Field(description="version of the data that it was made from", examples=["12"])
    config_version: int | str | None = Field(examples=["3f2a90b1"])
    code_version: str | None = Field(examples=["0.1.0+5002103"])
    seed: int | None = Field(examples=[7])
    published_at: datetime | None = None
    publication_id: str | None = None
    publication_version: int = Field(description="version of the published table it was read from", examples=[12])


class PredictionDetail(Prediction):
    """One prediction with its lineage."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE | {"lineage": LINEAGE}]})

    lineage: Lineage


class Unpredicted(BaseModel):
    """A symbol without a prediction, and why."""

    symbol: str = Field(examples=["META"])
    reason: str | None = Field(examples=["too little history"])
    detail: str | None = Field(examples=["180 of 252 sessions"])


class UnpredictedList(BaseModel):
    """All symbols of a session without a prediction."""

    publication: PublicationInfo
    total: int = Field(examples=[1])
    unpredicted: list[Unpredicted]


class Health(BaseModel):
    """The process is alive."""

    status: str = Field(examples=["ok"])
    version: str = Field(description="of the package", examples=["0.1.0"])


class Readiness(BaseModel):
    """The service can answer."""

    status: str = Field(examples=["ready"])
    publication: PublicationInfo
    age_seconds: float = Field(description="time since the publication", examples=[3600.5])
