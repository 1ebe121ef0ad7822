"""The settings model: every key that a configuration file may hold, with defaults and limits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from stock_pipeline.config.access import AccessSettings
from stock_pipeline.config.backtests import BacktestsSettings
from stock_pipeline.config.storage import StorageSettings
from stock_pipeline.config.tasks import TaskSettings
from stock_pipeline.config.workers import check_shared
from stock_pipeline.core.backtesting.settings import BacktestSettings
from stock_pipeline.core.market.source_settings import FilesSource, SourceSettings, TableFile
from stock_pipeline.core.modelling.promotion import PromotionPolicy
from stock_pipeline.core.modelling.search import SearchSettings
from stock_pipeline.core.modelling.settings import TrainingSettings
from stock_pipeline.core.parameters import Parameters
from stock_pipeline.core.prediction.adaptive import AdaptiveSettings
from stock_pipeline.core.prediction.conformal import ConformalSettings
from stock_pipeline.core.prediction.coverage import CoverageSettings
from stock_pipeline.core.prediction.publish import PublicationSettings
from stock_pipeline.core.prediction.score import ScoreSettings
from stock_pipeline.core.quality.settings import QualityRules
from stock_pipeline.core.risk.settings import RiskSettings

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


def _unique(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each name may be listed once; listed again: {', '.join(twice)}")
    return names


UniqueNames = Annotated[list[str], AfterValidator(_unique)]


class History(Parameters):
    """Years that the market's yearly partitions span."""

    first: int = Field(1990, ge=1900, le=2200, description="first year")
    last: int | None = Field(None, ge=1900, le=2200, description="last year of a market that has ended; null = now")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"last ({self.last}) must not be before first ({self.first})")
        return self


class MarketSettings(Parameters):
    """Which market this is."""

    name: Name = Field(description="a short name; it names the registered model as well")
    calendar: str = Field(description="exchange calendar such as XNYS, XSHG, XTKS, XNSE or 24/7")
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 code")
    history: History = History()
    owner: str = Field(
        "team:quant",
        pattern=r"^(team:[A-Za-z0-9_-]+|[^@\s:]+@[^@\s:]+\.[^@\s:]+)$",
        description="owner shown on every asset: team:NAME or an e-mail address",
    )


class UniverseSettings(Parameters):
    """Which symbols are predicted and traded, and when."""

    symbols: Literal["all"] | list[str] = Field("all", description="all, or a list of symbols")
    membership: TableFile | None = Field(
        None, description="file of symbol, start, end: who belongs to the universe when (also source.membership)"
    )
    min_history: int = Field(252, ge=2, le=5000, description="sessions a symbol needs before it is predicted")

    @field_validator("symbols", mode="before")
    @classmethod
    def _all_or_some(cls, value: Any) -> Any:
        if value == "all" or (isinstance(value, list) and value and all(isinstance(item, str) for item in value)):
            return value
        if isinstance(value, list) and value:
            odd = next(item for item in value if not isinstance(item, str))
            raise ValueError(f"{odd!r} is not text; write symbols in quotes, such as '{odd}'")
        raise ValueError("write all, or a list of symbols such as [AAPL, '600000']")


class GateSettings(Parameters):
    """Limits at which blocking checks stop what is downstream."""

    max_quarantined_share: float = Field(0.25, ge=0, le=1, description="of the newest session's rows")


class FeatureSettings(Parameters):
    """Which features are computed."""

    sets: UniqueNames = Field(["technical", "statistical"], min_length=1, description="named feature sets")
    exclude: list[str] = Field([], description="features left out")
    modules: list[str] = Field([], description="dotted paths of users' own feature modules")
    missing_columns: Literal["error", "drop"] = Field(
        "error", description="what to do with features that need a column which the vendor does not deliver"
    )


class ModelSettings(Parameters):
    """What is trained and how it is judged."""

    families: UniqueNames = Field(["lightgbm", "ridge"], min_length=1, description="model families to train")
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


_PATH = r"^(/[a-z0-9_-]+)?$"


class ServiceSettings(Parameters):
    """Addresses of the services that `make dev` starts."""

    host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=1, le=65535)
    dagster_port: int = Field(3000, ge=1, le=65535)
    mlflow_port: int = Field(5000, ge=1, le=65535)
    dagster_path: str = Field(
        "", pattern=_PATH, description="path of Dagster's web UI behind a proxy, such as /dagster; empty: its root"
    )
    mlflow_path: str = Field("", pattern=_PATH, description="the same for MLflow's web UI, such as /mlflow")

    @model_validator(mode="after")
    def _paths_of_their_own(self) -> Self:
        if self.dagster_path and self.dagster_path == self.mlflow_path:
            raise ValueError(f"dagster_path and mlflow_path must differ; both are {self.dagster_path}")
        return self


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
    access: AccessSettings = AccessSettings()
    tasks: TaskSettings = TaskSettings()
    config_file: Path = Path()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, value: Any) -> Any:
        """A section whose keys are all commented out is as good as absent."""
        if not isinstance(value, dict):
            return value
        return {key: below for key, below in value.items() if below is not None or key not in cls.model_fields}

    @model_validator(mode="after")
    def _one_membership(self) -> Self:
        if self.universe.membership is not None and self.source.membership is not None:
            raise ValueError("universe.membership and source.membership are the same file; keep one")
        return self

    def resolved(self, folder: Path, environment: Mapping[str, str]) -> Settings:
        """Make every path absolute, relative to `folder`, look up ``env:NAME`` values, fill the storage addresses.

        Raises
        ------
        ConfigurationError
            A variable is not set, or parts do not go together.
        """
        home = (folder / self.home.expanduser()).resolve()
        source = self.source
        if self.universe.membership is not None:
            source = source.model_copy(update={"membership": self.universe.membership})
        if self.tasks.workers is not None:
            self.tasks.workers.address(environment)  # refused here rather than when the first run is handed out
        resolved = self.model_copy(
            update={
                "home": home,
                "storage": self.storage.resolved(folder, home, environment),
                "source": _source(source, folder),
                "access": self.access.resolved(environment),
            }
        )
        check_shared(resolved)
        return resolved

    @property
    def backtest(self) -> BacktestSettings:
        """Settings of one back-test, with what follows from the market."""
        return self.backtests.settings(self.market.calendar)

    @property
    def scoring(self) -> ScoreSettings:
        """What a symbol needs to be predicted, with the universe's minimum history."""
        return self.predictions.score.model_copy(update={"min_history": self.universe.min_history})

    @property
    def version(self) -> str:
        """Hash of everything that can change a result (not of where things are kept)."""
        content = self.model_dump_json(
            exclude={"home", "storage", "services", "alerts", "schedules", "access", "tasks", "config_file"}
        )
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def _source(source: SourceSettings, folder: Path) -> SourceSettings:
    """Make the paths of a source absolute."""

    def absolute(path: str) -> str:
        return str((folder / Path(path).expanduser()).resolve())

    update: dict[str, Any] = {"path": absolute(source.path)} if isinstance(source, FilesSource) else {}
    for name in ("events", "membership", "benchmark"):
        file = getattr(source, name, None)
        if isinstance(file, TableFile):
            update[name] = file.model_copy(update={"path": absolute(file.path)})
    return source.model_copy(update=update)
