"""Rules of users from configuration: a boolean condition on one bar, written in a small safe part of SQL.

The condition sees one row: its columns and a few values from earlier rows. It cannot aggregate over rows (that would
let later sessions decide), and it cannot reach files: every word is checked against a list before Polars reads it.
"""

from __future__ import annotations

import re
from typing import Literal

import polars as pl
from pydantic import Field, model_validator

from stock_pipeline.core.errors import ConfigurationError
from stock_pipeline.core.market.bars import BAR_SCHEMA
from stock_pipeline.core.parameters import Parameters

DERIVED: dict[str, tuple[str, str]] = {
    "previous_close": ("_previous_close", "close of the symbol's previous trading row"),
    "return_1": ("_simple_return", "adjusted close over the previous one, less 1"),
    "volume_ratio": ("_volume_ratio", "volume over its median of the last 20 sessions"),
    "sessions_missing": ("_missing", "sessions missing just before this row"),
}
"""Extra columns for conditions: name to (internal column, meaning); all from rows up to this one."""

COLUMNS = (*BAR_SCHEMA, *DERIVED)
FUNCTIONS = ("ABS", "LN", "LOG10", "SQRT", "EXP", "ROUND", "FLOOR", "CEIL", "COALESCE", "GREATEST", "LEAST", "UPPER",
             "LOWER", "LENGTH", "STARTS_WITH", "ENDS_WITH")  # fmt: skip
WORDS = ("AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE", "LIKE", "DATE")
_TOKEN = re.compile(
    r"\s+|'(?:[^']|'')*'|\d+\.?\d*(?:[eE][+-]?\d+)?|[A-Za-z_][A-Za-z0-9_]*|<=|>=|<>|!=|==|[-+*/%<>=(),]", re.ASCII
)
_ALLOWED = f"columns {', '.join(COLUMNS)}; functions {', '.join(FUNCTIONS)}; words {', '.join(WORDS)}; + - * / % < > ="


class UserRule(Parameters):
    """One rule of a user.

    Examples
    --------
    ``{name: penny_stock, when: "close < 1", action: warn, message: "Too cheap to trade"}``
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{1,40}$", description="lower case, digits and underscores")
    when: str = Field(min_length=1, max_length=1000, description="condition on one bar that catches it")
    action: Literal["quarantine", "warn"] = Field(default="warn", description="what happens to a row that is caught")
    message: str = Field(default="", max_length=300, description="the reason that people read")

    @model_validator(mode="after")
    def _check(self) -> UserRule:
        condition(self)
        return self

    @property
    def reason(self) -> str:
        """The message, or one made of the condition."""
        return self.message or f"caught by {self.name}: {self.when}"


def condition(rule: UserRule) -> pl.Expr:
    """Translate the condition of a rule.

    Parameters
    ----------
    rule
        The rule; its ``when`` is checked word by word.

    Returns
    -------
    polars.Expr
        Boolean, elementwise, on the internal columns of a validation.

    Raises
    ------
    ConfigurationError
        Where a word, a character or the type of the condition is not allowed.
    """
    key = f"quality.user_rules.{rule.name}.when"
    _check_words(key, rule.when)
    try:
        expression = pl.sql_expr(rule.when)
        empty = pl.DataFrame(schema={**BAR_SCHEMA, **{name: pl.Float64() for name in DERIVED}})
        kind = empty.select(expression.alias("hit")).schema["hit"]
    except Exception as error:  # Polars raises many kinds for text that it cannot read
        raise ConfigurationError(f"{key} cannot be read ({error})", value=rule.when, allowed=_ALLOWED) from error
    if kind != pl.Boolean:
        raise ConfigurationError(f"{key} is not a condition", value=rule.when, allowed="something true or false")
    return expression


def _check_words(key: str, text: str) -> None:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ConfigurationError(
                f"{key} has a character that is not allowed", value=text[position], allowed=_ALLOWED
            )
        word = match.group()
        if re.match(r"[A-Za-z_]", word):
            called = text[match.end() :].lstrip().startswith("(")
            known = word.upper() in FUNCTIONS if called and word.upper() not in WORDS else _is_word(word)
            if not known:
                what = "function" if called else "word"
                raise ConfigurationError(f"{key} uses an unknown {what}", value=word, allowed=_ALLOWED)
        position = match.end()


def _is_word(word: str) -> bool:
    return word in COLUMNS or word.upper() in WORDS
