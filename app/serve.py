"""Runs the web server: `python -m app.serve`, or `python -m app.serve DESCRIPTOR` on a socket that the supervisor bound.

The supervisor keeps the socket open, so that while a killed web process restarts, people wait instead of being refused.
"""

import gc
import socket
import sys

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.settings import get_settings

_GRACEFUL_SECONDS = 5

HEAD_BYTES = 64 * 1024
"""Of a request's line and headers: httptools would read them for ever, and the edge only sees what comes after."""


class BoundedHead(HttpToolsProtocol):
    """The HTTP of a connection; a head that does not end is refused."""

    _is_head = True
    _head_bytes = 0

    def on_message_begin(self) -> None:
        """Another request begins on the connection."""
        super().on_message_begin()
        self._is_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Its head has ended."""
        self._is_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Read on, and count what belongs to a head."""
        super().data_received(data)
        if not self._is_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self.send_400_response(f"The headers of this request are longer than {HEAD_BYTES // 1024} KB.")


def make_config() -> uvicorn.Config:
    """How `app.main:create_app` is served. No header is believed unless it comes from a trusted proxy."""
    settings = get_settings()
    return uvicorn.Config(
        "app.main:create_app",
        factory=True,
        http=BoundedHead,
        host=settings.host,
        port=settings.port,
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        timeout_keep_alive=30,
    )


def main() -> None:
    """Serve until SIGTERM; open streams are given a few seconds."""
    listening = [socket.socket(fileno=int(descriptor)) for descriptor in sys.argv[1:]]
    config = make_config()
    config.load()
    # What is here now stays: the collector need not walk over it again and again while people wait.
    gc.collect()
    gc.freeze()
    uvicorn.Server(config).run(sockets=listening or None)


if __name__ == "__main__":
    main()
