import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from app.snapshot import folder_sha256
from tests.workers.training.factories import make_base, make_model, make_reward, make_sft, make_tokenizer, user
from workers.training import checkpoints, conversation, data, models
from workers.training.checkpoints import CheckpointError


class TestResolve:
    def test_refuses_pickled_weights(self, tmp_path):
        base = make_base(tmp_path / "base")
        (base / "model.safetensors").unlink()
        torch.save({}, base / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match=r"pickled \(pytorch_model.bin\); only safetensors"):
            checkpoints.resolve(base)
        with pytest.raises(CheckpointError, match="pickled"):
            checkpoints.load_language_model(base)

    def test_refuses_a_folder_without_a_model(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            checkpoints.resolve(tmp_path)

    def test_refuses_a_name_that_is_nothing(self, tmp_path):
        with pytest.raises(CheckpointError, match="neither a folder nor a model"):
            checkpoints.resolve(tmp_path / "no" / "such" / "folder")

    def test_never_runs_code_of_a_checkpoint(self, tmp_path):
        base = make_base(tmp_path / "base")
        config = json.loads((base / "config.json").read_text())
        config |= {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Config"}}
        (base / "config.json").write_text(json.dumps(config))
        (base / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            checkpoints.load_language_model(base)
        assert not (tmp_path / "ran").exists()


class TestPrepare:
    @pytest.mark.parametrize("family", ["llama", "untied", "gpt2"])
    def test_new_rows_are_the_mean_of_the_old_and_old_ones_stay(self, family):
        tokenizer = make_tokenizer(pad_is_end=True)
        model = make_model(tokenizer, family)
        before = model.get_input_embeddings().weight.clone()
        conversation.write_template(tokenizer)
        checkpoints.prepare(model, tokenizer)
        after = model.get_input_embeddings().weight
        assert len(after) == len(tokenizer) == len(before) + 3  # the roles; PAD had a row already
        assert torch.equal(after[: len(before)], before)
        assert torch.allclose(after[len(before) :], before.mean(0).expand(3, -1), atol=1e-7)
        assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id

    def test_rows_that_the_model_kept_spare_are_new_too(self):
        tokenizer = make_tokenizer(pad_is_end=True)
        known = len(tokenizer)
        model = make_model(tokenizer, "untied")
        model.resize_token_embeddings(known + 8, mean_resizing=False)
        conversation.write_template(tokenizer)
        checkpoints.prepare(model, tokenizer, known)
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            added = layer.weight[known : len(tokenizer)]
            assert len(added) == 3  # the roles; PAD had a row already
            assert torch.allclose(added, layer.weight[:known].mean(0).expand(3, -1), atol=1e-7)


class TestSave:
    def test_opens_in_plain_transformers(self, tmp_path):
        folder = make_sft(tmp_path / "sft", pad_is_end=True)
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
        text = tokenizer.apply_chat_template(user("who has"), tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == conversation.encode_prompt(checkpoints.load_tokenizer(folder), user("who has"))
        assert model(torch.tensor([ids])).logits.shape[-1] == len(tokenizer)

    def test_returns_the_identity_which_the_sidecar_is_no_part_of(self, tmp_path):
        tokenizer = make_tokenizer()
        identity = checkpoints.save(tmp_path / "x", make_model(tokenizer), tokenizer, "base", {})
        (tmp_path / "x" / "preferable.json").write_text("{}")
        assert folder_sha256(tmp_path / "x") == identity

    def test_notes_kind_and_parents(self, tmp_path):
        sft = make_sft(tmp_path / "sft")
        reward = make_reward(tmp_path / "reward", sft)
        notes = checkpoints.read_sidecar(reward)
        assert (notes["kind"], notes["parents"]) == ("reward", {"sft": folder_sha256(sft)})

    def test_leaves_the_old_checkpoint_and_no_litter_when_it_fails(self, tmp_path):
        folder = make_sft(tmp_path / "sft")
        before = folder_sha256(folder)
        tokenizer = make_tokenizer()
        tokenizer.chat_template = "{{ no such syntax }}"  # fails where the sidecar's hash is taken: the last file
        with pytest.raises(ValueError, match="chat template refuses"):
            checkpoints.save(folder, make_model(tokenizer), tokenizer, "sft", {})
        assert folder_sha256(folder) == before
        assert [path.name for path in tmp_path.iterdir()] == ["sft"]


class TestFormats:
    def test_a_tokenizer_changed_after_saving_is_refused(self, tmp_path):
        folder = make_sft(tmp_path / "sft")
        (folder / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
        with pytest.raises(CheckpointError, match="restore its tokenizer files"):
            checkpoints.load_tokenizer(folder)

    def test_parents_of_two_formats_are_refused(self, tmp_path):
        one, other = make_sft(tmp_path / "one"), make_sft(tmp_path / "other", template=True)
        with pytest.raises(CheckpointError, match="another format"):
            checkpoints.require_same_format(one, other)


class TestLoadKinds:
    def test_a_reward_model_is_no_language_model_and_the_other_way_round(self, tmp_path):
        sft = make_sft(tmp_path / "sft")
        with pytest.raises(CheckpointError, match="expected a language model"):
            checkpoints.load_language_model(make_reward(tmp_path / "reward", sft))
        with pytest.raises(CheckpointError, match="no reward model of ours"):
            checkpoints.load_reward_model(sft)

    @pytest.mark.parametrize("mean", [float("nan"), float("inf")])
    def test_a_reward_model_without_a_finite_offset_is_refused(self, tmp_path, mean):
        reward = make_reward(tmp_path / "reward", make_sft(tmp_path / "sft"), mean=mean)
        with pytest.raises(CheckpointError, match=f"reward_mean {mean} in config.json; expected a finite number"):
            checkpoints.load_reward_model(reward)

    def test_a_fresh_head_has_openais_spread_and_follows_the_seed(self, tmp_path):
        sft = make_sft(tmp_path / "sft")
        heads = [checkpoints.reward_model_from(sft, seed).score.weight for seed in (1, 1, 2)]
        assert torch.equal(heads[0], heads[1])
        assert not torch.equal(heads[0], heads[2])
        assert heads[0].std().item() == pytest.approx(33**-0.5, rel=0.4)  # 32 draws of N(0, 1/33)


class TestRewardModelInPlainTransformers:
    """`AutoModelForSequenceClassification` less `config.reward_mean` is our score, batched, both padding sides."""

    RESPONSES = ("red", "the cat is a hat", "", "one two")

    @pytest.mark.parametrize("side", ["right", "left"])
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    @pytest.mark.parametrize("base", [{}, {"pad_is_end": True}, {"template": True, "pad_is_end": True}])
    def test_scores_alike(self, tmp_path, base, family, side):
        folder = make_reward(tmp_path / "reward", make_sft(tmp_path / "sft", family, **base))
        tokenizer, model = (
            AutoTokenizer.from_pretrained(folder),
            AutoModelForSequenceClassification.from_pretrained(folder),
        )
        pairs = [
            data.encode_pair(tokenizer, user("who has the dog"[: 3 + 4 * i]), text)
            for i, text in enumerate(self.RESPONSES)
        ]
        ours = (
            models.end_scores(checkpoints.load_reward_model(folder), data.collate(pairs, tokenizer.pad_token_id)) - 0.25
        )

        tokenizer.padding_side = side
        batch = tokenizer.pad({"input_ids": [pair.prompt + pair.response for pair in pairs]}, return_tensors="pt")
        if family == "gpt2":  # absolute positions: transformers counts padding unless told
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        plain = model(**batch).logits.squeeze(-1) - model.config.reward_mean
        assert torch.allclose(ours, plain, atol=1e-5)
        assert model.config.pad_token_id != tokenizer.eos_token_id
