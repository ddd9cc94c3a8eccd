"""What every figure needs beside it: machine, load, peak, versions; and the line of JSON a benchmark ends with."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
DATA = "PREFERABLE_BENCH_DATA"
"""Names the folder of the data sets that some benchmarks need; they are not part of the project."""


JSON = "write the report there too; - for standard output alone"
"""What the option of that name says."""


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", metavar="FILE", help=JSON)
    options.add_argument("--threads", type=int, default=2, help="threads of torch, here and in the peer")
    return options


def data_file(named: Path | None, *parts: str) -> Path:
    """A file of a data set; the program ends with a sentence, and without an error, where it is not there."""
    folder = named or (Path(os.environ[DATA]) if DATA in os.environ else None)
    if folder is None:
        print(f"skipped: name the folder with the data sets by --data, or by {DATA}; it must hold {'/'.join(parts)}")
        sys.exit(0)
    path = folder.joinpath(*parts)
    if not path.exists():
        print(f"skipped: {path} is not there")
        sys.exit(0)
    return path


def load() -> float:
    """Processes that wanted a core in the last minute, on average. A figure holds where this is its own threads at most."""
    return round(os.getloadavg()[0], 2)


def command() -> str:
    """What was typed."""
    module = Path(sys.argv[0])
    return "python -m " + " ".join([f"{module.parent.name}.{module.stem}", *sys.argv[1:]])


def machine(threads: int) -> dict[str, Any]:
    """Where and with what this ran."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "command": command(),
        "commit": commit.stdout.strip(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "threads": threads,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("torch", "transformers")},
    }


def peak_flops(seconds: float = 2.0, size: int = 2048) -> float:
    """Floating-point operations a second of this machine's float32 matrix product, the median over `seconds`."""
    left, right, out = (torch.rand(size, size) for _ in range(3))
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not found:
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        found.append(2 * size**3 / (time.perf_counter() - began))
    return median(found)


def publish(report: dict[str, Any], target: str | None) -> None:
    """Print the report as the last line, and keep it in a file where one is named."""
    if target not in (None, "-"):
        Path(target).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
