"""The settings model: every key that a configuration file may hold, with defaults and limits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stock_pipeline.core.backtesting.settings import BacktestSettings
from stock_pipeline.core.market.source_settings import SourceSettings
from stock_pipeline.core.modelling.promotion import PromotionPolicy
from stock_pipeline.core.modelling.search import SearchSettings
from stock_pipeline.core.modelling.settings import TrainingSettings
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.core.prediction.adaptive import AdaptiveSettings
from stock_pipeline.core.prediction.conformal import ConformalSettings
from stock_pipeline.core.prediction.coverage import CoverageSettings
from stock_pipeline.core.prediction.drift import DriftSettings
from stock_pipeline.core.prediction.publish import PublicationSettings
from stock_pipeline.core.prediction.score import ScoreSettings
from stock_pipeline.core.quality.settings import QualityRules
from stock_pipeline.core.risk.settings import RiskSettings

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


class History(Parameters):
    """Years that the market's yearly partitions span."""

    first: int = Field(1990, ge=1900, le=2200, description="first year")
    last: int | None = Field(None, ge=1900, le=2200, description="last year of a market that has ended; null = now")


class MarketSettings(Parameters):
    """Which market this is."""

    name: Name = Field(description="a short name; it names the registered model as well")
    calendar: str = Field(description="exchange calendar such as XNYS, XSHG, XTKS, XNSE or 24/7")
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 code")
    history: History = History()
    owner: str = Field("team:quant", description="owner shown on every asset: team:NAME or an e-mail address")


class UniverseSettings(Parameters):
    """Which symbols are predicted and traded, and when."""

    symbols: Literal["all"] | list[str] = Field("all", description="all, or a list of symbols")
    min_history: int = Field(252, ge=2, le=5000, description="sessions a symbol needs before it is predicted")


class GateSettings(Parameters):
    """Limits at which blocking checks stop what is downstream."""

    max_quarantined_share: float = Field(0.25, ge=0, le=1, description="of the newest session's rows")


class FeatureSettings(Parameters):
    """Which features are computed."""

    sets: list[str] = Field(["technical", "statistical"], min_length=1, description="named feature sets")
    exclude: list[str] = Field([], description="features left out")
    modules: list[str] = Field([], description="dotted paths of users' own feature modules")
    missing_columns: Literal["error", "drop"] = Field(
        "error", description="what to do with features that need a column which the vendor does not deliver"
    )


class ModelSettings(Parameters):
    """What is trained and how it is judged."""

    families: list[str] = Field(["lightgbm", "ridge"], min_length=1, description="model families to train")
    parameters: dict[str, dict[str, Any]] = Field({}, description="parameters by family")
    horizon: int = Field(5, ge=1, le=252, description="sessions that a prediction looks ahead")
    seed: int = Field(7, ge=0, le=2**31 - 1, description="seed of everything random")
    train: TrainingSettings = TrainingSettings()
    search: SearchSettings | None = Field(
        default=None, description="search hyper-parameters before training; null: use those given, or the defaults"
    )
    promotion: PromotionPolicy = PromotionPolicy()

    @property
    def training(self) -> TrainingSettings:
        """Settings of training with the horizon of the predictions."""
        return self.train.model_copy(update={"horizon": self.horizon})


class PredictionSettings(Parameters):
    """Intervals, what a symbol needs to be predicted, and the gate before publication."""

    conformal: ConformalSettings = ConformalSettings()
    adaptive: AdaptiveSettings = AdaptiveSettings()
    coverage: CoverageSettings = CoverageSettings()
    score: ScoreSettings = ScoreSettings()
    publication: PublicationSettings = PublicationSettings()
    drift: DriftSettings = DriftSettings()


class StrategySettings(Parameters):
    """One strategy to backtest."""

    name: str = Field(description="a registered strategy")
    parameters: dict[str, Any] = Field({}, description="its parameters; the defaults where left out")


class BacktestsSettings(Parameters):
    """Which strategies are backtested, under which rules."""

    strategies: list[StrategySettings] = Field(
        [StrategySettings(name=name) for name in ("buy_and_hold", "sma_cross", "momentum_rank", "model_rank")]
    )
    modules: list[str] = Field([], description="dotted paths of users' own strategy modules")
    settings: BacktestSettings = BacktestSettings()

    @field_validator("strategies", mode="before")
    @classmethod
    def _names_are_enough(cls, value: Any) -> Any:
        return (
            [{"name": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value
        )

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [strategy.name for strategy in self.strategies]
        if len(set(names)) != len(names):
            raise ValueError("each strategy may be listed once")
        return self


class StorageSettings(Parameters):
    """Where state is kept; everything defaults to the home folder."""

    lake: str | None = Field(None, description="folder or object-store address of the tables")
    options: dict[str, str] = Field({}, description="object-store options")
    mlflow: str | None = Field(None, description="MLflow tracking URI; a file in the home folder by default")
    artifacts: str | None = Field(None, description="folder or address of model files")
    metadata: str | None = Field(None, description="SQLAlchemy address of the metadata database")
    lake_uri: str = ""
    mlflow_uri: str = ""
    artifacts_uri: str = ""
    metadata_url: str = ""


class ScheduleSettings(Parameters):
    """When work runs by itself; off until switched on here or in the web UI."""

    enabled: bool = False
    nightly_after_close_minutes: int = Field(90, ge=0, le=1440)
    retrain_weekday: int = Field(5, ge=0, le=6, description="0 = Monday ... 6 = Sunday, exchange time")
    stale_after_sessions: int = Field(2, ge=1, le=30, description="sessions without new bars before an alert")
    keep_runs_days: int = Field(180, ge=7)


class AlertSettings(Parameters):
    """Where alerts go besides the log."""

    targets: list[str] = Field(
        [], description="Apprise addresses; env:NAME reads one from an environment variable, so that no secret is here"
    )
    group_minutes: int = Field(10, ge=0, le=1440)
    suppress_minutes: int = Field(360, ge=0, le=10080)


class ServiceSettings(Parameters):
    """Addresses of the services that `make dev` starts."""

    host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=1, le=65535)
    dagster_port: int = Field(3000, ge=1, le=65535)
    mlflow_port: int = Field(5000, ge=1, le=65535)


class Settings(Parameters):
    """The whole configuration of one market."""

    environment: Literal["dev", "test", "prod"] = "dev"
    home: Path = Field(Path("data/home"), description="folder of everything that is made at run time")
    market: MarketSettings
    source: SourceSettings
    universe: UniverseSettings = UniverseSettings()
    quality: QualityRules = QualityRules()
    gates: GateSettings = GateSettings()
    features: FeatureSettings = FeatureSettings()
    models: ModelSettings = ModelSettings()
    predictions: PredictionSettings = PredictionSettings()
    risk: RiskSettings = RiskSettings()
    backtests: BacktestsSettings = BacktestsSettings()
    storage: StorageSettings = StorageSettings()
    schedules: ScheduleSettings = ScheduleSettings()
    alerts: AlertSettings = AlertSettings()
    services: ServiceSettings = ServiceSettings()
    config_file: Path = Path()

    def resolved(self, folder: Path) -> Settings:
        """Make every path absolute, relative to `folder`, and fill the storage addresses."""
        home = (folder / self.home.expanduser()).resolve()
        storage = self.storage.model_copy(
            update={
                "lake_uri": _address(self.storage.lake, folder, home / "lake"),
                "mlflow_uri": self.storage.mlflow or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
                "artifacts_uri": _address(self.storage.artifacts, folder, home / "mlflow" / "artifacts"),
                "metadata_url": self.storage.metadata or f"sqlite:///{home / 'metadata.db'}",
            }
        )
        return self.model_copy(update={"home": home, "storage": storage, "source": _source(self.source, folder)})

    @property
    def scoring(self) -> ScoreSettings:
        """What a symbol needs to be predicted, with the universe's minimum history."""
        return self.predictions.score.model_copy(update={"min_history": self.universe.min_history})

    @property
    def version(self) -> str:
        """Hash of everything that can change a result (not of where things are kept)."""
        content = self.model_dump_json(exclude={"home", "storage", "services", "alerts", "schedules", "config_file"})
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def _source(source: SourceSettings, folder: Path) -> SourceSettings:
    """Make the paths of a files source absolute."""
    if source.kind != "files":
        return source
    update: dict[str, Any] = {"path": str((folder / Path(source.path).expanduser()).resolve())}
    for name in ("events", "membership", "benchmark"):
        file = getattr(source, name)
        if file is not None:
            path = str((folder / Path(file.path).expanduser()).resolve())
            update[name] = file.model_copy(update={"path": path})
    return source.model_copy(update=update)


def _address(given: str | None, folder: Path, default: Path) -> str:
    if given is None:
        return str(default)
    return given if "://" in given else str((folder / Path(given).expanduser()).resolve())
