import json
from collections import Counter
from dataclasses import replace

import pytest

from app import snapshot
from app.starter import corpus, load_starter
from studies import ptx
from tests.architecture.source import ROOT
from tests.workers.training.factories import write_prompts, write_text
from tests.workers.training.ppo_runs import QUICK, make_starts
from workers.training import checkpoints, conversation, pretraining


def row(seed, ptx_coef, text_loss, score=0.0):
    return {"seed": seed, "ptx_coef": ptx_coef, "text_loss": text_loss, "score": score, "kl": 1.0, "length": 9.0}


class TestWriteText:
    def test_only_documents_of_another_seed_are_held_out(self, tmp_path):
        folder = ptx.write_text(tmp_path / "text", "test", mixed=300)
        texts = [row["text"] for row in snapshot.read_rows(folder, "text.jsonl")]
        assert texts == [*corpus.documents(count=300), *corpus.documents(2, ptx.HELDOUT)]
        tokenizer = checkpoints.load_tokenizer(load_starter().base_folder)
        behind = sum(len(conversation.encode_text(tokenizer, text)) for text in texts[300:])
        assert (pretraining.HELDOUT + 1) * ptx.PTX["ptx_tokens"] < behind

    def test_each_split_has_text_of_its_own(self, tmp_path):
        valid, test = (
            [row["text"] for row in snapshot.read_rows(ptx.write_text(tmp_path / split, split, mixed=0), "text.jsonl")]
            for split in ("valid", "test")
        )
        assert valid != test


class TestWritePrompts:
    def test_one_split_is_held_out_and_the_other_left_out(self, tmp_path):
        asked = [prompt for prompt in load_starter().prompts if len(prompt.messages) == 1]
        folder = ptx.write_prompts(tmp_path / "prompts", asked, "test")
        found = Counter(row["split"] for row in snapshot.read_rows(folder, "prompts.jsonl"))
        splits = Counter(prompt.split for prompt in asked)
        assert found == {"train": splits["train"], "valid": splits["test"]}


class TestMeasure:
    def test_rows_are_the_start_and_each_coefficient_of_each_seed(self, tmp_path):
        starts = replace(make_starts(tmp_path), text=write_text(tmp_path / "text"))
        settings = replace(QUICK, episodes=12, ptx_tokens=16, ptx_per_episode=1)
        prompts = write_prompts(tmp_path / "prompts")
        rows = ptx.measure(settings, [0.0, 30.0], [0, 1], starts, prompts, tmp_path)
        assert [(row["seed"], row["ptx_coef"]) for row in rows] == [(s, c) for s in (0, 1) for c in (None, 0.0, 30.0)]
        start, plain, mixed = rows[:3]
        assert start["kl"] == 0 != plain["kl"]
        assert mixed["text_loss"] < start["text_loss"] != plain["text_loss"]


class TestDifferences:
    def test_are_taken_seed_by_seed(self):
        """3 - 2 and 5 - 2: mean 2, deviation sqrt(2), error 1."""
        rows = [row(0, None, 2.0), row(0, 0.0, 3.0), row(1, None, 2.0), row(1, 0.0, 5.0)]
        found = ptx.differences(rows, 0.0, None)
        assert found["text_loss"] == {"mean": 2.0, "standard_error": pytest.approx(1.0)}
        assert found["kl"] == {"mean": 0.0, "standard_error": 0.0}


class TestChoose:
    ROWS = (row(9, None, 1.0), row(9, 0.0, 0.9), row(9, 0.1, 1.1), row(9, 1.0, 1.0), row(9, 3.0, 0.5))

    def test_takes_the_smallest_that_keeps_the_likelihood_and_never_plain_ppo(self):
        assert ptx.choose(self.ROWS) == 1.0

    def test_is_none_where_none_keeps_it(self):
        assert ptx.choose(self.ROWS[:3]) is None


class TestSearch:
    @pytest.mark.parametrize(("losses", "tried"), [((0.9, 1.1, 1.0, 0.5, 0.4), 2), ((1.5, 1.4, 1.3, 1.2, 1.1), 4)])
    def test_tries_one_after_the_other_until_one_is_chosen(self, monkeypatch, losses, tried):
        found = dict(zip([0.0, *ptx.CANDIDATES], losses, strict=True))

        def measure(settings, coefficients, seeds, *paths):
            return [row(seeds[0], None, 1.0), *(row(seeds[0], each, found[each]) for each in coefficients)]

        monkeypatch.setattr(ptx, "measure", measure)
        rows = ptx.search(QUICK, 9, None, None, None)
        assert [row["ptx_coef"] for row in rows] == [None, 0.0, *ptx.CANDIDATES[:tried]]


class TestTable:
    def test_by_hand(self):
        rows = [row(0, None, 0.0), row(0, 0.3, 1.0, -2.5), row(1, None, 0.0), row(1, 0.3, 2.0, -1.5)]
        found = {"rows": rows, "differences": {"PPO-ptx 0.3 less SFT": ptx.differences(rows, 0.3, None)}}
        lines = list(ptx.table(found))
        assert "| 0 | SFT | 0.000 | 1.00 | 0.00 | 1.00 | 9.0 |" in lines
        assert "| mean | PPO-ptx 0.3 | 1.500 | 4.48 | -2.00 | 1.00 | 9.0 |" in lines
        assert (
            lines[-1] == "| PPO-ptx 0.3 less SFT | +1.500 ± 0.500 | -2.000 ± 0.500 | +0.000 ± 0.000 | +0.000 ± 0.000 |"
        )

    def test_of_a_single_seed_has_no_means(self):
        rows = [row(0, None, 0.0)]
        assert not [line for line in ptx.table({"rows": rows, "differences": {}}) if line.startswith("| mean")]


class TestPage:
    """docs/studies/ptx.md shows the figures that lie beside it."""

    @pytest.mark.parametrize("name", ["ptx.json", "ptx.choose.json"])
    def test_holds_every_line_of_the_tables(self, name):
        folder = ROOT / "docs/studies"
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        page = (folder / "ptx.md").read_text(encoding="utf-8").splitlines()
        assert [line for line in ptx.table(found) if line not in page] == []

    def test_the_coefficient_reported_is_the_one_chosen(self):
        chosen, found = (
            json.loads((ROOT / "docs/studies" / name).read_text(encoding="utf-8"))
            for name in ("ptx.choose.json", "ptx.json")
        )
        assert {row["ptx_coef"] for row in found["rows"]} == {None, 0.0, chosen["chosen"]}
        assert chosen["chosen"] == ptx.PTX_COEF
        assert {row["seed"] for row in chosen["rows"]}.isdisjoint(row["seed"] for row in found["rows"])
