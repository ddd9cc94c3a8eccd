"""Which way imports point."""

import subprocess
import sys
from pathlib import Path

from tests.architecture.source import ROOT


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_web_process_loads_nothing_of_the_learning_half() -> None:
    script = (
        "import sys; from app.main import create_app; create_app()\n"
        "heavy = {'torch', 'numpy', 'transformers', 'safetensors', 'peft', 'workers', 'app.starter.gold'} & set(sys.modules)\n"
        "assert not heavy, f'importing app.main loads {sorted(heavy)}'"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
