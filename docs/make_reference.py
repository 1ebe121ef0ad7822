"""Write the pages of ``docs/reference`` from the code, so that they cannot tell anything else than the code does.

Run ``python docs/make_reference.py`` after a change of settings, features, rules, strategies, commands or tables; a
test compares the pages with what this script would write.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import polars as pl
from pydantic import BaseModel
from pydantic.fields import FieldInfo

FOLDER = Path(__file__).resolve().parent / "reference"
HEAD = "<!-- Written by docs/make_reference.py from the code. Do not edit: run the script. -->\n\n"

MADE_BY_THE_PLATFORM = {
    "config_file", "storage.lake_uri", "storage.mlflow_uri", "storage.artifacts_uri", "storage.metadata_url",
    "models.train.horizon", "predictions.score.min_history",
}  # fmt: skip
"""Fields of the settings that the platform fills itself."""

OTHER_SPELLINGS = {
    "backtests.costs": [
        ["`backtests.costs.commission_bps`", "`number`", "", "≥ 0, ≤ 1000", "commission_rate in basis points; give one"]
    ],
}
"""Keys that are read although no field has their name, by section."""

COLUMN_NOTES = {
    "batch": "number of the delivery in which the row arrived; the newest of a key is in force",
    "rules": "names of the rules that caught the row",
    "reason": "why, in words",
    "rule": "the rule that caught the row",
    "severity": "quarantine, repair or warn",
    "field": "the column that is meant",
    "value": "the offending value",
    "expected": "the limit, or the value that was expected",
    "message": "a sentence for people",
    "score": "quality score, 0 to 100",
    "start": "first session of membership",
    "end": "last session of membership; null: still a member",
    "fold": "walk-forward fold from 1; 0: the hold-out",
    "prediction": "the model's output, on the scale of the return",
    "label": "the return that came true; null while unknown",
    "label_session": "session whose price completed the return",
    "volatility_daily": "EWMA volatility a session, fraction",
    "max_drawdown_252": "largest loss from a peak within 252 sessions, at most 0",
    "sharpe_252": "annualised Sharpe ratio of 252 sessions, over a rate of zero",
    "risk_method": "how VaR and ES were computed",
    "risk_reason": "why there is no VaR; null where there is one",
    "prediction_id": "32 hexadecimal digits that name symbol, session, horizon, model, features and data",
    "horizon": "sessions that the prediction looks ahead",
    "coverage_target": "share of outcomes that intervals shall hold",
    "interval_level": "level aimed at that night, adapted to recent misses",
    "rank": "1 for the highest expected return of the session",
    "model_name": "family, or naive",
    "model_version": "version in the model registry",
    "arm": "which arm of a comparison made it",
    "feature_set_hash": "identity of the features' definitions",
    "lake_version": "Delta version of market/validated_bars that was read",
    "config_version": "hash of the settings that can change a result",
    "code_version": "hash of the source below stock_pipeline/core",
    "seed": "seed of training",
    "model_checksum": "checksum of the model's files",
    "superseded": "true once a later scoring of the same symbol and session replaced it",
    "detail": "the numbers behind the reason",
    "realised_return": "the return that came true, fraction over the horizon",
    "inside": "whether it lies in the interval",
    "error": "realised less expected return",
    "hit": "whether the sign was right; null where either is 0",
    "input_hash": "hash of the input rows of the session",
    "parameters": "hash or JSON of what else decided the result",
}
"""Meanings of columns that `orchestration.specs.COLUMNS` does not describe."""


def main() -> None:
    """Write every page whose content has changed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{name} written\n")


def pages() -> dict[str, str]:
    """Every generated page: file name to content."""
    makers: dict[str, Callable[[], str]] = {
        "configuration.md": configuration,
        "features.md": features,
        "quality-rules.md": quality_rules,
        "strategies.md": strategies,
        "cli.md": commands,
        "tables.md": tables,
    }
    return {name: HEAD + make().rstrip() + "\n" for name, make in makers.items()}


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; line breaks and pipes in cells are made harmless."""
    lines = [" | ".join(headings), " | ".join("---" for _ in headings)]
    lines += [" | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def code(text: object) -> str:
    """Inline code, or nothing for an empty text."""
    return f"`{text}`" if str(text) else ""


# ---------------------------------------------------------------------------------------------- configuration


def configuration() -> str:
    """Every key of a configuration file."""
    from stock_pipeline.config.settings import Settings

    text = (
        "# Configuration\n\n"
        "Every key that a configuration file may hold. An unknown key or a value out of range stops the program with\n"
        "a message that names the key, the value and what is allowed. Where a value comes from, last one wins:\n\n"
        "1. the defaults below;\n"
        "2. the file: `--config FILE`, else `$STOCK_PIPELINE_CONFIG`, else `stock_pipeline.yaml` in the working\n"
        "   folder, else the sample market;\n"
        "3. `<file>.<environment>.yaml` beside it, such as `stock_pipeline.prod.yaml` for `environment: prod`;\n"
        "4. environment variables: `STOCK_PIPELINE__MODELS__HORIZON=10` sets `models.horizon` (values are read as\n"
        "   YAML); `STOCK_PIPELINE_HOME` sets `home`.\n\n"
        "Lists and single values are replaced whole, sections are merged. Relative paths start at the folder of the\n"
        "file. Only `market` and `source` must be given. A parameter model such as `quality` may be written in part.\n"
    )
    sections: dict[str, list[list[str]]] = {}
    titles: dict[str, str] = {}
    for section, help_text, row in _keys(Settings, "", "Top level"):
        rows = sections.setdefault(section, [])
        if row not in rows:  # the same small section stands below several kinds of source
            rows.append(row)
        titles[section] = help_text
    for section, rows in sections.items():
        rows += OTHER_SPELLINGS.get(section, [])
        heading = section if section == "Top level" else f"`{section}`"
        text += f"\n## {heading}\n\n{titles[section]}\n\n{table(('key', 'type', 'default', 'limits', 'meaning'), rows)}"
    return text


def _keys(model: type[BaseModel], prefix: str, section: str) -> Iterator[tuple[str, str, list[str]]]:
    """Rows of one settings model, then those of the models below it."""
    below: list[tuple[type[BaseModel], str, str]] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if key in MADE_BY_THE_PLATFORM:
            continue
        models = _models_in(field.annotation)
        is_list = get_origin(_plain(field.annotation)) in (list, tuple)
        if models and not is_list:
            for kind in models:
                label = key if len(models) == 1 else f"{key} (kind: {kind.model_fields['kind'].default})"
                below.append((kind, f"{key}.", label))
            if _optional(field.annotation):
                yield section, _summary(model), _row(key, field)
            continue
        yield section, _summary(model), _row(key, field)
        below += [(kind, f"{key}[].", f"{key}[]") for kind in models]
    for kind, start, label in below:
        yield from _keys(kind, start, label)


def _row(key: str, field: FieldInfo) -> list[str]:
    chooses = key == "source.kind"  # it says which of the sections counts, so its default is of no use
    return [code(key), code(_type(field.annotation)), _default(field, chooses), _limits(field), field.description or ""]


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _plain(annotation: Any) -> Any:
    """The annotation without ``Annotated`` and without ``| None``."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        left = [a for a in get_args(annotation) if a is not NoneType]
        return _plain(left[0]) if len(left) == 1 else annotation
    return annotation


def _optional(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join("null" if a is NoneType else _type(a) for a in arguments)
    if origin is Literal:
        return ", ".join(str(a) for a in arguments)
    if origin in (list, tuple, set):
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])}: {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true, false", "Any": "anything"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name.lower())


def _default(field: FieldInfo, chooses: bool = False) -> str:
    if field.is_required() or chooses:
        return "**must be given**"
    value = field.get_default(call_default_factory=True, validated_data={})
    return code(_shown(value))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, BaseModel):
        return value.name if hasattr(value, "name") else "see below"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_shown(v) or '""' for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) + "}"
    return str(value)


def _limits(field: FieldInfo) -> str:
    words = {
        "ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}",
        "min_length": "at least {} long", "max_length": "at most {} long", "pattern": "pattern `{}`",
    }  # fmt: skip
    metadata = [*field.metadata, *_inner_metadata(field.annotation)]
    found = [
        words[name].format(getattr(item, name))
        for item in metadata
        for name in words
        if getattr(item, name, None) is not None
    ]
    return ", ".join(dict.fromkeys(found))


def _inner_metadata(annotation: Any) -> list[Any]:
    """Constraints that stand inside an annotation, such as those of ``Annotated[str, Field(pattern=...)]``."""
    if get_origin(annotation) is not Annotated:
        return [item for argument in get_args(annotation) for item in _inner_metadata(argument)]
    found: list[Any] = []
    for item in get_args(annotation)[1:]:
        found += item.metadata if isinstance(item, FieldInfo) else [item]
    return found


# ------------------------------------------------------------------------------- features, rules, strategies


def features() -> str:
    """Every registered feature, set by set."""
    from stock_pipeline.core.features import describe, feature_set, sets

    text = (
        "# Features\n\n"
        "Choose sets or single features in `features.sets`, leave some out with `features.exclude`, and add your own\n"
        "with `features.modules` ([how](../how-to/add-a-feature.md)). All are computed from adjusted prices; a value\n"
        "of a session depends on that session and on as many earlier bars of the symbol as the look-back says. Where\n"
        "the look-back is not full, or the value is undefined, it is null.\n"
    )
    for name, members in sets().items():
        if not any(feature.is_builtin for feature in feature_set([name]).features):
            continue
        text += f"\n## `{name}`: {len(members)} features\n\n"
        rows = [
            [code(r["name"]), r["description"], r["inputs"], r["lookback"], _kind(r["kind"]), r["source"]]
            for r in describe(feature_set([name])).iter_rows(named=True)
        ]
        text += table(("feature", "what it is", "inputs", "look-back", "kind", "source"), rows)
    return text


def _kind(kind: str) -> str:
    return kind if kind != "symbol" else "of the symbol alone"


def quality_rules() -> str:
    """Every built-in rule of validation."""
    from stock_pipeline.core.quality.registry import all_rules
    from stock_pipeline.core.quality.user_rules import COLUMNS, DERIVED, FUNCTIONS, WORDS

    rows = []
    for rule in all_rules().values():
        actions = ", ".join(rule.allowed_actions) if not rule.fixed else "fixed"
        settings = ", ".join(code(f"quality.{name}") for name in rule.parameters)
        rows.append([code(rule.name), rule.severity, rule.description, rule.remedy, settings, actions])
    derived = [[code(name), meaning] for name, (_, meaning) in DERIVED.items()]
    return (
        "# Quality rules\n\n"
        "Every raw bar ends as *clean*, *repaired* (the original is kept) or *quarantined* (with these names). What a\n"
        "rule does is changed by `quality.actions`, its limits by the settings it names\n"
        "([configuration](configuration.md)). Rules of your own: [how](../how-to/write-a-quality-rule.md).\n\n"
        + table(("rule", "action", "what it looks for", "what to do", "settings", "may become"), rows)
        + "\n## Words of your own rules\n\n"
        f"Columns: {', '.join(code(c) for c in COLUMNS if c not in DERIVED)}.\n\n"
        + table(("derived column", "meaning"), derived)
        + f"\nFunctions: {', '.join(code(f) for f in FUNCTIONS)}.\n\nWords: {', '.join(code(w) for w in WORDS)}.\n"
    )


def strategies() -> str:
    """Every built-in strategy with its parameters."""
    from stock_pipeline.core.backtesting.strategies import registry

    text = (
        "# Strategies\n\n"
        "Named in `backtests.strategies` or after `stock-pipeline backtest`. A strategy decides at the close of a\n"
        "session; its orders are executed at the next one. Your own are named by their dotted path\n"
        "`package.module:Class` ([how](../how-to/add-a-strategy.md)).\n"
    )
    for name in registry.names():
        strategy = registry.get(name)
        text += f"\n## `{name}`\n\n{inspect.cleandoc(strategy.__doc__ or strategy.description)}\n\n"
        rows = [
            [code(key), code(_type(field.annotation)), _default(field), _limits(field), field.description or ""]
            for key, field in strategy.Parameters.model_fields.items()
        ]
        text += table(("parameter", "type", "default", "limits", "meaning"), rows) if rows else "No parameters.\n"
    return text


# ------------------------------------------------------------------------------------------------- commands


def commands() -> str:
    """Every command of the command line."""
    import typer

    import stock_pipeline.cli
    from stock_pipeline.cli.app import app

    for module in pkgutil.iter_modules(stock_pipeline.cli.__path__):  # they register their commands
        importlib.import_module(f"stock_pipeline.cli.{module.name}")
    group: Any = typer.main.get_command(app)
    text = (
        "# Command line\n\n"
        "`stock-pipeline [OPTIONS] COMMAND ...`, also as `python -m stock_pipeline`. Results go to standard output,\n"
        "progress and errors to standard error. `NO_COLOR=1` takes the colours away.\n\n"
        "| exit code | means |\n| --- | --- |\n| 0 | done |\n"
        "| 1 | it could not be done: one message says what is wrong, what is allowed and how to mend it; or what was "
        "looked at is not good: `doctor`, `audit verify`, a task that failed |\n"
        "| 2 | the command or an option does not exist or lacks something; a replay that differs |\n"
        "| 130 | stopped with Ctrl-C |\n\n"
        "Options of every command stand before it:\n\n"
    )
    text += _options(group)
    for name, command in sorted(_flatten(group)):
        text += f"\n## `{name}`\n\n{command.help}\n\n{_options(command)}"
    return text


def _flatten(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        full = f"{prefix}{name}"
        if hasattr(command, "commands"):
            yield from _flatten(command, f"{full} ")
        else:
            yield full, command


def _options(command: Any) -> str:
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        argument = parameter.param_type_name == "argument"
        names = parameter.name.upper() if argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
        if parameter.multiple or parameter.nargs == -1:
            names += " ..."
        kind = parameter.type
        choices = getattr(kind, "choices", None)
        shown = (
            ", ".join(str(getattr(choice, "value", choice)) for choice in choices)
            if choices
            else {"datetime": "YYYY-MM-DD", "str": "text", "integer": "number", "boolean": "flag"}.get(
                kind.name, kind.name
            )
        )
        default = (
            "must be given" if parameter.required else code(_shown(parameter.default)) if parameter.default else ""
        )
        rows.append([code(names), shown, default, parameter.help or ""])
    return table(("argument or option", "value", "default", "meaning"), rows) if rows else "No options.\n"


# --------------------------------------------------------------------------------------------------- tables


def tables() -> str:
    """Every table of the lake."""
    from stock_pipeline.orchestration.specs import COLUMNS

    notes = {**COLUMN_NOTES, **COLUMNS}
    text = (
        "# Tables of the lake\n\n"
        "Delta Lake tables below `<home>/lake`, named like the assets that write them. Polars, DuckDB, Spark and\n"
        "pandas read them; `stock-pipeline show` prints the important ones. Tables with a column `session` are\n"
        "stored in one folder a year. Every write is one commit: a reader sees all of it or nothing.\n"
    )
    for name, (description, schema, specific) in lake_tables().items():
        text += f"\n## `{name}`\n\n{description}\n"
        if schema:
            rows = [[code(c), _dtype(t), {**notes, **specific}.get(c, "")] for c, t in schema.items()]
            text += "\n" + table(("column", "type", "meaning"), rows)
    return text


def lake_tables() -> dict[str, tuple[str, Mapping[str, Any], dict[str, str]]]:
    """Tables by name: description, schema, and meanings of columns that are special to the table."""
    from stock_pipeline.core.backtesting.result import EQUITY_SCHEMA
    from stock_pipeline.core.backtesting.trades import TRADE_SCHEMA
    from stock_pipeline.core.market.bars import QUARANTINED_SCHEMA, VALIDATED_SCHEMA
    from stock_pipeline.core.market.universe import MEMBERSHIP_SCHEMA
    from stock_pipeline.core.modelling.training import OOS_SCHEMA
    from stock_pipeline.core.prediction.outcomes import OUTCOME_COLUMNS
    from stock_pipeline.core.prediction.schema import UNPREDICTED_SCHEMA
    from stock_pipeline.core.quality.registry import FINDINGS_SCHEMA
    from stock_pipeline.core.quality.validate import SCORES_SCHEMA
    from stock_pipeline.core.risk.symbol_risk import RISK_SCHEMA
    from stock_pipeline.orchestration.backtesting import TRIALS_SCHEMA
    from stock_pipeline.orchestration.scoring import SCORED_SCHEMA
    from stock_pipeline.storage.raw_bars import SCHEMA as RAW_SCHEMA
    from stock_pipeline.storage.watermarks import HASH_SCHEMA

    number, text, day, whole = pl.Float64(), pl.String(), pl.Date(), pl.Int64()
    made = {
        "label_session": day,
        "realised_return": number,
        "inside": pl.Boolean(),
        "error": number,
        "hit": pl.Boolean(),
    }
    outcomes = {name: {**SCORED_SCHEMA, **made}[name] for name in OUTCOME_COLUMNS}
    fills = {
        "session": day, "symbol": text, "side": text, "shares": number, "price": number, "value": number,
        "commission": number, "stamp_duty": number, "transfer_fee": number, "slippage": number, "reason": text,
        "moment": text, "units": number, "adjusted_price": number,
    }  # fmt: skip
    fill_notes = {
        "side": "buy or sell", "shares": "raw shares", "price": "raw price after slippage, in currency",
        "value": "traded value, in currency", "commission": "currency", "stamp_duty": "currency",
        "transfer_fee": "currency", "slippage": "currency, already in the price",
        "reason": "signal, stop, drawdown stop, delisting or end",
        "moment": "where in the session it happened", "units": "adjusted shares that the accounts keep",
        "adjusted_price": "price x adjustment factor",
    }  # fmt: skip
    trade_notes = {
        "side": "long or short", "opened": "session", "closed": "session; null while open", "sessions": "held",
        "shares": "largest size", "entry_price": "average, raw", "exit_price": "average, raw",
        "pnl": "currency, after costs", "return": "fraction, after costs", "costs": "currency",
        "fills": "number of fills", "exit_reason": "reason of the last fill",
    }  # fmt: skip
    equity_notes = {
        "equity": "currency, at the close", "cash": "currency", "return": "fraction of the session",
        "drawdown": "from the highest equity, at most 0", "gross_exposure": "sum of absolute weights",
        "net_exposure": "sum of weights", "positions": "number held", "turnover": "traded value over equity before",
        "costs": "currency of the session", "borrow": "currency of the session",
        "buy_and_hold": "the capital grown without costs by equal parts of what had a bar in the first session",
        "benchmark": "the capital grown by the benchmark; null where there is none",
    }  # fmt: skip
    walk_forward = {
        **dict.fromkeys(("symbol", "session", "fold", "prediction", "label", "label_session")), "volatility": number,
        "lower": number, "upper": number, "interval_level": number, "inside": pl.Boolean(), "horizon": whole,
        "model_version": text,
    }  # fmt: skip
    walk_forward = {name: dtype or OOS_SCHEMA[name] for name, dtype in walk_forward.items()}
    var_backtest = {
        "symbol": text, "level": number, "observations": whole, "exceedances": whole, "exceedance_rate": number,
        "expected_rate": number, "kupiec_statistic": number, "kupiec_p": number, "independence_statistic": number,
        "independence_p": number, "conditional_statistic": number, "conditional_p": number, "es_z2": number,
        "es_critical": number, "es_p": number,
    }  # fmt: skip
    var_notes = {
        "level": "0.95 or 0.99", "observations": "sessions with a forecast and a return",
        "exceedances": "losses beyond the forecast", "exceedance_rate": "share", "expected_rate": "1 - level",
        "kupiec_p": "p-value: is the rate right?", "independence_p": "p-value (Christoffersen): do they cluster?",
        "conditional_p": "p-value of both together", "es_z2": "Acerbi and Szekely's second statistic of the shortfall",
        "es_critical": "value of it that is still acceptable", "es_p": "p-value of the shortfall's test",
    }  # fmt: skip
    return {
        "market/raw_bars": ("Prices as they came. Nothing is overwritten: a revised row is added.", RAW_SCHEMA, {}),
        "market/validated_bars": ("The only prices that anything below reads.", VALIDATED_SCHEMA, {}),
        "market/quarantined_bars": ("Rows that must not be used, as they came.", QUARANTINED_SCHEMA, {}),
        "market/quality_findings": ("What the rules noticed, also where the row passed.", FINDINGS_SCHEMA, {}),
        "market/quality_scores": ("One score for each symbol and session.", SCORES_SCHEMA, {}),
        "market/benchmark": ("The benchmark, where one is configured.", {"session": day, "close": number}, {}),
        "market/membership": ("The point-in-time universe, where one is configured.", MEMBERSHIP_SCHEMA, {}),
        "features/<set>": (
            "`symbol`, `session` and one Float32 column for each [feature](features.md) of the set.", {}, {},
        ),
        "risk/symbol_risk": ("Risk of the next session, from returns up to this one.", RISK_SCHEMA, {}),
        "risk/var_backtest": ("Is the value at risk right? One row a symbol and level.", var_backtest, var_notes),
        "models/oos_predictions/<family>": (
            "Walk-forward predictions of a family or naive baseline, made by models that had not seen the session. "
            "Those of a trained family carry the registered `model_version`: the newest, the champion's and the "
            "previous champion's.", OOS_SCHEMA, {},
        ),
        "models/walk_forward_intervals/<family>": (
            "Intervals that a trained family would have given over its walk-forward history, and whether they held.",
            walk_forward, {"volatility": "annualised, known at the session"},
        ),
        "predictions/scored": ("Every scoring, also superseded ones.", SCORED_SCHEMA, {}),
        "predictions/published": ("What readers and the API see: the scorings in force. Same columns.", {}, {}),
        "predictions/unpredicted": (
            "Symbols without a prediction.", UNPREDICTED_SCHEMA,
            {"reason": "not_a_member, quarantined_today, no_bar_today, too_little_history, missing_features or "
                       "no_volatility"},
        ),
        "predictions/outcomes": ("What became of published predictions.", outcomes, {}),
        "backtests/summary": ("One row a strategy: period, all figures, parameters, data and model version.", {}, {}),
        "backtests/equity/<strategy>": ("One row a session.", EQUITY_SCHEMA, equity_notes),
        "backtests/fills/<strategy>": ("Every fill.", fills, fill_notes),
        "backtests/trades/<strategy>": ("Round trips.", TRADE_SCHEMA, trade_notes),
        "backtests/monthly/<strategy>": (
            "Return by month.", {"year": pl.Int32(), "month": pl.Int8(), "return": number}, {"return": "fraction"},
        ),
        "backtests/trials": (
            "Every parameter set that was ever back-tested on this market: the number of trials for the deflated "
            "Sharpe ratio.", TRIALS_SCHEMA, {},
        ),
        "ops/watermarks/<table>": (
            "What each session of a derived table was computed from; "
            "[why](../concepts/data-flow.md#watermarks-what-is-new).",
            {**HASH_SCHEMA, "parameters": text}, {"parameters": "hash of settings and code"},
        ),
    }  # fmt: skip


def _dtype(dtype: Any) -> str:
    if isinstance(dtype, pl.Datetime):
        return f"Datetime, {dtype.time_zone}"
    return f"List of {_dtype(dtype.inner)}" if isinstance(dtype, pl.List) else str(dtype)


if __name__ == "__main__":
    main()
