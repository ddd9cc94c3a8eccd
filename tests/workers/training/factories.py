"""Tiny checkpoints and snapshots for the training tests: real tokenizers, real architectures, random weights."""

import random
from pathlib import Path

import torch
from tokenizers import processors
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from app import snapshot
from workers.training import base, checkpoints, conversation
from workers.training.events import Run

WORDS = ["red", "green", "blue", "cat", "dog", "hat", "likes", "the", "a", "is", "has", "what", "who", "one", "two"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


FAMILIES = ["llama", "gpt2", "qwen", "neox", "gemma"]
"""Architectures that every stage takes: each has attention, positions and norms of its own."""


def make_tokenizer(template=False, pad_is_end=False, begin=True):
    """A byte-level tokenizer; with `begin` it puts a begin token before every text, as Llama's does and GPT-2's does not."""
    rng = random.Random(0)
    tokenizer = base.train_tokenizer([" ".join(rng.choices(WORDS, k=12)) for _ in range(200)], 300)
    if not begin:
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        tokenizer.bos_token = None
    if template:
        tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "extra_special_tokens": ["<|im_start|>"]})
        tokenizer.chat_template = CHATML
    if pad_is_end:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def make_turns(style):
    """A tokenizer whose template ends a turn with another token than its `eos_token`: "gemma", or "chatml" as Qwen's bases."""
    tokenizer = make_tokenizer()
    begin, end = {"gemma": ("<start_of_turn>", "<end_of_turn>"), "chatml": ("<|im_start|>", "<|im_end|>")}[style]
    tokenizer.add_special_tokens({"extra_special_tokens": [begin, end]})
    tokenizer.chat_template = {"gemma": GEMMA, "chatml": CHATML}[style]
    return tokenizer


def make_model(tokenizer, family="llama", seed=0, context=96, tied=True):
    torch.manual_seed(seed)
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    size = len(tokenizer)
    if family == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=context, tie_word_embeddings=tied, **ids
            )
        ).eval()
    shape = {
        "vocab_size": size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied and family != "untied",
        **ids,
    }
    if family == "qwen":
        return Qwen3ForCausalLM(Qwen3Config(num_key_value_heads=1, head_dim=16, **shape)).eval()
    if family == "gemma":
        heads = {"num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16}
        return Gemma2ForCausalLM(Gemma2Config(**heads, **shape)).eval()
    if family == "neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**shape)).eval()
    if family == "recurrent":
        layers = {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "num_key_value_heads": 2}
        return Lfm2ForCausalLM(Lfm2Config(**shape | layers)).eval()
    if family == "sliding":
        return MistralForCausalLM(MistralConfig(num_key_value_heads=2, sliding_window=4, **shape)).eval()
    return LlamaForCausalLM(LlamaConfig(**shape)).eval()


def make_base(folder, family="llama", *, template=False, pad_is_end=False, begin=True, tied=True, context=96):
    """A base checkpoint; `pad_is_end` as SmolLM2 and many others come."""
    tokenizer = make_tokenizer(template, pad_is_end, begin)
    make_model(tokenizer, family, context=context, tied=tied).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def make_sft(folder, family="llama", *, template=False, pad_is_end=False, context=96):
    """What SFT leaves behind, without the training: template written, PAD of its own."""
    tokenizer = make_tokenizer(template, pad_is_end)
    model = make_model(tokenizer, family, context=context)
    conversation.write_template(tokenizer)
    checkpoints.prepare(model, tokenizer)
    checkpoints.save(Path(folder), model, tokenizer, "sft", {})
    return Path(folder)


def make_reward(folder, sft, mean=0.25):
    """A reward model with a random head on an SFT checkpoint."""
    tokenizer, model = checkpoints.load_tokenizer(sft), checkpoints.reward_model_from(sft, seed=1)
    checkpoints.prepare(model, tokenizer)
    model.config.reward_mean = mean
    checkpoints.save(Path(folder), model, tokenizer, "reward", {"sft": sft})
    return Path(folder)


def user(text):
    return [{"role": "user", "content": text}]


def demonstration(number, prompt, response, split="train"):
    return {
        "id": f"d{number}",
        "prompt_id": f"p{number}",
        "prompt": user(prompt),
        "response": response,
        "split": split,
        "labeller": "l1",
        "origin": "written",
    }


def ranking(
    number, prompt, texts, tiers, *, split="train", finish="stop", weight=1.0, pairs=None, samples=None, labeller="l1"
):
    names = samples or [f"s{number}-{at}" for at in range(len(texts))]
    responses = [
        {
            "sample": name,
            "text": text,
            "tier": tier,
            "quality": None,
            "flags": {},
            "sampler": "sft",
            "finish_reason": finish,
        }
        for name, text, tier in zip(names, texts, tiers, strict=True)
    ]
    return {
        "id": f"r{number}",
        "prompt_id": prompt,
        "prompt": user(prompt),
        "responses": responses,
        "pairs": pairs,
        "split": split,
        "labeller": labeller,
        "group": prompt,
        "round": 1,
        "confidence": None,
        "purpose": "train",
        "judge": "human",
        "weight": weight,
        "guideline": 1,
        "schema": 1,
        "created": "2026-01-01T00:00:00Z",
    }


def prompt_row(number, text, split="train"):
    return {
        "id": f"q{number}",
        "prompt": user(text),
        "split": split,
        "category": "chat",
        "reference": None,
        "verifier": None,
    }


def write_demonstrations(folder, rows=None):
    rows = rows or [
        demonstration(i, f"who likes the {w}", f"the {w} is {w}", "valid" if i % 4 == 3 else "train")
        for i, w in enumerate(WORDS)
    ]
    snapshot.write(Path(folder), "demonstrations", {"demonstrations.jsonl": rows})
    return Path(folder)


def write_rankings(folder, rows=None, demonstrations=()):
    """By default a planted preference: the answer that says "cat" beats those that do not."""
    if rows is None:
        rng = random.Random(1)
        rows = []
        for i in range(48):
            texts = [f"{rng.choice(WORDS)} cat", f"{rng.choice(WORDS)} hat", f"{rng.choice(WORDS)} dog"]
            order = rng.sample(range(3), 3)
            tiers = [1 if at == 0 else 2 for at in order]
            rows.append(
                ranking(
                    i,
                    f"what {rng.choice(WORDS)} {i}",
                    [texts[at] for at in order],
                    tiers,
                    split="valid" if i % 4 == 3 else "train",
                )
            )
    files = {
        "rankings.jsonl": rows,
        "demonstrations.jsonl": list(demonstrations) or [demonstration(0, "who", "one cat")],
    }
    snapshot.write(Path(folder), "rankings", files)
    return Path(folder)


def write_prompts(folder, rows=None):
    rows = rows or [prompt_row(i, f"who has {w} {i}", "valid" if i % 4 == 3 else "train") for i, w in enumerate(WORDS)]
    snapshot.write(Path(folder), "prompts", {"prompts.jsonl": rows})
    return Path(folder)


def write_text(folder, documents=None):
    """A text snapshot, by default of sentences with a pattern that a tiny model can learn."""
    documents = documents or [f"{a} likes {b} and {b} likes {a}" for a in WORDS for b in WORDS]
    snapshot.write(Path(folder), "text", {"text.jsonl": [{"text": document} for document in documents]})
    return Path(folder)


def open_run(folder, settings=None, **options):
    return Run(Path(folder), {"test": 1} if settings is None else settings, **options)


def weights(folder):
    """The tensors of a checkpoint by name."""
    from safetensors.torch import load_file

    return load_file(Path(folder) / "model.safetensors")


def events(folder, kind=None):
    import json

    lines = [json.loads(line) for line in (Path(folder) / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if kind in (None, line["type"])]
