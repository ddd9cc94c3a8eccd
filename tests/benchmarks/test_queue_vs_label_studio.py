"""The benchmark of the queue, at sizes that take seconds and without its peer."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import queue_vs_label_studio


def test_measures_a_small_queue_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"tasks": 120, "small": 60, "peer-tasks": 0, "times": 4, "rate": 8, "seconds": 1.5, "sessions": 6, "web": 1}
    monkeypatch.setenv("PREFERABLE_HOME", str(tmp_path))
    command = [f"--{name}={size}" for name, size in sizes.items()]
    monkeypatch.setattr(sys, "argv", ["benchmarks/queue_vs_label_studio.py", *command])
    queue_vs_label_studio.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    loop = found["open_loop"]
    assert (loop["submits"], loop["stored"], loop["errors"], loop["double_leases"]) == (12, 12, 0, 0)
    assert found["ours_120_heavy"]["next"]["p95_ms"] > 0
    assert found["large_to_small_next"] > 0
    assert "next_ratio" not in found


def test_ratios_are_of_medians() -> None:
    def of(milliseconds: float) -> dict[str, dict[str, float]]:
        return {name: {"p50_ms": milliseconds} for name in ("next", "submit")}

    options = type("Options", (), {"tasks": 9, "small": 3})
    found = {"ours_9": of(2), "ours_3": of(4), "ours_9_heavy": of(8), "label_studio": of(30)}
    ratios = queue_vs_label_studio.ratios(found, options)
    assert (ratios["next_ratio"], ratios["large_to_small_next"], ratios["heavy_to_small_submit"]) == (15, 0.5, 2)
