"""Runs the web server: `python -m app.serve`, or `python -m app.serve DESCRIPTOR` on a socket that the supervisor bound.

The supervisor keeps the socket open, so that while a killed web process restarts, people wait instead of being refused.
"""

import gc
import socket
import sys

import uvicorn

from app.settings import get_settings

_GRACEFUL_SECONDS = 5


def make_config() -> uvicorn.Config:
    """How `app.main:create_app` is served. No header is believed unless it comes from a trusted proxy."""
    settings = get_settings()
    return uvicorn.Config(
        "app.main:create_app",
        factory=True,
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
