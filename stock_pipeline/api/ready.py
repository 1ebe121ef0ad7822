"""The fast path: known questions about the current publication are answered by ready bytes, before any routing.

`FastPath` stands inside the outermost frame of the application, so its answers carry the same request ids, security
headers and log lines. Who asks is found out and checked by the same `authorise` that every route uses; a refusal or
failure is handed on to the route, which says it. Answers are kept beside the publication that they were made of and go
with it.
"""

from __future__ import annotations

import re

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from stock_pipeline.api.answers import Answer, Answers, matches
from stock_pipeline.api.dependencies import authorise, publications
from stock_pipeline.api.reading import predictions as reading
from stock_pipeline.storage.publication import Publication, PublicationCache

PERMISSION = "predictions:read"
ROW = f"{reading.PATH}/{{prediction_id}}"

_BELOW = f"{reading.PATH}/"
_PLAIN_SYMBOL = re.compile(rb"symbol=([A-Za-z0-9._-]{1,64})")
_ANSWERS = "answers"
_WARM = (("limit=10000", "json"), ("limit=10000&format=columns", "columns"))


class FastPath:
    """Answers known questions about predictions; hands everything else on.

    Parameters
    ----------
    app
        The application within.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"].startswith(reading.PATH):
            cache: PublicationCache = scope["app"].state.publications
            publication = cache.current
            if publication is not None:
                answer = find(publication, scope["path"], scope["query_string"])
                if answer is not None and await self._allowed(scope):
                    await _send(scope, send, answer, publication, cache)
                    return
        await self._app(scope, receive, send)

    async def _allowed(self, scope: Scope) -> bool:
        """Whether the asker may have it; a refusal or failure is kept for the route, which has the words for it."""
        request = Request(scope)
        try:
            await authorise(request, PERMISSION)
        except Exception as error:
            request.state.refused = error
            return False
        return True


def find(publication: Publication, path: str, query: bytes) -> Answer | None:
    """The ready answer of a question; that of one symbol or one prediction is made when it is first asked for."""
    kept = answers(publication)
    answer = kept.get((path, query))
    if answer is not None:
        return answer
    if path == reading.PATH:
        one = _PLAIN_SYMBOL.fullmatch(query)
        if one is None or not publication.has(symbol=(symbol := one[1].decode())):
            return None
        answer = reading.page(publication, reading.Question(symbols=(symbol,)))
    elif not query and path.startswith(_BELOW):
        answer = reading.one(publication, path[len(_BELOW) :])
        if answer is None:
            return None
    else:
        return None
    kept.keep((path, query), answer)
    return answer


def answers(publication: Publication) -> Answers:
    """The finished answers of a publication."""
    kept: Answers = publication.derived.setdefault(_ANSWERS, Answers())
    return kept


def keep(request: Request, publication: Publication, answer: Answer) -> None:
    """Give the same answer when the same question comes again while the publication is current."""
    if publication is publications(request).current:
        answers(publication).keep((request.scope["path"], request.scope["query_string"]), answer)


def respond(request: Request, publication: Publication, answer: Answer) -> Response:
    """Send an answer with the age of its publication."""
    response = answer.respond(request)
    response.headers["Publication-Age"] = _age(publication, publications(request)).decode()
    return response


def warm(publication: Publication) -> None:
    """Make the answers of all symbols, compressed, before somebody waits for them."""
    for query, form in _WARM:
        question = reading.Question(limit=10_000, format=form)  # type: ignore[arg-type]
        answer = reading.page(publication, question)
        answer.compress()
        answers(publication).keep((reading.PATH, query.encode()), answer)


async def _send(scope: Scope, send: Send, answer: Answer, publication: Publication, cache: PublicationCache) -> None:
    known = encodings = None
    for name, value in scope["headers"]:
        if name == b"if-none-match":
            known = value
        elif name == b"accept-encoding":
            encodings = value
    status = 200
    if known is not None and matches(known.decode("latin-1"), answer.etag):
        status, headers, body = 304, answer.not_modified, b""
    else:
        headers, body = answer.choose(encodings)
        where = ROW if scope["path"].startswith(_BELOW) else reading.PATH
        scope["app"].state.reads.add(scope["state"]["principal"], Request(scope), where, answer.rows)
    headers = [*headers, (b"publication-age", _age(publication, cache))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _age(publication: Publication, cache: PublicationCache) -> bytes:
    return b"%d" % max(0, int(publication.age(cache.clock())))
