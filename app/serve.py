"""Runs the web server on a socket that the supervisor bound: `python -m app.serve DESCRIPTOR`.

The supervisor keeps the socket open, so that while a killed web process restarts, people wait instead of being refused.
"""

import socket
import sys

import uvicorn

_GRACEFUL_SECONDS = 5


def main() -> None:
    """Serve `app.main:create_app` until SIGTERM; open streams are given a few seconds."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        access_log=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        timeout_keep_alive=30,
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
