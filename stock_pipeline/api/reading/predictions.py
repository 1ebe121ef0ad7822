"""Answers about one publication: a page of it, one prediction, the symbols without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal
from urllib.parse import urlencode

import numpy as np
import orjson
import polars as pl

from stock_pipeline.api import paging
from stock_pipeline.api.answers import CSV, JSON, Answer, entity_tag, json_answer
from stock_pipeline.storage.publication import FIELDS, Publication

PATH = "/api/predictions"
DIGITS = 7
"""Significant digits of the columns form, but for prices, which are as they are: features are stored with no more."""

Format = Literal["json", "csv", "columns"]


@dataclass(frozen=True)
class Question:
    """Which rows of a publication, in which order, in which form.

    Attributes
    ----------
    symbols, min_confidence, sort, descending
        See `Publication.select`.
    session
        As it was asked for.
    format
        ``json`` for rows, ``columns`` for one array a field, ``csv``.
    limit
        Rows of a page.
    """

    symbols: tuple[str, ...] | None = None
    session: date | None = None
    min_confidence: float | None = None
    sort: str = "rank"
    descending: bool = False
    format: Format = "json"
    limit: int = 100

    @property
    def filters(self) -> dict[str, Any]:
        """What must stay the same from page to page."""
        symbols = None if self.symbols is None else sorted(set(self.symbols))
        return {
            "symbol": symbols, "session": self.session, "min_confidence": self.min_confidence, "sort": self.sort,
            "descending": self.descending, "format": self.format,
        }  # fmt: skip


def info(publication: Publication) -> dict[str, Any]:
    """Describe a publication as `schemas.PublicationInfo` does."""
    return {
        "session": publication.session,
        "version": publication.version,
        "published_at": publication.published_at,
        "digest": publication.digest,
    }


def page(
    publication: Publication, question: Question, offset: int = 0, parameters: Sequence[tuple[str, str]] = ()
) -> Answer:
    """One page of predictions.

    Parameters
    ----------
    publication
        Where the rows are.
    question
        Which of them.
    offset
        Rows of the pages before.
    parameters
        Query parameters of the request, for the link to the next page.
    """
    positions = publication.select(
        symbols=question.symbols,
        min_confidence=question.min_confidence,
        sort=question.sort,
        descending=question.descending,
    )
    chosen = positions[offset : offset + question.limit]
    following: str | None = None
    headers: dict[str, str] = {}
    if offset + len(chosen) < len(positions):
        where = [publication.version, publication.session, offset + len(chosen)]
        following = paging.encode(question.filters, where)
        others = [(name, value) for name, value in parameters if name != "cursor"]
        headers["Link"] = f'<{PATH}?{urlencode([*others, ("cursor", following)])}>; rel="next"'
    head = _head(publication)
    tag = entity_tag(publication.digest, head, question.filters, question.limit, offset)
    if question.format == "csv":
        text = publication.frame[chosen.tolist()].select(FIELDS).write_csv()
        headers["Content-Disposition"] = f'attachment; filename="predictions-{publication.session}.csv"'
        return Answer(text.encode(), CSV, tag, headers, rows=len(chosen))
    start = b'{"publication":%b,"total":%d,"unpredicted":%d,"next_cursor":%b' % (
        head, len(positions), len(publication.unpredicted), orjson.dumps(following),
    )  # fmt: skip
    if question.format == "columns":
        body = b"%b,%b}" % (start, _columns(publication, chosen))
    else:
        body = b'%b,"predictions":[%b]}' % (start, b",".join(publication.rows[place] for place in chosen))
    return Answer(body, JSON, tag, headers, rows=len(chosen))


def one(publication: Publication, prediction_id: str) -> Answer | None:
    """One prediction with its lineage; ``None`` where this publication does not have it."""
    found = publication.detail(prediction_id)
    return None if found is None else detail(found)


def detail(found: Mapping[str, Any]) -> Answer:
    """One prediction that was found somewhere."""
    return json_answer(found, rows=1)


def unpredicted(publication: Publication) -> Answer:
    """The symbols of a session without a prediction."""
    head = _head(publication)
    body = b'{"publication":%b,"total":%d,"unpredicted":[%b]}' % (
        head,
        len(publication.unpredicted),
        b",".join(publication.unpredicted),
    )
    tag = entity_tag("unpredicted", publication.digest, head)
    return Answer(body, JSON, tag, rows=len(publication.unpredicted))


def _columns(publication: Publication, chosen: np.ndarray) -> bytes:
    places = chosen.tolist()
    frame = publication.frame[places].select(FIELDS)
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float() and name != "close"]
    frame = frame.with_columns(pl.col(name).round_sig_figs(DIGITS) for name in floats)
    ids = publication.frame["prediction_id"]
    undefined = {ids[place]: publication.undefined[place] for place in places if place in publication.undefined}
    return b'"digits":%d,"columns":%b,"undefined":%b' % (
        DIGITS,
        orjson.dumps(frame.to_dict(as_series=False)),
        orjson.dumps(undefined),
    )


def _head(publication: Publication) -> bytes:
    known: bytes | None = publication.derived.get("head")
    if known is None:
        known = publication.derived["head"] = orjson.dumps(info(publication), option=orjson.OPT_UTC_Z)
    return known
