"""What the learning benchmarks train on: a small random Llama with a tokenizer of the data, and snapshots of ours."""

import itertools
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from app import snapshot
from app.starter import StarterPrompt, load_starter
from workers.training import base, checkpoints, config, conversation, sft
from workers.training.events import Run, State
from workers.training.rankings import RankedSet


@dataclass(frozen=True)
class Shape:
    """A small Llama."""

    layers: int = 6
    width: int = 256
    heads: int = 4
    intermediate: int = 688
    vocabulary: int = 8192
    context: int = 2048


@dataclass(frozen=True)
class Ranking:
    """Responses to one prompt, best first."""

    prompt: str | list[conversation.Message]
    """What a user asks, or a conversation up to it."""
    responses: list[str]
    tiers: Sequence[int | None] = ()
    """Where they are not best first: the tier of each, 1 the best, none not rankable."""
    finish_reasons: Sequence[str] = ()
    """Where not all of them ended by themselves."""
    split: str = "train"


class TimedRun(Run):
    """A run that notes when each step ended. Its state is never saved: that is not what is timed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {}, state_seconds=float("inf"))
        self.ended: list[float] = []

    def step(self, step: int, total: int, values: Mapping[str, float], state: Callable[[], State]) -> None:
        """Note the time, then report as ever."""
        self.ended.append(time.perf_counter())
        super().step(step, total, values, state)


class WatchedRun(TimedRun):
    """A timed run that also keeps what each iteration told."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.told: list[Mapping[str, float]] = []

    def step(self, step: int, total: int, values: Mapping[str, float], state: Callable[[], State]) -> None:
        """Keep the values, then report as ever."""
        self.told.append(values)
        super().step(step, total, values, state)


def fine_tune_starter(folder: Path, prompts: Sequence[StarterPrompt]) -> Path:
    """The checkpoint of the starter's base model, fine-tuned by its settings on what was written for some of its prompts."""
    starter = load_starter()
    texts = {prompt.key: prompt.messages[0]["content"] for prompt in prompts}
    written = [
        demonstration(at, texts[one.prompt_key], one.response)
        for at, one in enumerate(starter.demonstrations)
        if one.prompt_key in texts
    ]
    snapshot.write(folder / "demonstrations", "demonstrations", {"demonstrations.jsonl": written})
    with Run(folder / "sft", {}) as run:
        tuning = config.load(sft.SFTConfig, "sft", starter.config_path)
        sft.train(tuning, starter.base_folder, folder / "demonstrations", run)
    return folder / "sft" / "checkpoint"


def make_checkpoint(folder: Path, texts: Sequence[str], shape: Shape, kind: checkpoints.Kind) -> Path:
    """A random Llama and a tokenizer trained on `texts`, as SFT leaves one behind or as a bare base."""
    tokenizer = base.train_tokenizer(texts, shape.vocabulary)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.width,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    conversation.write_template(tokenizer)
    checkpoints.prepare(model, tokenizer)
    checkpoints.save(folder, model, tokenizer, kind, {})
    return folder


def qa_feedback(path: Path, outputs: int, count: int) -> list[Ranking]:
    """The first `count` prompts of qa_feedback whose four answers were ranked without a tie; the first K of these.

    Its labels are of the pairs (1,2), (1,3), (1,4), (2,3), (2,4), (3,4): 1 the first is better, 2 the second, 0 neither.
    """
    rows = [row for row in json.loads(path.read_text(encoding="utf-8")) if all(row["preference"])]
    found = []
    for row in rows[:count]:
        wins = [0] * 4
        for pair, label in zip(itertools.combinations(range(4), 2), row["preference"], strict=True):
            wins[pair[label - 1]] += 1
        order = sorted(range(outputs), key=lambda at: -wins[at])
        passages = "\n".join(" ".join(passage) for passage in row["passages"])
        responses = [row[f"prediction {at + 1}"] for at in order]
        found.append(Ranking(f"{row['question']}\n\n{passages}", responses))
    return found


def of_lengths(
    tokenizer: PreTrainedTokenizerBase, outputs: int, count: int, prompt_tokens: int, response_tokens: int
) -> list[Ranking]:
    """`count` rankings of random words, prompts and responses of exactly these lengths, template and end token included."""
    tokens = (tokenizer.convert_ids_to_tokens(at) for at in range(len(tokenizer)))
    words = [token[1:] for token in tokens if token[0] == "Ġ" and token[1:].isascii() and token[1:].isalpha()]
    rng = random.Random(0)

    def text(length: int) -> str:
        return "".join(f" {rng.choice(words)}" for _ in range(length))

    around = len(conversation.encode_prompt(tokenizer, user(text(1)))) - 1
    return [
        Ranking(text(prompt_tokens - around), [text(response_tokens - 1) for _ in range(outputs)]) for _ in range(count)
    ]


def user(text: str) -> list[conversation.Message]:
    """A conversation of one turn."""
    return [{"role": "user", "content": text}]


def messages(prompt: str | list[conversation.Message]) -> list[conversation.Message]:
    """A prompt as a conversation."""
    return user(prompt) if isinstance(prompt, str) else prompt


def write_prompts(folder: Path, prompts: Iterable[tuple[str | list[conversation.Message], str]]) -> Path:
    """A snapshot of prompts, each with its split."""
    nothing = {"category": None, "reference": None, "verifier": None}
    rows = [
        {"id": f"p{at}", "prompt": messages(prompt), "split": split, **nothing}
        for at, (prompt, split) in enumerate(prompts)
    ]
    snapshot.write(folder, "prompts", {"prompts.jsonl": rows})
    return folder


def write_rankings(folder: Path, rankings: Sequence[Ranking], demonstrations: int = 1) -> Path:
    """A snapshot of one judgement each, with the best responses of the first rankings as demonstrations to normalise on."""
    rows = [
        {
            "id": f"r{number}",
            "prompt_id": f"p{number}",
            "prompt": messages(ranking.prompt),
            "responses": [
                {
                    "sample": f"s{number}-{at}",
                    "text": text,
                    "tier": ranking.tiers[at - 1] if ranking.tiers else at,
                    "quality": None,
                    "flags": {},
                    "sampler": "benchmark",
                    "finish_reason": ranking.finish_reasons[at - 1] if ranking.finish_reasons else "stop",
                }
                for at, text in enumerate(ranking.responses, 1)
            ],
            "pairs": None,
            "split": ranking.split,
            "labeller": "l1",
            "group": "g1",
            "round": 1,
            "confidence": None,
            "purpose": "train",
            "judge": "human",
            "weight": 1.0,
            "guideline": 1,
            "schema": 1,
            "created": "2026-01-01T00:00:00Z",
        }
        for number, ranking in enumerate(rankings)
    ]
    best = [
        demonstration(number, ranking.prompt, ranking.responses[0]) | {"split": ranking.split}
        for number, ranking in enumerate(rankings[:demonstrations])
    ]
    files = {"rankings.jsonl": rows, "demonstrations.jsonl": best}
    snapshot.write(folder, "rankings", files)
    return folder


def demonstration(number: int, prompt: str | list[conversation.Message], response: str) -> snapshot.Row:
    """A row of demonstrations.jsonl."""
    return {
        "id": f"d{number}",
        "prompt_id": f"p{number}",
        "prompt": messages(prompt),
        "response": response,
        "split": "train",
        "labeller": "l1",
        "origin": "written",
    }


def pairs(sets: Sequence[RankedSet]) -> list[tuple[list[int], list[int]]]:
    """Every comparison of sets that `write_rankings` wrote (their outputs lie best first), as ids of chosen and rejected."""
    found = []
    for element in sets:
        found += itertools.combinations([output.prompt + output.response for output in element.outputs], 2)
    return found


def step_flops(config: Any, sets: Sequence[RankedSet]) -> int:
    """Floating-point operations of one update's matrix products, the prompt counted once: forward, and twice that backward.

    What no score depends on is not counted, whether it is computed or not: attention to hidden columns, and all of the last
    layer but keys and values anywhere but at the responses' last tokens. Neither are norms, activations or the optimiser.
    """
    head = config.hidden_size // config.num_attention_heads
    outer = 2 * config.hidden_size * head * config.num_attention_heads  # into queries, and back
    inner = 2 * config.hidden_size * head * config.num_key_value_heads  # into keys and values
    feed_forward = 3 * config.hidden_size * config.intermediate_size
    of_pair = 2 * config.num_attention_heads * head  # a query with a key, a weight with a value
    total = 0
    for element in sets:
        prompt = len(element.outputs[0].prompt)
        responses = [len(output.response) for output in element.outputs]
        tokens, outputs = prompt + sum(responses), len(responses)
        seen = prompt * (prompt + 1) // 2 + sum(size * prompt + size * (size + 1) // 2 for size in responses)
        below = config.num_hidden_layers - 1
        total += below * (tokens * (outer + inner + feed_forward) + seen * of_pair)
        total += tokens * inner + outputs * (outer + feed_forward) + (outputs * prompt + sum(responses)) * of_pair
    return 3 * 2 * total
