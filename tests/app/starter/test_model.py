"""What is shipped with the starter: the base model, the text it was made of, and the samples drawn from it."""

import hashlib
import json
from collections import defaultdict

import pytest

from app.snapshot import folder_sha256
from app.starter import load_starter
from app.starter.corpus import documents

CORPUS_SHA256 = "214741f7c1324f4577806703471639c32e054adea484734d0f48a2a863696ae0"
MODEL_SHA256 = "3c92d2ca322e6b8e7c7868cdeb6298b27d3340ef5ad97b10c42925c7a91d20e7"
STARTER = load_starter()


class TestBaseModel:
    def test_is_the_one_that_the_documented_command_made(self):
        assert folder_sha256(STARTER.base_folder) == MODEL_SHA256

    def test_takes_at_most_five_megabytes(self):
        assert sum(path.stat().st_size for path in STARTER.base_folder.rglob("*") if path.is_file()) <= 5_000_000

    def test_is_a_plain_language_model_without_a_chat_template(self):
        assert json.loads((STARTER.base_folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
        assert "chat_template" not in json.loads((STARTER.base_folder / "tokenizer_config.json").read_text())
        assert not list(STARTER.base_folder.glob("*.jinja"))

    @pytest.mark.slow
    def test_its_text_is_made_again_to_the_byte(self):
        digest = hashlib.sha256()
        for text in documents():
            digest.update(text.encode() + b"\n\n")
        assert digest.hexdigest() == CORPUS_SHA256


class TestSamples:
    def test_are_eight_different_responses_to_each_of_sixty_training_prompts(self):
        texts = defaultdict(list)
        for sample in STARTER.samples:
            texts[sample.prompt_key].append(sample.text.strip())
        prompts = {prompt.key: prompt for prompt in STARTER.prompts}
        assert len(texts) == 60
        assert {len(set(found)) for found in texts.values()} == {8}
        assert all(prompts[key].split == "train" and prompts[key].parent is None for key in texts)

    def test_were_drawn_from_the_shipped_model(self):
        assert {sample.checkpoint for sample in STARTER.samples} == {MODEL_SHA256}
        assert {sample.finish_reason for sample in STARTER.samples} <= {"stop", "length"}
        assert all(0 < sample.token_count <= 32 and sample.seed >= 0 for sample in STARTER.samples)
