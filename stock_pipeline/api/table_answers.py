"""A page of a table as a finished answer, in JSON or CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import orjson
from fastapi import Request, Response

from stock_pipeline.api.answers import CSV, JSON, Answer, entity_tag
from stock_pipeline.api.auditing import count_rows
from stock_pipeline.api.reading import tables

CSV_CONTENT: dict[str, Any] = {"text/csv": {"schema": {"type": "string"}}}
"""Describes the CSV form in the OpenAPI document."""

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not Modified: the tag sent is still right"}}


def send(request: Request, value: Mapping[str, Any], *, rows: int) -> Response:
    """Answer with an object in JSON, and count the rows of data that it holds."""
    body = orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z)
    count_rows(request, rows)
    return Answer(body, JSON, entity_tag(body), rows=rows).respond(request)


def send_page(request: Request, found: tables.Slice, form: str, name: str, **more: Any) -> Response:
    """Answer with a page of a table.

    Parameters
    ----------
    request
        The request.
    found
        The page.
    form
        ``json`` or ``csv``; CSV carries the next page in the ``Link`` header.
    name
        Of the CSV file.
    more
        Further fields of the JSON form.
    """
    headers: dict[str, str] = {}
    if found.next_cursor is not None:
        others = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
        query = urlencode([*others, ("cursor", found.next_cursor)])
        headers["Link"] = f'<{request.scope["path"]}?{query}>; rel="next"'
    if form == "csv":
        headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
        body, media_type = tables.csv(found.frame), CSV
    else:
        value = {**more, "total": found.total, "items": tables.rows(found.frame), "next_cursor": found.next_cursor}
        body, media_type = orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z), JSON
    count_rows(request, found.frame.height)
    return Answer(body, media_type, entity_tag(body), headers, rows=found.frame.height).respond(request)
