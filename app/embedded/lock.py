"""One process at a time runs the servers of a folder: the supervisor, or a command that needs the database for a moment."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from app.errors import StartupError


class AlreadyRuns(StartupError):
    """Another process holds the folder."""


@contextlib.contextmanager
def hold_lock(home: Path) -> Iterator[None]:
    """Be the only one who runs `home` while the block lasts. The kernel frees the lock when we die, however we die."""
    (home / "run").mkdir(parents=True, exist_ok=True)
    with (home / "run" / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            file.seek(0)
            raise AlreadyRuns(
                f"Preferable already runs on {home} (process {file.read().strip() or 'unknown'}): "
                "stop it first, or choose another PREFERABLE_HOME."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
