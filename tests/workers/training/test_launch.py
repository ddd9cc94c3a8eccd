"""`preferable train --processes`, as a shell and a supervisor run it: real processes that die, and are told of."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from typer.testing import CliRunner

from tests.workers.training.factories import events, make_base, write_demonstrations
from workers import cli
from workers.training import launch
from workers.training.events import CANCELLED


def train(tmp_path, *options):
    """`preferable train --processes 2 sft`, in a group of its own, as a shell starts it; its state is saved at every step."""
    inputs = ("--model", tmp_path / "base", "--data", tmp_path / "demonstrations", "--out", tmp_path / "run")
    settings = ("--set", "epochs=2000", "--set", "choose=last", "--state-steps", 1, *options)
    command = (sys.executable, "-m", "workers.cli", "train", "--processes", 2, "sft", *inputs, *settings)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([str(word) for word in command], text=True, process_group=0, **pipes)


def read_until(kind, trainer):
    """The events of a supervised trainer up to the first of a kind."""
    seen = []
    for line in trainer.stdout:
        seen.append(json.loads(line))
        if seen[-1]["type"] == kind:
            return seen
    raise AssertionError(f"no event {kind!r}: {trainer.stderr.read()}")


class TestLaunch:
    @pytest.mark.timeout(600)  # two starts of two processes each
    def test_a_run_of_two_is_killed_then_goes_on_then_is_cancelled(self, tmp_path, monkeypatch):
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setenv("TMPDIR", str(scratch))
        make_base(tmp_path / "base")
        write_demonstrations(tmp_path / "demonstrations")

        # 1. A process is killed: the other one ends, and the command as that process did.
        trainer = train(tmp_path, "--supervised")
        read_until("state", trainer)
        processes = psutil.Process(trainer.pid).children()
        (second,) = [process for process in processes if process.environ().get("RANK") == "1"]
        second.kill()
        *_, last = map(json.loads, trainer.stdout)  # to its end, the lifeline still open
        assert last == {"type": "log", "text": "process 1 of 2 was killed (SIGKILL)"}
        assert trainer.wait() == -signal.SIGKILL
        assert not any(process.is_running() for process in processes)
        assert events(tmp_path / "run", "log")[-1]["text"].startswith(
            "another process of this run is gone, or cannot be reached: "
        )
        assert not events(tmp_path / "run", "error")
        trainer.communicate()

        # 2. The same command goes on from the saved state; the word on the lifeline stops both, their state saved.
        trainer = train(tmp_path, "--supervised")
        seen = read_until("state", trainer)
        assert any(event.get("text", "").startswith("continuing from step") for event in seen)
        trainer.stdin.write("cancel\n")
        trainer.stdin.flush()
        *_, last = map(json.loads, trainer.stdout)
        assert last["type"] == "state"
        assert trainer.wait() == CANCELLED
        trainer.communicate()
        assert not list(scratch.iterdir())

    @pytest.mark.timeout(600)
    @pytest.mark.parametrize(
        ("send", "number"), [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT)], ids=["kill", "Ctrl-C"]
    )
    def test_a_signal_to_the_launcher_saves_the_run_and_leaves_nothing_behind(self, tmp_path, send, number, request):
        make_base(tmp_path / "base")
        write_demonstrations(tmp_path / "demonstrations")
        trainer = train(tmp_path)
        request.addfinalizer(trainer.terminate)  # where the test fails on its way
        state = tmp_path / "run" / "state" / "state.pt"
        while not state.exists() or not events(tmp_path / "run", "state"):  # told of just after it is there
            assert trainer.poll() is None, trainer.stderr.read()
            time.sleep(0.05)
        processes = psutil.Process(trainer.pid).children(recursive=True)
        assert len(processes) == 2
        before = events(tmp_path / "run", "state")[0]["step"]
        send(trainer.pid, number)
        _, said = trainer.communicate()
        assert trainer.returncode == CANCELLED
        assert not any(process.is_running() for process in processes)
        assert "the same command continues from there" in said
        last = events(tmp_path / "run")[-1]
        assert last["type"] == "state" and last["step"] > before


def failure(exitcode, sentence="", at=100):
    """What torchrun knows of a process that left."""
    recorded = {"message": {"message": f"RuntimeError: {sentence}"}} if sentence else {}
    name = signal.Signals(-exitcode).name if exitcode < 0 else ""
    return SimpleNamespace(exitcode=exitcode, error_file_data=recorded, timestamp=at, signal_name=lambda: name)


class TestFirst:
    @pytest.mark.parametrize(
        ("others", "first", "words"),
        [
            ({0: failure(1, at=99)}, failure(1, "no rows"), "failed: no rows"),
            ({0: failure(-15, at=99)}, failure(-9), "was killed (SIGKILL)"),
            ({0: failure(-15, at=99)}, failure(-15, "no rows"), "failed: no rows"),
            ({}, failure(3), "left with code 3 and no word; see above"),
        ],
        ids=["lost its peer", "ended after a kill", "ended while it left", "silent"],
    )
    def test_is_what_the_others_follow_from(self, others, first, words):
        assert launch._first({**others, 1: first}) == (1, first)
        assert launch._words(first) == words


class TestCommand:
    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (("--processes", "2", "base", "--text", "x", "--out", "y"), "train base runs in one process"),
            (("--hosts", "2", "sft"), "train sft on several hosts needs --meet-at"),
        ],
    )
    def test_says_what_it_cannot_start(self, words, sentence):
        done = CliRunner().invoke(cli.app, ["train", *words])
        assert (done.exit_code, done.stderr) == (1, f"error: {sentence}\n")
