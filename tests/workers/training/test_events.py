import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from tests.workers.training.factories import events, open_run
from workers.training.events import CANCELLED, ORPHANED, CancelledError, RunFolderError, describe


class TestLock:
    def test_a_second_trainer_in_the_folder_is_refused(self, tmp_path):
        with (
            open_run(tmp_path / "run"),
            pytest.raises(RunFolderError, match="another trainer works in"),
            open_run(tmp_path / "run"),
        ):
            pass

    def test_is_released_at_the_end(self, tmp_path):
        for _ in range(2):
            with open_run(tmp_path / "run"):
                pass


class TestState:
    def test_comes_back_with_torchs_random_state(self, tmp_path):
        with open_run(tmp_path / "run") as run:
            torch.manual_seed(7)
            run.save_state(3, {"weights": torch.arange(4.0), "nested": {"list": [1, 2.5, "x"]}})
            expected = torch.rand(3)
        with open_run(tmp_path / "run") as run:
            step, state = run.load_state()
            assert torch.equal(torch.rand(3), expected)
        assert step == 3
        assert state["weights"].tolist() == [0, 1, 2, 3]
        assert state["nested"] == {"list": [1, 2.5, "x"]}

    def test_of_other_settings_is_refused(self, tmp_path):
        with open_run(tmp_path / "run", {"lr": 1}) as run:
            run.save_state(1, {})
        with open_run(tmp_path / "run", {"lr": 2}) as run, pytest.raises(RunFolderError, match="other settings"):
            run.load_state()

    def test_half_written_does_not_replace_the_whole_one(self, tmp_path, monkeypatch):
        with open_run(tmp_path / "run") as run:
            run.save_state(1, {"x": 1})
            monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
            with pytest.raises(OSError, match="power cut"):
                run.save_state(2, {"x": 2})
            assert run.load_state() == (1, {"x": 1})

    def test_is_saved_every_so_many_steps_but_not_at_the_last(self, tmp_path):
        with open_run(tmp_path / "run", state_steps=2) as run:
            for step in range(1, 5):
                run.step(step, 4, {"loss": 1.0}, dict)
        assert [event["step"] for event in events(tmp_path / "run", "state")] == [2]

    def test_keeps_the_random_state_of_every_gpu(self, tmp_path, monkeypatch):
        """Without a GPU at hand: what torch is asked for, and told."""
        told = {}
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.tensor([at]) for at in (5, 6)])
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda rng, device: told.update({device: rng.item()}))
        with open_run(tmp_path / "run") as run:
            run.save_state(1, {})
            run.load_state()
        assert told == {0: 5, 1: 6}


class TestStep:
    def test_cancel_saves_the_state_and_stops(self, tmp_path):
        with open_run(tmp_path / "run") as run:
            run.step(1, 9, {"loss": 1.0}, dict)
            run.cancel()
            with pytest.raises(CancelledError, match="after step 2 of 9"):
                run.step(2, 9, {"loss": 1.0}, lambda: {"x": 1})
            assert run.load_state() == (2, {"x": 1})

    def test_a_long_step_that_looks_at_the_order_to_stop_ends_within_it(self, tmp_path):
        with open_run(tmp_path / "run") as run:
            run.step(1, 2000, {"loss": 3.0}, dict)
            run.look(1, 2000, lambda: pytest.fail("nobody asked"))
            run.cancel()
            with pytest.raises(CancelledError, match="within step 2 of 2000"):
                run.look(1, 2000, lambda: {"half": [1, 2]})
            assert run.load_state() == (1, {"half": [1, 2]})
        (shown,) = events(tmp_path / "run", "metrics")  # step 1 waited for its window to fill
        assert shown == {"type": "metrics", "step": 1, "values": {"loss": 3.0}}

    def test_metrics_of_a_long_run_are_averaged_over_windows(self, tmp_path):
        with open_run(tmp_path / "run") as run:
            for step in range(1, 2001):
                run.step(step, 2000, {"loss": float(step)}, dict)
        shown = events(tmp_path / "run", "metrics")
        assert len(shown) == 500
        assert shown[0] == {"type": "metrics", "step": 4, "values": {"loss": 2.5}}
        assert events(tmp_path / "run", "progress")[-1]["eta_seconds"] == 0

    def test_time_left_is_that_of_the_steps_so_far(self, tmp_path, monkeypatch, capsys):
        now = 100.0
        monkeypatch.setattr("workers.training.events.time.monotonic", lambda: now)
        with open_run(tmp_path / "run") as run:
            for step in (1, 2, 3):
                now += 1000.0
                run.step(step, 10, {"loss": 0.5}, dict)
        assert [event["eta_seconds"] for event in events(tmp_path / "run", "progress")] == [9000, 8000, 7000]
        assert capsys.readouterr().err.splitlines()[-1] == "step 3 of 10, 1:56:40 left: loss 0.5"


class TestFinish:
    def test_writes_metrics_drops_the_state_and_is_announced_again(self, tmp_path):
        folder = tmp_path / "run"
        with open_run(folder) as run:
            run.save_state(1, {})
            result = run.finish({"loss": 1.5}, folder / "checkpoint", "abc")
        assert not (folder / "state").exists()
        assert json.loads((folder / "metrics.json").read_text())["metrics"] == {"loss": 1.5}
        with open_run(folder) as run:
            assert run.finished() == result
        assert len(events(folder, "result")) == 2

    def test_of_other_settings_is_not_taken_for_this_run(self, tmp_path):
        with open_run(tmp_path / "run", {"lr": 1}) as run:
            run.finish({}, tmp_path, "abc")
        with open_run(tmp_path / "run", {"lr": 2}) as run, pytest.raises(RunFolderError, match="choose another --out"):
            run.finished()


class TestErrors:
    def test_are_logged_as_one_sentence(self, tmp_path):
        with pytest.raises(ValueError, match="no demonstrations"), open_run(tmp_path / "run"):
            raise ValueError("the snapshot has\n   no demonstrations")
        assert events(tmp_path / "run", "error") == [{"type": "error", "message": "the snapshot has no demonstrations"}]

    def test_of_ours_stay_as_they_are_and_others_name_their_type(self):
        assert describe(ValueError("too long")) == "too long"
        assert describe(KeyError("split")) == "KeyError: 'split'"


LOOP = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from workers.training.events import CANCELLED, CancelledError, Run
    try:
        with Run(Path(sys.argv[1]), {}, supervised=True) as run:
            run.start({}, {})
            for step in range(1, 100_000):
                time.sleep(0.01)
                run.step(step, 100_000, {"loss": 1.0}, lambda: {"step": step})
    except CancelledError:
        sys.exit(CANCELLED)
""")


@pytest.fixture
def trainer(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert json.loads(process.stdout.readline())["type"] == "start"
    yield process
    process.kill()
    process.wait()


class TestSupervision:
    def test_end_of_file_on_the_lifeline_ends_the_trainer_at_once(self, trainer, tmp_path):
        trainer.stdin.close()
        assert trainer.wait(timeout=60) == ORPHANED
        with open_run(tmp_path / "run"):  # and its lock is free
            pass

    def test_the_word_cancel_stops_it_within_a_step_with_its_state_saved(self, trainer, tmp_path):
        trainer.stdin.write("cancel\n")
        trainer.stdin.flush()
        assert trainer.wait(timeout=60) == CANCELLED  # unbroken it would go on for a quarter of an hour
        kinds = [json.loads(line)["type"] for line in trainer.stdout]
        assert kinds[-1] == "state"
        with open_run(tmp_path / "run", {}) as run:
            assert run.load_state() is not None

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_so_do_signals(self, trainer, number):
        trainer.send_signal(number)
        assert trainer.wait(timeout=60) == CANCELLED
