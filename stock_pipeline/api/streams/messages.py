"""What clients may say over the WebSocket."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stock_pipeline.api.streams.connections import BAD_MESSAGE, Ended

LARGEST = 16_384
"""Bytes of one message."""

MOST_TASKS = 1_000

EventKind = Literal["task.state", "task.progress", "publication", "alert", "alert.resolved"]
Severity = Literal["info", "warning", "error", "critical"]
TaskId = Annotated[str, Field(min_length=1, max_length=36)]
Sequence = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Message(BaseModel):
    """Base of all messages."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Authenticate(Message):
    """Who is there; the first message."""

    type: Literal["authenticate"]
    token: str | None = Field(None, min_length=1, max_length=4096, repr=False)
    ticket: str | None = Field(None, min_length=1, max_length=512, repr=False)


class Subscribe(Message):
    """Which events are wanted; may be said again at any time."""

    type: Literal["subscribe"]
    since: Sequence | None = Field(None, description="last event that the client has; from now on where left out")
    tasks: list[TaskId] = Field([], max_length=MOST_TASKS)
    kinds: list[EventKind] = Field([], max_length=20)
    severities: list[Severity] = Field([], max_length=20)
    mine: bool = Field(False, description="only events of one's own tasks")


class Ping(Message):
    """Is anybody there."""

    type: Literal["ping"]


ClientMessage = Authenticate | Subscribe | Ping

_adapter: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


def parse(text: str) -> ClientMessage:
    """Read what a client said.

    Raises
    ------
    Ended
        It is too long, not JSON, or not one of the messages; what it was is not repeated, it may hold a token.
    """
    if len(text) > LARGEST or len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        raise Ended(BAD_MESSAGE, f"a message has at most {LARGEST} bytes")
    try:
        return _adapter.validate_python(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        raise Ended(BAD_MESSAGE, "the message is not JSON") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Ended(BAD_MESSAGE, f"the message is not understood: {place}: {first['msg']}"[:120]) from error
