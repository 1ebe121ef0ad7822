"""Forms that pages send: their fields, refusals as notices, and where to go afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from stock_pipeline.access.principal import AccessError
from stock_pipeline.api.console.notices import Notice
from stock_pipeline.api.problems import ProblemError
from stock_pipeline.core.errors import PipelineError

P = ParamSpec("P")
T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

REFUSALS = (AccessError, ProblemError, ValidationError)
"""What a form can be answered with that belongs on its page rather than on one of its own."""

_LOCAL = re.compile(r"/(?![/\\])[^\\\x00-\x20]*")


async def _fields(request: Request) -> FormData:
    return await request.form()


Fields = Annotated[FormData, Depends(_fields)]
"""The fields of a form, for the parameters of a route."""


def text(form: FormData, name: str) -> str:
    """One field as text; empty where it was not sent, or is a file."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


def secret(form: FormData, name: str) -> str:
    """One field exactly as it was typed."""
    value = form.get(name)
    return value if isinstance(value, str) else ""


def texts(form: FormData, name: str) -> list[str]:
    """All values of a field that may be sent several times."""
    return [value for value in form.getlist(name) if isinstance(value, str) and value]


def local_path(wanted: str | None) -> str:
    """Where to go after a log-in: a path of this service, whatever the address said."""
    return wanted if wanted and len(wanted) <= 2000 and _LOCAL.fullmatch(wanted) else "/"


def go(path: str, **query: str) -> Response:
    """Send the browser to another page, which it then loads by GET."""
    return RedirectResponse(path + (f"?{urlencode(query)}" if query else ""), status_code=303)


def model(kind: type[Model], **values: Any) -> Model:
    """Validate what a form said by the model that the API uses for the same; empty texts count as left out."""
    return kind.model_validate({name: value for name, value in values.items() if value is not None})


async def apart(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Do work that blocks in a thread."""
    return await run_in_threadpool(work, *arguments, **named)


def refusal(error: Exception) -> Notice:
    """Say why a form was not accepted."""
    if isinstance(error, ValidationError):
        return Notice("; ".join(_faults(error.errors())), "bad")
    if isinstance(error, ProblemError):  # what a strategy says about its parameters together stands at the end
        return Notice(sentence(error.detail.rpartition("Value error, ")[2]), "bad")
    return Notice(sentence(str(error)), "bad")


async def refused(error: Exception, show: Callable[..., Response], *arguments: Any, **named: Any) -> Response:
    """Show the page of a form again, with why it was not accepted.

    Parameters
    ----------
    error
        One of `REFUSALS`.
    show
        Makes the page of these arguments, then of notices and a status.
    """
    return await apart(show, *arguments, [refusal(error)], status_of(error), **named)


def status_of(error: Exception) -> int:
    """HTTP status of a refusal."""
    if isinstance(error, AccessError | ProblemError):
        return error.status
    return 422 if isinstance(error, ValidationError | PipelineError) else 500


def sentence(words: str) -> str:
    """Begin with a capital letter and end with a full stop."""
    words = words.strip()
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _faults(errors: Sequence[Any]) -> list[str]:
    said = []
    for error in errors:
        place = ".".join(str(part) for part in error["loc"])
        message = "is not known" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, ")
        said.append(sentence(f"{place}: {message}" if place else message))
    return said
