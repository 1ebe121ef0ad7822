"""Routes whose common answers are ready: the same question is answered again without being parsed again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from stock_pipeline.api.answers import Answer
from stock_pipeline.api.dependencies import authorise, publications
from stock_pipeline.storage.publication import Publication

_KEPT_ANSWERS = 64


class ReadyRoute(APIRoute):
    """Looks for a ready answer of the current publication before anything is parsed; who asks is checked first.

    `keep` puts an answer there. It lives as long as its publication, so it can never be out of date.
    """

    permission = "predictions:read"

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        parse = super().get_route_handler()

        async def handle(request: Request) -> Response:
            cache = publications(request)
            publication = cache.current
            if publication is not None:
                authorise(request, self.permission)
                answer: Answer | None = publication.answers.get(_question(request))
                if answer is not None:
                    return respond(request, publication, answer)
            return await parse(request)

        return handle


def keep(request: Request, publication: Publication, answer: Answer) -> None:
    """Give the same answer when the same question comes again while the publication is current."""
    if publication is publications(request).current and len(publication.answers) < _KEPT_ANSWERS:
        publication.answers[_question(request)] = answer


def respond(request: Request, publication: Publication, answer: Answer) -> Response:
    """Send an answer with the age of its publication."""
    response = answer.respond(request)
    response.headers["Publication-Age"] = str(max(0, int(publication.age(publications(request).clock()))))
    return response


def _question(request: Request) -> tuple[str, bytes]:
    return request.scope["path"], request.scope["query_string"]
