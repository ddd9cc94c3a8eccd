"""Installs the worker half (torch, transformers) behind a running web half: `python -m app.install`.

Progress goes to `<home>/run/install.json`, which the pipeline page shows. pip's own words go to `<home>/log/pip.log`.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Literal

from app.embedded import write_atomically
from app.errors import StartupError
from app.processes import spawn
from app.settings import Settings, child_environment, get_settings, resource

_NEEDED = ("numpy", "peft", "pyarrow", "safetensors", "torch", "transformers")
_TORCH_INDEX = {
    "cpu": "https://download.pytorch.org/whl/cpu",
    "cuda": "https://download.pytorch.org/whl/cu130",
}
_UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_LOOK_SECONDS = 0.5

_DOWNLOADING = re.compile(r"\s*Downloading (?:\S*/)?(?P<file>\S+\.(?:whl|tar\.gz)) \((?P<size>[\d.]+) (?P<unit>\w+)\)")
_LOCAL = re.compile(r"Processing (?:\S*/)?(?P<file>\S+\.(?:whl|tar\.gz))")
_COLLECTING = re.compile(r"Collecting (?P<package>[\w.-]+)")
_INSTALLING = re.compile(r"Installing collected packages: (?P<packages>.+)")
_ERROR = re.compile(r"ERROR: (?P<message>.+)")


@dataclass(frozen=True)
class Progress:
    """How far the installation is. `percent` is of the file in `package`, or, once installing, of all packages."""

    state: Literal["pending", "downloading", "installing", "done", "failed"] = "pending"
    package: str = ""
    percent: int = 0
    message: str = ""
    file: str = ""  # being downloaded
    size_bytes: int = 0  # of that file, as announced
    packages: tuple[str, ...] = ()  # to be installed, once all are there


def is_complete() -> bool:
    """True if everything the workers need can be imported."""
    return all(importlib.util.find_spec(name) for name in _NEEDED)


def note_complete(home: Path) -> None:
    """Write that nothing is to be installed."""
    write_progress(home, Progress("done", percent=100, message="The workers' packages are installed."))


def read_progress(home: Path) -> Progress:
    """How far the installation is; `pending` if it has not begun."""
    with contextlib.suppress(FileNotFoundError):
        stored = json.loads((home / "run" / "install.json").read_text())
        return Progress(**{**stored, "packages": tuple(stored["packages"])})
    return Progress()


def write_progress(home: Path, progress: Progress) -> None:
    """Replace `install.json` in one step."""
    write_atomically(home / "run" / "install.json", json.dumps(asdict(progress)), mode=0o644)


def requirements() -> list[str]:
    """What the extra `worker` asks for, from the metadata of the installed project."""
    declared = importlib.metadata.requires("preferable") or []
    parts = [requirement.partition(";") for requirement in declared]
    return [wanted.strip() for wanted, _, marker in parts if re.search(r"extra == ['\"]worker['\"]", marker)]


def commands(settings: Settings) -> list[list[str]]:
    """The calls of pip, in order. A chosen build of torch comes first, alone, so that its index serves nothing else."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-compile",
        "--prefer-binary",
        "--no-input",
        "--progress-bar=off",
    ]
    pip += ["--disable-pip-version-check", "--constraint", str(resource("constraints.txt"))]
    wanted = requirements()
    steps = [[*pip, *wanted]]
    if settings.torch:
        torch = [requirement for requirement in wanted if re.match(r"torch\b", requirement)]
        index = ["--no-deps", "--retries", "1", "--extra-index-url", _TORCH_INDEX[settings.torch]]
        steps.insert(0, [*pip, *index, *torch])
    return steps


def read_line(progress: Progress, line: str) -> Progress:
    """What a line of pip's output changes."""
    if found := _DOWNLOADING.match(line):
        size = float(found["size"]) * _UNITS.get(found["unit"], 1)
        package = found["file"].split("-")[0]
        message = f"Downloading {package} ({found['size']} {found['unit']})"
        return replace(
            progress,
            state="downloading",
            package=package,
            percent=0,
            message=message,
            file=found["file"],
            size_bytes=int(size),
        )
    if found := _LOCAL.match(line):
        package = found["file"].split("-")[0]
        return replace(
            progress, state="downloading", package=package, percent=100, message=f"Found {package} on this machine"
        )
    if found := _COLLECTING.match(line):
        return replace(
            progress, state="downloading", package=found["package"], message=f"Looking up {found['package']}"
        )
    if found := _INSTALLING.match(line):
        packages = tuple(name.strip() for name in found["packages"].split(","))
        return replace(
            progress,
            state="installing",
            package="",
            percent=0,
            message=f"Installing {len(packages)} packages",
            packages=packages,
        )
    if found := _ERROR.match(line):
        return replace(progress, message=found["message"])
    return progress


def measure(progress: Progress, scratch: Path, site: Path) -> Progress:
    """Fill in `percent` from the disk: pip says nothing between two lines. `scratch` is where pip downloads to."""
    if progress.state == "downloading" and progress.size_bytes:
        loaded = max((path.stat().st_size for path in scratch.rglob(progress.file)), default=0)
        return replace(progress, percent=min(100, round(100 * loaded / progress.size_bytes)))
    if progress.state == "installing":
        wanted = {_normal(name) for name in progress.packages}
        there = {_normal(path.name.partition("-")[0]) for path in site.glob("*.dist-info")}
        return replace(progress, percent=round(100 * len(wanted & there) / len(wanted)))
    return progress


def install(settings: Settings) -> None:
    """Run pip to the end, telling how far it is. Raises StartupError with pip's own reason if it fails."""
    home = settings.home.resolve()
    if not importlib.util.find_spec("pip"):
        raise StartupError(
            f"There is no pip for {sys.executable}: run `{sys.executable} -m ensurepip` and start again."
        )
    if not requirements():
        raise StartupError("Preferable is not installed in this environment: run `pip install -e .` in the checkout.")
    scratch = home / "run" / "pip"
    for folder in (scratch, home / "log"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        for command in commands(settings):
            _run(command, home, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    importlib.invalidate_caches()
    note_complete(home)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(command: Sequence[str], home: Path, scratch: Path) -> None:
    log = home / "log" / "pip.log"
    site = Path(sysconfig.get_path("purelib"))
    with log.open("ab") as begun:
        offset = begun.tell()
    process = spawn(
        command, log=log, environment=child_environment(TMPDIR=str(scratch)), folder=home, death_signal=signal.SIGKILL
    )
    progress = Progress("downloading", message="Asking the package index")
    with log.open() as output:
        output.seek(offset)
        while True:
            is_over = process.poll() is not None
            progress = measure(_read_new_lines(progress, output), scratch, site)
            write_progress(home, progress)
            if is_over:
                break
            time.sleep(_LOOK_SECONDS)
    if process.returncode != 0:
        raise StartupError(f"pip failed: {progress.message}. Its words are in {log}.")


def _read_new_lines(progress: Progress, output: IO[str]) -> Progress:
    while True:
        begin = output.tell()
        line = output.readline()
        if not line.endswith("\n"):  # pip is in the middle of it
            output.seek(begin)
            return progress
        progress = read_line(progress, line)


def main() -> None:
    """Install for the settings of this environment; exit code 1 and the reason in `install.json` if it fails."""
    settings = get_settings()
    try:
        install(settings)
    except StartupError as error:
        write_progress(settings.home, Progress("failed", message=error.message))
        sys.exit(error.message)


if __name__ == "__main__":
    main()
