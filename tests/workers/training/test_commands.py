"""The commands as a shell runs them: exit codes, the last line, metrics.json, the run folder."""

import json
import subprocess
import sys

import pytest
import typer

from tests.workers.training.factories import (
    WORDS,
    demonstration,
    events,
    make_base,
    make_reward,
    make_sft,
    open_run,
    write_demonstrations,
    write_prompts,
    write_rankings,
    write_text,
)
from workers import cli


def preferable(*words, **options):
    command = [sys.executable, "-m", "workers.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def base(tmp_path):
    return make_base(tmp_path / "base", pad_is_end=True)


class TestTheThreeStages:
    @pytest.mark.slow  # five processes that each import torch
    def test_from_base_to_scored_samples_of_a_policy(self, tmp_path, base):
        config = tmp_path / "settings.toml"
        config.write_text(
            "[sft]\nepochs = 2\nlr = 1e-3\n[reward]\nlr = 1e-3\nbatch_size = 8\n"
            "[ppo]\nepisodes = 8\nbatch_size = 8\nminibatch_size = 4\nmax_new_tokens = 6\nreport_every = 1\n"
            "ptx_coef = 1.0\nptx_tokens = 16\n"
        )
        demos, ranks, prompts = (
            write_demonstrations(tmp_path / "demos"),
            write_rankings(tmp_path / "ranks"),
            write_prompts(tmp_path / "prompts"),
        )
        stages = {
            "sft": ("--model", base, "--data", demos),
            "reward": ("--model", tmp_path / "sft/checkpoint", "--data", ranks),
            "ppo": (
                "--model",
                tmp_path / "sft/checkpoint",
                "--reward",
                tmp_path / "reward/checkpoint",
                "--watch",
                tmp_path / "reward/checkpoint",
                "--pretrain",
                write_text(tmp_path / "text"),
                "--data",
                prompts,
            ),
        }
        for stage, words in stages.items():
            done = preferable("train", stage, *words, "--out", tmp_path / stage, "--config", config, "--threads", 1)
            assert done.returncode == 0, done.stderr
            result = json.loads(done.stdout.splitlines()[-1])
            stored = json.loads((tmp_path / stage / "metrics.json").read_text())
            assert result["metrics"] == stored["metrics"]
            assert sorted(path.name for path in (tmp_path / stage).iterdir()) == [
                "checkpoint",
                "events.jsonl",
                "lock",
                "metrics.json",
            ]
        samples, scored = tmp_path / "out/samples.jsonl", tmp_path / "out/scored.jsonl"
        policy, sft = tmp_path / "ppo/checkpoint", tmp_path / "sft/checkpoint"
        done = preferable(
            "sample",
            "--model",
            policy,
            "--reference",
            sft,
            "--data",
            prompts,
            "--out",
            samples,
            "--n",
            2,
            "--max-new-tokens",
            6,
            "--top-k",
            50,
            "--stop",
            "nowhere",
            "--best-of",
            2,
            "--reward",
            tmp_path / "reward/checkpoint",
            "--check-equal",
            1,
        )
        assert done.returncode == 0, done.stderr
        metrics = json.loads(done.stdout)["metrics"]
        assert metrics["responses"] == 2 * len(WORDS)
        assert {"kl", "score", "equal_alone"} <= set(metrics)
        done = preferable("score", "--model", tmp_path / "reward/checkpoint", "--data", samples, "--out", scored)
        assert json.loads(done.stdout)["metrics"]["responses"] == 2 * len(WORDS)
        assert all(
            "score" in response
            for line in scored.read_text().splitlines()
            for response in json.loads(line)["responses"]
        )


class TestSft:
    def test_takes_a_reward_model_that_chooses_and_text_that_is_mixed_in(self, tmp_path, base):
        sft = make_sft(tmp_path / "sft", pad_is_end=True)
        words = ("train", "sft", "--model", base, "--data", write_demonstrations(tmp_path / "demos"))
        extras = ("--reward", make_reward(tmp_path / "reward", sft), "--pretrain", write_text(tmp_path / "text"))
        settings = [word for pair in ("epochs=1", "max_new_tokens=4", "pretrain_tokens=16") for word in ("--set", pair)]
        done = preferable(*words, *extras, *settings, "--out", tmp_path / "run")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["metrics"]["kept_by"] == "reward"
        assert "text_loss" in events(tmp_path / "run", "metrics")[0]["values"]
        done = preferable(*words, *extras[:2], *settings, "--out", tmp_path / "run")
        assert (done.returncode, "choose another --out" in done.stderr) == (1, True)


class TestErrors:
    def test_a_run_s_folder_is_no_place_for_samples(self, tmp_path, capsys):
        (tmp_path / "events.jsonl").touch()
        with pytest.raises(typer.Exit):
            cli.convert(dict, tmp_path / "samples.jsonl", threads=0)
        assert "is the folder of a training run" in capsys.readouterr().err
        assert not (tmp_path / "metrics.json").exists()

    def test_are_one_sentence_and_exit_code_1(self, tmp_path, base):
        demos = write_demonstrations(tmp_path / "demos", [demonstration(0, "who", "cat", "test")])
        done = preferable("train", "sft", "--model", base, "--data", demos, "--out", tmp_path / "run")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"error: {demos} has no demonstrations in split 'train'")
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "run" / "checkpoint").exists()

    def test_under_supervision_are_an_event_on_standard_output(self, tmp_path, base):
        demos = write_demonstrations(tmp_path / "demos")
        words = ("--model", base, "--data", demos, "--out", tmp_path / "run", "--set", "rate=1", "--supervised")
        done = preferable("train", "sft", *words, stdin=subprocess.PIPE)
        assert done.returncode == 1
        (event,) = map(json.loads, done.stdout.splitlines())
        assert event["type"] == "error"
        assert event["message"].startswith("unknown setting 'rate' in [sft]; known are lora_rank, lora_alpha, epochs")

    def test_under_supervision_a_folder_in_use_is_one_too(self, tmp_path, base):
        demos = write_demonstrations(tmp_path / "demos")
        with open_run(tmp_path / "run"):
            words = ("--model", base, "--data", demos, "--out", tmp_path / "run", "--supervised")
            done = preferable("train", "sft", *words, stdin=subprocess.PIPE)
        (event,) = map(json.loads, done.stdout.splitlines())
        assert (done.returncode, event["type"]) == (1, "error")
        assert event["message"].startswith("another trainer works in")

    def test_a_pickle_for_a_checkpoint(self, tmp_path):
        base = make_sft(tmp_path / "sft")
        (base / "model.safetensors").rename(base / "pytorch_model.bin")
        done = preferable(
            "sample", "--model", base, "--data", write_prompts(tmp_path / "prompts"), "--out", tmp_path / "out.jsonl"
        )
        assert (done.returncode, "only safetensors are loaded" in done.stderr) == (1, True)


class TestRunFolder:
    def test_the_same_command_again_gives_the_same_result_without_training(self, tmp_path, base):
        words = (
            "train",
            "sft",
            "--model",
            base,
            "--data",
            write_demonstrations(tmp_path / "demos"),
            "--out",
            tmp_path / "run",
            "--set",
            "epochs=1",
        )
        first, second = preferable(*words), preferable(*words)
        assert json.loads(first.stdout)["sha256"] == json.loads(second.stdout)["sha256"]
        assert len(events(tmp_path / "run", "start")) == 1

    def test_other_settings_in_a_finished_folder_are_refused(self, tmp_path, base):
        words = (
            "train",
            "sft",
            "--model",
            base,
            "--data",
            write_demonstrations(tmp_path / "demos"),
            "--out",
            tmp_path / "run",
        )
        assert preferable(*words, "--set", "epochs=1").returncode == 0
        done = preferable(*words, "--set", "epochs=2")
        assert (done.returncode, "choose another --out" in done.stderr) == (1, True)


def test_naming_the_commands_loads_no_torch():
    code = "import sys, workers.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestEstimate:
    def test_is_one_line_of_json_and_no_run(self, tmp_path, base):
        demos, out = write_demonstrations(tmp_path / "demos"), tmp_path / "run"
        done = preferable("train", "sft", "--model", base, "--data", demos, "--out", out, "--estimate")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["total_bytes"] == sum(found["bytes"].values())
        assert found["fits"]
        assert max(found["alternatives_bytes"].values()) < found["total_bytes"]
        assert found["rough_seconds"] > 0
        assert not out.exists()
