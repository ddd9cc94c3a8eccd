"""Two real processes that talk over loopback, against one: `ranks` holds what both run."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.workers.training import ranks
from tests.workers.training.factories import events, open_run, weights
from workers.training import parallel
from workers.training.events import RunFolderError

CLOSE = 1e-12
"""Float64: what is added up in another order differs in the last digits, and nothing else does. Bitwise equal it cannot be: a sum
over two processes is the sum of two sums."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The runs of `ranks` by one process, below `1`, and by two, below `2`."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks.prepare(folder)
    command = ("torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2", "-m")
    done = subprocess.run(
        [sys.executable, "-m", *command, "tests.workers.training.ranks", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with ranks.in_float64():
        for name, stage in ranks.STAGES.items():
            stage(folder / "inputs", folder / "1" / name)
    return folder


def curves(run):
    """What a run showed of each step, but for its order."""
    return {event["step"]: event["values"] for event in events(run, "metrics")}


def numbers(run):
    """The metrics of a finished run that are numbers."""
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def assert_same_run(found, expected, tolerance=CLOSE):
    shown, asked = curves(found), curves(expected)
    assert shown.keys() == asked.keys()
    for step, values in asked.items():
        assert shown[step] == pytest.approx(values, rel=tolerance, abs=tolerance), step
    assert numbers(found) == pytest.approx(numbers(expected), rel=tolerance, abs=tolerance)
    one, other = weights(found / "checkpoint"), weights(expected / "checkpoint")
    assert one.keys() == other.keys()
    for name, weight in other.items():
        torch.testing.assert_close(one[name], weight, rtol=0, atol=tolerance)


class TestTwoProcesses:
    @pytest.mark.parametrize("stage", ranks.STAGES)
    def test_learn_what_one_learns(self, folder, stage):
        assert_same_run(folder / "2" / stage, folder / "1" / stage)

    def test_answer_alike_where_they_learn_from_their_answers(self, folder):
        """The values of every step are close only if every token drawn was the same; this asks that some were drawn."""
        assert len(curves(folder / "2" / "ppo")) == 4
        assert all(values["kl"] != 0 for step, values in curves(folder / "2" / "ppo").items() if step > 1)

    @pytest.mark.parametrize(
        ("stage", "family"),
        [("sft", AutoModelForCausalLM), ("reward", AutoModelForSequenceClassification), ("ppo", AutoModelForCausalLM)],
    )
    def test_leave_a_checkpoint_that_opens_in_plain_transformers(self, folder, stage, family):
        found = [family.from_pretrained(folder / number / stage / "checkpoint") for number in ("1", "2")]
        configs = [model.config.to_dict() | {"_name_or_path": ""} for model in found]
        means = [config.pop("reward_mean") for config in configs] if stage == "reward" else [0.0, 0.0]
        assert configs[0] == configs[1]
        assert means[0] == pytest.approx(means[1], rel=1e-12)  # of scores that were summed in another order
        ids = torch.tensor([[5, 6, 7, 8]])
        with torch.no_grad():
            one, two = (model(input_ids=ids).logits for model in found)
        torch.testing.assert_close(one, two, rtol=0, atol=CLOSE)

    def test_speak_with_one_voice(self, folder):
        assert len(events(folder / "2" / "sft", "start")) == 1
        assert sorted(path.name for path in (folder / "2" / "sft").iterdir()) == [
            "checkpoint",
            "events.jsonl",
            "lock",
            "metrics.json",
        ]

    @pytest.mark.parametrize("stage", ranks.LOOKS)
    def test_stop_together_where_one_was_asked_and_go_on_bit_for_bit(self, folder, stage):
        broken, unbroken = folder / "2" / f"{stage}-resumed", folder / "2" / stage
        assert len(events(broken, "state")) == 1
        assert_same_run(broken, unbroken, tolerance=0)

    @pytest.mark.parametrize("stage", ranks.LOOKS)
    def test_hand_their_state_to_one(self, folder, stage):
        left = folder / "2" / f"{stage}-left"
        assert (left / "state" / "state.pt").exists()
        with ranks.in_float64():
            ranks.STAGES[stage](folder / "inputs", left)
        assert "continuing from step" in events(left, "log")[-2 if stage == "sft" else -1]["text"]
        assert_same_run(left, folder / "1" / stage)


class TestMicroBatches:
    @pytest.mark.parametrize("size", [2, 3, 5])
    def test_are_dealt_whole_and_in_equal_number(self, monkeypatch, size):
        lengths = [3, 9, 4, 4, 7, 1, 8]
        monkeypatch.setattr(parallel, "size", lambda: size)
        dealt = []
        for rank in range(size):
            monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
            dealt.append(list(parallel.micro_batches(range(7), lengths, max_tokens=9)))
        assert len({len(batches) for batches in dealt}) == 1
        counted = [at for batches in dealt for rows, counts in batches if counts for at in rows]
        assert sorted(counted) == list(range(7))
        assert all(rows for batches in dealt for rows, _ in batches)


class TestShare:
    @pytest.mark.parametrize(("count", "size"), [(7, 3), (2, 3), (0, 2), (6, 2)])
    def test_the_parts_of_all_are_the_items(self, monkeypatch, count, size):
        monkeypatch.setattr(parallel, "size", lambda: size)
        found = []
        for rank in range(size):
            monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
            found += parallel.share(range(count))
        assert found == list(range(count))


class TestState:
    def test_of_one_process_is_refused_by_several(self, tmp_path, monkeypatch):
        with open_run(tmp_path / "run") as run:
            run.save_state(1, {"x": torch.ones(2)})
            monkeypatch.setattr(parallel, "size", lambda: 2)
            monkeypatch.setattr(parallel, "agree", lambda value: value)
            with pytest.raises(RunFolderError, match="of a run in one process; continue it in one"):
                run.load_state()
