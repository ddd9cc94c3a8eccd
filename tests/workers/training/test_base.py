from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.workers.training.factories import WORDS, events, open_run
from workers.training import base
from workers.training.base import BaseConfig
from workers.training.events import CancelledError

SMALL = BaseConfig(
    vocab_size=300,
    hidden_size=32,
    layers=2,
    heads=2,
    intermediate_size=48,
    context=64,
    steps=12,
    batch_size=4,
    block_tokens=32,
)


@pytest.fixture
def text(tmp_path):
    path = Path(tmp_path / "text.txt")
    path.write_text("\n\n".join(f"the {a} has {b}\nand 12 {a}" for a in WORDS for b in WORDS))
    return path


def run_base(folder, text, config=SMALL):
    with open_run(folder) as run:
        return base.train(config, [text], run)


class TestTrain:
    def test_loss_falls_and_plain_transformers_opens_it(self, tmp_path, text):
        run_base(tmp_path / "run", text)
        losses = [event["values"]["loss"] for event in events(tmp_path / "run", "metrics")]
        checkpoint = tmp_path / "run" / "checkpoint"
        tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModelForCausalLM.from_pretrained(checkpoint)
        assert losses[-1] < losses[0]
        assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
        assert tokenizer.chat_template is None
        assert model.config.vocab_size == len(tokenizer)

    def test_same_text_and_seed_same_checkpoint(self, tmp_path, text):
        assert run_base(tmp_path / "one", text)["sha256"] == run_base(tmp_path / "two", text)["sha256"]

    def test_resumed_equals_uninterrupted_bit_for_bit(self, tmp_path, text):
        straight = run_base(tmp_path / "straight", text)
        with open_run(tmp_path / "broken") as run:
            step = run.step
            run.step = lambda at, *rest: (run.cancel() if at == 5 else None, step(at, *rest))
            with pytest.raises(CancelledError):
                base.train(SMALL, [text], run)
        assert run_base(tmp_path / "broken", text)["sha256"] == straight["sha256"]

    def test_refuses_to_learn_from_nothing(self, tmp_path):
        empty = Path(tmp_path / "empty.txt")
        empty.write_text("\n\n \n")
        with pytest.raises(ValueError, match="no text in"):
            run_base(tmp_path / "run", empty)


class TestReadDocuments:
    def test_are_parted_by_blank_lines_or_are_rows(self, tmp_path):
        (tmp_path / "a.txt").write_text("one\ntwo\n\n\n\nthree\n")
        (tmp_path / "a.jsonl").write_text('{"text": "one\\n\\ntwo"}\n{"text": ""}\n')
        assert list(base.read_documents(tmp_path / "a.txt")) == ["one\ntwo", "three"]
        assert list(base.read_documents(tmp_path / "a.jsonl")) == ["one\n\ntwo"]


class TestTrainTokenizer:
    def test_represents_any_text_and_opens_it_with_the_begin_token(self):
        tokenizer = base.train_tokenizer(["the cat"], 300)
        ids = tokenizer("Größe 123 😀")["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "Größe 123 😀"
        assert ids[0] == tokenizer.bos_token_id
        assert len(tokenizer("123", add_special_tokens=False)["input_ids"]) == 3
