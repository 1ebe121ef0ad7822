"""Connections that would not end: of clients that take nothing or whose headers do not end, and of those who listen
when the service stops.

A client that stops reading fills the buffers of its connection, and from then on every sending waits. Without a limit
it would keep its connection, and what is written for it, for as long as it likes.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

PATIENCE_SECONDS = 30.0
"""How long a client may take nothing."""

MOST_HEAD_BYTES = 65_536
"""Bytes of a request line with its headers."""

HEAD_SECONDS = 20.0
"""How long a head may take to arrive, and a new connection to say anything."""

_END = b"\r\n\r\n"


class PatientHttp(HttpToolsProtocol):
    """HTTP with a limit of patience."""

    _patience: asyncio.TimerHandle | None = None
    _arrival: asyncio.TimerHandle | None = None
    """Ends the connection unless the head that is expected has arrived by then."""
    _head: int | None = 0
    """Bytes of the head that is being read; ``None`` while it is not one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head."""
        super().connection_made(transport)
        self._arrival = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head of a request has become too long."""
        if self._head is not None:
            if self._arrival is None:  # the first piece of a further request of this connection
                self._arrival = self.loop.call_later(HEAD_SECONDS, self.transport.abort)
            self._head += len(data.partition(_END)[0])  # a body may follow in the same piece
            if self._head > MOST_HEAD_BYTES:
                self.send_400_response("the headers are too long")
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._head = None
        self._expect_nothing()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next that comes is a head."""
        self._head = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Begin to lose patience."""
        self._patience = self.loop.call_later(PATIENCE_SECONDS, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client takes something."""
        _stop(self._patience)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        _stop(self._patience)
        self._expect_nothing()
        super().connection_lost(exc)

    def _expect_nothing(self) -> None:
        _stop(self._arrival)
        self._arrival = None


class PatientWebSocket(WebSocketsSansIOProtocol):
    """WebSocket with a limit of patience, which says why it ends also to a client that takes nothing at the moment."""

    _patience: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Begin to lose patience."""
        self._patience = self.loop.call_later(PATIENCE_SECONDS, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client takes something."""
        _stop(self._patience)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        _stop(self._patience)
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:
        """Send; a close frame is small and does not wait until there is room."""
        if message["type"] == "websocket.close" and self.handshake_complete:
            self.writable.set()
        await super().send(message)


class LiveServer(uvicorn.Server):
    """Ends live connections when it stops; it would wait for them otherwise."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        await self.config.app.state.live.connections.stop()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
