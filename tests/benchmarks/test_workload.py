import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import workload
from workers.training import checkpoints, rankings
from workers.training.data import Pair
from workers.training.rankings import RankedSet

CONFIG = SimpleNamespace(
    hidden_size=4, num_attention_heads=2, num_key_value_heads=1, intermediate_size=8, num_hidden_layers=2
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["the red cat likes the blue dog and the green hat"] * 20
    shape = workload.Shape(layers=1, width=8, heads=2, intermediate=8, vocabulary=320)
    return checkpoints.load_tokenizer(
        workload.make_checkpoint(tmp_path_factory.mktemp("model") / "sft", texts, shape, "sft")
    )


def read(folder, tokenizer, chosen):
    return rankings.read(workload.write_rankings(folder / "snapshot", chosen), tokenizer, 2048).train


class TestStepFlops:
    def test_by_hand(self):
        """Head 2, prompt 2, responses 1 and 2: 5 tokens, 2 ends.

        A token's products: queries and back 4*4*2 = 32, keys and values 4*2*2 = 16, feed-forward 3*4*8 = 96. Seen columns:
        the prompt 1 + 2, the responses 3 and 3 + 4: 13, each of 2*4 = 8 products. First layer 5*144 + 13*8 = 824. Last layer:
        keys and values 5*16 = 80, at the ends 2*(32 + 96) = 256 and columns 3 + 4 = 7, 56: 392. Two operations a product,
        and three times that with the gradients of inputs and of weights.
        """
        element = RankedSet("p", [Pair([1, 2], [3]), Pair([1, 2], [4, 5])])
        assert workload.step_flops(CONFIG, [element]) == 6 * (824 + 392)
        assert workload.step_flops(CONFIG, [element, element]) == 2 * 6 * (824 + 392)


class TestOfLengths:
    def test_has_exactly_these_lengths(self, tmp_path, tokenizer):
        sets = read(tmp_path, tokenizer, workload.of_lengths(tokenizer, 9, 2, 40, 7))
        assert [len(element.outputs) for element in sets] == [9, 9]
        assert {len(output.prompt) for element in sets for output in element.outputs} == {40}
        assert {len(output.response) for element in sets for output in element.outputs} == {7}


class TestQaFeedback:
    def rows(self, path):
        answers = {f"prediction {at}": f"answer {at}" for at in range(1, 5)}
        row = {"question": "who", "passages": [["Title", "A line."], ["Other"]], **answers}
        # 4 > 1 > 3 > 2, by the pairs 12 13 14 23 24 34
        path.write_text(json.dumps([{**row, "preference": [1, 1, 2, 2, 2, 2]}, {**row, "preference": [0] * 6}]))
        return path

    def test_takes_prompts_ranked_without_a_tie_best_first(self, tmp_path):
        (ranking,) = workload.qa_feedback(self.rows(tmp_path / "qa.json"), 4, 1)
        assert ranking.prompt == "who\n\nTitle A line.\nOther"
        assert ranking.responses == ["answer 4", "answer 1", "answer 3", "answer 2"]

    def test_takes_the_first_answers(self, tmp_path):
        (ranking,) = workload.qa_feedback(self.rows(tmp_path / "qa.json"), 2, 1)
        assert ranking.responses == ["answer 1", "answer 2"]


class TestPairs:
    def test_are_all_comparisons_chosen_first(self, tmp_path, tokenizer):
        (element,) = read(tmp_path, tokenizer, [workload.Ranking("the cat", ["red", "blue", "green"])])
        found = workload.pairs([element])
        words = [tuple(tokenizer.decode(ids, skip_special_tokens=True)[7:] for ids in pair) for pair in found]
        assert words == [("red", "blue"), ("red", "green"), ("blue", "green")]


class TestTimedRun:
    def test_notes_the_end_of_every_step_and_saves_no_state(self, tmp_path):
        with workload.TimedRun(tmp_path / "run") as run:
            for step in (1, 2, 3):
                run.step(step, 3, {"loss": 0.0}, lambda: {"weights": torch.zeros(1)})
        assert run.ended == sorted(run.ended) and len(run.ended) == 3
        assert not (tmp_path / "run" / "state").exists()
