import json

import pytest
from typer.testing import CliRunner

from tests.workers.training.factories import WORDS, events, make_sft, ranking, write_rankings
from workers.cli import app
from workers.training import reward
from workers.training.leave_groups_out import leave_groups_out, split
from workers.training.reward import RewardConfig

CONFIG = RewardConfig(epochs=8, lr=2e-3, batch_size=8)


@pytest.fixture
def sft(tmp_path):
    return make_sft(tmp_path / "sft")


def contrary(folder, odd, known=lambda name: name):
    """Rankings of four people on shared prompts: all but `odd` prefer cats, who prefers hats."""
    rows, names = [], [f"l{at}" for at in range(4)]
    for prompt in range(24):
        for name in names:
            tiers = [2, 1] if name == odd else [1, 2]
            part = "valid" if prompt % 4 == 3 else "train"
            texts, samples = [f"{WORDS[prompt % 15]} cat", f"{WORDS[prompt % 15]} hat"], [f"{prompt}-a", f"{prompt}-b"]
            rows.append(
                ranking(len(rows), f"who {prompt}", texts, tiers, split=part, samples=samples, labeller=known(name))
            )
    return write_rankings(folder, rows)


class TestSplit:
    def test_groups_are_disjoint_cover_all_and_differ_by_one_at_most(self):
        names = [f"labeller {at}" for at in range(13)]
        groups = split(names, 5)
        assert sorted(name for group in groups for name in group) == sorted(names)
        assert sorted(map(len, groups)) == [2, 2, 3, 3, 3]

    def test_does_not_depend_on_the_order(self):
        names = [f"labeller {at}" for at in range(13)]
        assert split(names, 5) == split(names[::-1], 5)

    def test_refuses_fewer_people_than_groups(self):
        with pytest.raises(ValueError, match="there are 4 labellers; expected at least one for each of 5 groups"):
            split(["a", "b", "c", "d"], 5)


class TestLeaveGroupsOut:
    def test_a_contrary_labeller_is_not_foreseen_by_a_model_of_the_others(self, tmp_path, sft):
        folder = contrary(tmp_path / "rankings", odd="l2")
        report = leave_groups_out(CONFIG, sft, folder, tmp_path / "out", groups=4)
        accuracies = {group["unseen"]["accuracy"] for group in report["groups"]}
        assert accuracies == {0.0, 1.0}  # of the contrary one, and of each of the others
        assert report["unseen"] == {
            "accuracy": 0.75,
            "low": 0.75,
            "high": 0.75,
            "longer_wins": 0.5,
            "prompts": 6,
            "comparisons": 24,
        }
        assert report["seen"]["comparisons"] == 72
        # three models follow the majority and are right about two of three; that of the agreeing three is always right
        assert report["seen"]["accuracy"] == pytest.approx((3 * 2 / 3 + 1) / 4, abs=1e-4)
        assert report["gap"]["value"] == pytest.approx(0.0, abs=1e-9)
        assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == report

    def test_no_judgement_of_a_group_or_of_somebody_unknown_is_learned_from(self, tmp_path, sft):
        folder = contrary(tmp_path / "rankings", odd=None, known=lambda name: None if name == "l3" else name)
        report = leave_groups_out(RewardConfig(), sft, folder, tmp_path / "out", groups=3)
        for number in range(3):
            counts = events(tmp_path / "out" / f"group-{number}", "start")[0]["counts"]
            assert counts["judgements"] == 2 * 18
        assert report["unseen"]["comparisons"] == 3 * 6

    def test_called_again_it_goes_on_where_it_was(self, tmp_path, sft, monkeypatch):
        folder = contrary(tmp_path / "rankings", odd="l0")
        first = leave_groups_out(RewardConfig(), sft, folder, tmp_path / "out", groups=2)
        monkeypatch.setattr(reward, "train", None)
        assert leave_groups_out(RewardConfig(), sft, folder, tmp_path / "out", groups=2) == first

    def test_command_is_wired_and_says_in_one_sentence_what_is_wrong(self, tmp_path, sft):
        folder, out = contrary(tmp_path / "rankings", odd="l0"), tmp_path / "out"
        words = ["train", "leave-groups-out", "--model", sft, "--data", folder, "--out", out, "--device", "cpu"]
        done = CliRunner().invoke(app, [*map(str, words), "--set", "epochs=1"])
        assert done.exit_code == 1  # four people make no five groups
        assert "error: there are 4 labellers" in done.output

    def test_without_a_held_out_judgement_it_says_so_first(self, tmp_path, sft):
        folder = write_rankings(tmp_path / "rankings", [ranking(0, "who", ["cat", "hat"], [1, 2])])
        with pytest.raises(ValueError, match="no judgement of a known labeller in split 'valid'"):
            leave_groups_out(CONFIG, sft, folder, tmp_path / "out")
        assert not (tmp_path / "out").exists()
