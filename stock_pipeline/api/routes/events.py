"""The stream of events: read by number, followed by Server-Sent Events, or over a WebSocket."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response, WebSocket

from stock_pipeline.access.principal import AccessError, Principal
from stock_pipeline.access.tickets import LIFE
from stock_pipeline.api.answers import Answer, entity_tag
from stock_pipeline.api.client import of_own_page, origin
from stock_pipeline.api.dependencies import (
    authenticated_inside,
    no_repeats_but,
    principal,
    require,
    service,
    still_valid,
)
from stock_pipeline.api.problems import ProblemError, problem_responses
from stock_pipeline.api.schemas_admin import NoQuery
from stock_pipeline.api.schemas_tasks import EventList, EventQuery, StreamQuery, TicketInfo
from stock_pipeline.api.streams.connections import BAD_MESSAGE, FORBIDDEN, Ended, Revalidate
from stock_pipeline.api.streams.items import STREAM, as_json, readable_kinds
from stock_pipeline.api.streams.live import Live
from stock_pipeline.api.streams.messages import Authenticate
from stock_pipeline.api.streams.server_sent import EventStream
from stock_pipeline.api.streams.socket import SocketSession
from stock_pipeline.api.task_views import encode
from stock_pipeline.storage.tasks import EventFilter

router = APIRouter(tags=["events"])

READ = [Depends(require(STREAM)), Depends(no_repeats_but("kind", "severity"))]
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not Modified: the tag sent is still right"}}


@router.get(
    "/api/events",
    summary="Events in order",
    dependencies=READ,
    response_class=Response,
    responses={200: {"model": EventList}, **_NOT_MODIFIED, **problem_responses(422)},
)
def list_events(request: Request, query: Annotated[EventQuery, Query()]) -> Response:
    """Events after a number, of the kinds that one may see. Ask again with `next_since`: none is missed or repeated."""
    who, log = principal(request), service(request).events
    kinds = readable_kinds(who).intersection(query.kind) if query.kind else readable_kinds(who)
    chosen = _filter(query, sorted(kinds), who)
    newest, oldest = log.newest(), log.oldest()
    found = log.after(query.since, limit=query.limit, filters=chosen) if kinds else []
    # fewer than asked for: everything up to the newest has been looked at
    last = found[-1].sequence if found else query.since
    following = last if len(found) == query.limit else max(last, newest)
    body = encode(
        {
            "items": [as_json(event) for event in found],
            "next_since": following,
            "newest": max(newest, following),
            "oldest": oldest,
            "gap": query.since + 1 < oldest,
        }
    )
    return Answer(body, "application/json", entity_tag(body)).respond(request)


@router.get(
    "/api/events/stream",
    summary="Events as they happen (Server-Sent Events)",
    dependencies=READ,
    status_code=200,
    response_class=EventStream,
    responses={
        200: {
            "description": "An answer that does not end. Events have their number as `id`, their kind as `event` and "
            "the event in JSON as `data`; `gap` says that events are not kept any more, `end` why the stream ends.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problem_responses(422, 429),
    },
)
async def follow_events(
    request: Request,
    query: Annotated[StreamQuery, Query()],
    last: Annotated[
        int | None,
        Header(alias="Last-Event-ID", ge=0, le=2**53 - 1, description="sent by browsers that connect again"),
    ] = None,
) -> Response:
    """Follow the stream. `Last-Event-ID` counts before `since`."""
    who, live, address = principal(request), _live(request), origin(request).address
    try:
        live.connections.check(who, address)
    except Ended as ended:
        raise ProblemError(429, "too-many-streams", ended.reason, headers={"Retry-After": "30"}) from ended
    await live.hub.start()
    wanted = _filter(query, query.kind, who)
    since = query.since if last is None else last
    return EventStream(live.hub, live.connections, who, address, _revalidate(request), since, wanted)


@router.post(
    "/api/events/ticket",
    summary="A ticket for one WebSocket",
    dependencies=[Depends(require(STREAM))],
    responses=problem_responses(409),
)
def create_ticket(request: Request, query: Annotated[NoQuery, Query()]) -> TicketInfo:
    """Browsers cannot send a token with a WebSocket: they get a ticket and send it in the first message."""
    ticket = service(request).access.tickets.issue(principal(request))
    return TicketInfo(ticket=ticket, expires_in=int(LIFE.total_seconds()))


@router.websocket("/ws/events", dependencies=[Depends(authenticated_inside(STREAM))])
async def events_socket(websocket: WebSocket) -> None:
    """Talk with one client; see `streams.socket` and ``docs/how-to/use-tasks-and-events.md``."""
    live = _live(websocket)
    access, where = service(websocket).access, origin(websocket)

    def authenticate(message: Authenticate) -> Principal:
        if message.token is not None and message.ticket is not None:
            raise AccessError(401, "token-invalid", "two proofs were sent; send one")
        if message.token is not None:
            who = access.gate.authenticate(message.token, where)
        elif message.ticket is not None:
            who = access.tickets.redeem(message.ticket, where)
        else:
            anyone = access.gate.anonymous()
            if anyone is None:
                raise AccessError(401, "token-missing", "this needs a token or a ticket")
            who = anyone
        access.limits.check(who, where, "read")
        return who

    await websocket.accept()
    session = SocketSession(websocket, live.hub, live.connections, where.address, authenticate, _revalidate(websocket))
    if websocket.scope["query_string"]:
        await session.refuse(Ended(BAD_MESSAGE, "no parameters are taken here; a token does not belong in an address"))
    elif (sent := websocket.headers.get("origin")) is not None and not of_own_page(websocket, sent):
        await session.refuse(Ended(FORBIDDEN, "pages of other sites may not connect"))
    else:
        await session.serve()


def _revalidate(connection: Request | WebSocket) -> Revalidate:
    return partial(still_valid, service(connection).access.gate)


def _filter(query: EventQuery | StreamQuery, kinds: Collection[str], who: Principal) -> EventFilter:
    tasks = () if query.task_id is None else (query.task_id,)
    return EventFilter(tasks, kinds, query.severity, who.name if query.mine else None)


def _live(connection: Request | WebSocket) -> Live:
    live: Live = connection.app.state.live
    return live
