"""A peer in an environment of its own: made once, then its scripts run there as processes, JSON in and JSON out.

Nothing of a peer is installed into the project's environment, and nothing of the project is importable in a peer's. The
environments lie in `PREFERABLE_BENCH_HOME`, by default in the system's folder for caches, and are made by the first command
that needs them.
"""

import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent / "peer_scripts"


@dataclass(frozen=True)
class Peer:
    """An environment by name and what pip puts into it."""

    name: str
    """Its folder; carries the version, so that a new version is a new environment."""
    installs: tuple[tuple[str, ...], ...]
    """One pip command each, in order."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return home() / self.name / "bin" / "python"


TRL = Peer("trl-1.16", (("torch==2.13.*",), ("trl==1.16.*",)))
"""TRL as it is; torch first and of the project's version, so that no other build comes with it."""
TRL_WITH_PPO = Peer("trl-1.12", (("torch==2.13.*",), ("trl==1.12.*",)))
"""The last TRL that has PPO."""


LABEL_STUDIO = Peer("label-studio-1.23", (("label-studio==1.23.*",),))


def home() -> Path:
    """Where the peers' environments lie."""
    if named := os.environ.get("PREFERABLE_BENCH_HOME"):
        return Path(named)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / (
        "Library/Caches" if sys.platform == "darwin" else ".cache"
    )
    return Path(caches) / "preferable-bench"


def make(peer: Peer) -> Path:
    """The interpreter of the peer's environment, which is made if it is not there whole; pip may need minutes."""
    folder = home() / peer.name
    whole = folder / "whole"  # written last: an environment without it was interrupted
    if not whole.exists():
        print(f"making the environment of {peer.name} in {folder}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        for requirements in peer.installs:
            command = [str(peer.python), "-m", "pip", "install", "--quiet", "--prefer-binary", *requirements]
            subprocess.run(command, check=True)
        whole.touch()
    return peer.python


def run(peer: Peer, script: str, job: dict[str, Any], threads: int) -> dict[str, Any]:
    """What `peer_scripts/SCRIPT.py` answers to a job: the last line of its standard output. It ends the program if it fails.

    It sees PATH, HOME and its number of threads, no hub and no site packages but the peer's.
    """
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    environment |= {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(home() / "hub"),
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        [str(make(peer)), "-I", str(SCRIPTS / f"{script}.py")],
        input=json.dumps(job),
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{peer.name} failed in {script}:\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
