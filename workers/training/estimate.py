"""What a run will need, told before it starts: bytes by part, floating-point operations, and from them a rough time.

Weights, gradients and Adam's moments are counted exactly. What the forward pass keeps for the backward pass is traced on a copy
of the model that has shapes and no numbers, so that it is right for every architecture, and scaled by tokens. How long rows are
is read off a sample of the snapshot. Not counted: what the allocator wastes, what kernels need within themselves, the process.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from app import snapshot
from workers.training import checkpoints, conversation, data, frozen, lora, models, parallel, precision
from workers.training.events import Run, describe
from workers.training.ppo import PPOConfig
from workers.training.reward import RewardConfig
from workers.training.sft import SFTConfig
from workers.training.starts import Starts

FLOAT32 = 4
"""Bytes of a weight, a gradient, a moment of Adam, an activation."""

BFLOAT16_SHARE = 0.75
"""Activations computed in bfloat16 to those in float32: 0.57 (GPT-NeoX) to 0.84 (Gemma 2); residuals and norms stay float32."""

LOGIT_COPIES = 4
"""Logits, their log-softmax, and the gradients of both."""

SCORED_COPIES = 3
"""Logits, without PAD, and their log-softmax, where responses are measured without gradients."""

SAMPLED = 200
"""Rows of a snapshot that are read for their length."""

TRACED = 37
"""Tokens of the row that is traced; no dimension of a model has this size."""

Config = SFTConfig | RewardConfig | PPOConfig


@dataclass(frozen=True)
class Footprint:
    """What of a model memory and time depend on."""

    parameters: int
    """All, of tied ones each once."""
    learned: int
    """Those that learn: gradient and two moments of Adam each."""
    matrices: int
    """Those in the linear layers of the blocks, through which every token goes."""
    layers: int
    width: int
    vocabulary: int
    token_bytes: float
    """Kept for the backward pass for each token, float32."""
    score_bytes: float
    """Kept for each pair of tokens of a row, where attention keeps its scores (`eager`)."""
    cache_bytes: int
    """Keys and values of a token in the sampler's cache."""

    @classmethod
    def of(
        cls, folder: Path, adapters: lora.Settings, *, is_scalar: bool = False, frozen_blocks: int = 0
    ) -> "Footprint":
        """That of a checkpoint's model, adapters attached or blocks frozen, under a scalar head or that of a language model."""
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config.num_labels = 1
        with torch.device("meta"):
            model = (AutoModelForSequenceClassification if is_scalar else AutoModelForCausalLM).from_config(config)
            matrices = [model.get_submodule(name).weight for name in lora.linear_layers(model)]
            lora.attach(model, adapters, seed=0)
            if frozen_blocks:
                frozen.freeze(model.eval(), frozen_blocks)
            token_bytes, score_bytes = _trace(model.train())
        text = config.get_text_config()
        heads = text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // heads
        return cls(
            parameters=model.num_parameters(),
            learned=sum(parameter.numel() for parameter in lora.learned(model)),
            matrices=sum(matrix.numel() for matrix in matrices),
            layers=text.num_hidden_layers,
            width=text.hidden_size,
            vocabulary=text.vocab_size,
            token_bytes=token_bytes,
            score_bytes=score_bytes,
            cache_bytes=2
            * FLOAT32
            * text.num_hidden_layers
            * head
            * (getattr(text, "num_key_value_heads", None) or heads),
        )

    def bytes(self, of_matrix: int = FLOAT32) -> int:
        """Of all weights, those in the matrices of the blocks held in so many bytes each."""
        return FLOAT32 * self.parameters - (FLOAT32 - of_matrix) * self.matrices

    def flops(self, row_tokens: float) -> float:
        """Operations of a forward pass per token in a row of so many (Chowdhery et al. 2022, appendix B), without the head."""
        return 2 * self.matrices + 4 * self.layers * self.width * row_tokens

    @property
    def training_passes(self) -> int:
        """Forward passes that a forward and a backward pass cost: frozen weights need no gradient of their own."""
        return 3 if self.learned == self.parameters else 2


@dataclass(frozen=True)
class Plan:
    """How a stage will use its models."""

    learning: tuple[Footprint, ...]
    """The models that learn, one after the other in each update."""
    frozen: int
    """Bytes of models with weights of their own that only look on."""
    copies: int
    """Further copies of what the first model learns: an average, the best so far."""
    tokens: int
    """Padded tokens of a training pass."""
    row_tokens: int
    """Tokens of its longest row."""
    scored_tokens: int
    """Of a pass's tokens those that logits are made for; 0 for a scalar head."""
    cached_tokens: int
    """Tokens in the sampler's cache; 0 where the stage draws no answers."""
    flops: float
    """Of the whole run."""
    compute: torch.dtype = torch.float32
    kept: int = 0
    """Bytes of what frozen blocks put out, where the device is the host that keeps it."""

    def parts(self) -> dict[str, int]:
        """Bytes by part, at the moment that needs most: an update, or drawing and measuring answers before it."""
        first, learned = self.learning[0], sum(model.learned for model in self.learning)
        share = BFLOAT16_SHARE if self.compute is torch.bfloat16 else 1.0
        kept = max(model.token_bytes + model.score_bytes * self.row_tokens for model in self.learning)
        chunk = min(self.scored_tokens * first.vocabulary, max(models.LOGITS, first.vocabulary))
        casts = 2 * max(model.matrices for model in self.learning) if self.compute is torch.bfloat16 else 0
        update = {
            "gradients": FLOAT32 * learned,
            "activations": int(share * self.tokens * kept) + casts,
            "logits": LOGIT_COPIES * FLOAT32 * chunk,
            "mask": FLOAT32 * self.tokens * self.row_tokens,
        }
        answers = {
            "cache": self.cached_tokens * first.cache_bytes,
            "logits": SCORED_COPIES * FLOAT32 * chunk,
        }
        draws = self.cached_tokens > 0 and sum(answers.values()) > sum(update.values())
        return {
            "weights": FLOAT32 * sum(model.parameters for model in self.learning),
            "frozen_models": self.frozen,
            "adam": 2 * FLOAT32 * learned,
            "copies": FLOAT32 * self.copies * first.learned,
            "kept_states": self.kept,
        } | (answers if draws else update)

    @property
    def certain(self) -> int:
        """Bytes that no micro-batch can save: weights, their copies, gradients, Adam's moments."""
        parts, learned = self.parts(), sum(model.learned for model in self.learning)
        return FLOAT32 * learned + sum(parts[name] for name in ("weights", "frozen_models", "adam", "copies"))

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts().values())


@dataclass(frozen=True)
class Estimate:
    """A plan beside the device it is to run on, and what would need less."""

    config: Config
    planner: Callable[[Any], Plan]
    """The plan of a stage under settings of the kind of `config`."""
    device: str
    capacity: int
    """Bytes of the device's memory, all of it."""

    @cached_property
    def plan(self) -> Plan:
        """Under the settings as they are."""
        return self.planner(self.config)

    def alternatives(self) -> dict[str, int]:
        """Bytes in all under one other setting each, for those that would need less."""
        config, total = self.config, self.plan.total
        others: dict[str, Config] = {}
        if not (config.lora_rank or getattr(config, "frozen_blocks", 0)):
            others["lora_rank=16"] = replace(config, lora_rank=16)
        if (fewer := config.micro_batch_tokens // 8) >= 1:
            others[f"micro_batch_tokens={fewer}"] = replace(config, micro_batch_tokens=fewer)
        if self.plan.compute is not torch.bfloat16:
            others["compute=bfloat16"] = replace(config, compute="bfloat16")
        totals = {name: self.planner(other).total for name, other in others.items()}
        return {name: size for name, size in totals.items() if size < total}

    def require_room(self) -> None:
        """Raise ValueError where what is certain to be needed is more than the device has."""
        if self.plan.certain > self.capacity:
            raise ValueError(self._too_large(self.plan))

    def sentences(self) -> Iterator[str]:
        """For a run's log: memory by part, how to need less where it is short, and the time."""
        plan = self.plan
        parts = ", ".join(f"{name.replace('_', ' ')} {_bytes(size)}" for name, size in plan.parts().items() if size)
        yield (
            f"memory: about {_bytes(plan.total)} of {_bytes(self.capacity)} on {self.device}, weights and optimiser in float32, "
            f"computing in {precision.say(plan.compute)} ({parts})"
        )
        if plan.total > self.capacity:
            yield self._too_large(plan)
        speed = measured_flops(self.device, plan.compute)
        yield (
            f"time: {_hours(plan.flops / speed)} if all of it ran like a plain matrix product ({speed / 1e9:,.0f} GFLOP/s, just "
            "measured), and so rather more; a rough guess, the first steps show it"
        )

    def as_json(self) -> dict[str, Any]:
        """For `--estimate`."""
        plan, speed = self.plan, measured_flops(self.device, self.plan.compute)
        return {
            "device": self.device,
            "capacity_bytes": self.capacity,
            "total_bytes": plan.total,
            "fits": plan.total <= self.capacity,
            "bytes": plan.parts(),
            "alternatives_bytes": self.alternatives(),
            "learned_parameters": sum(model.learned for model in plan.learning),
            "tokens_a_pass": plan.tokens,
            "flops": plan.flops,
            "measured_flops_per_second": speed,
            "rough_seconds": plan.flops / speed,
        }

    def _too_large(self, plan: Plan) -> str:
        others = ", ".join(f"--set {name} ({_bytes(total)})" for name, total in self.alternatives().items())
        return (
            f"the run needs about {_bytes(plan.total)} and {self.device} has {_bytes(self.capacity)}; "
            + (f"it would need less with {others}" if others else "no setting would need less")
            + ", or a smaller model"
        )


def announce(run: Run, make: Callable[[], Estimate]) -> None:
    """Tell a run's log what it will need; raises ValueError where it is certain not to fit.

    Where no estimate can be made (the model cannot be traced, the stage itself will refuse the snapshot), the log says so.
    """
    if parallel.size() > 1:
        run.log("memory and time are estimated for runs in one process only")
        return
    try:
        estimate = make()
        sentences = list(estimate.sentences())
    except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        run.log(f"memory and time cannot be estimated: {describe(error)}")
        return
    estimate.require_room()
    for sentence in sentences:
        run.log(sentence)


def sft(config: SFTConfig, folder: Path, snapshot_folder: Path, device: str, reward: Path | None = None) -> Estimate:
    """The estimate of supervised fine-tuning; the pretraining mix is left out."""
    tokenizer = checkpoints.load_tokenizer(folder)
    conversation.write_template(tokenizer)
    pairs: list[data.Pair] = []
    count = 0
    for row in _rows(snapshot_folder, "demonstrations.jsonl"):
        count += 1
        if len(pairs) < SAMPLED:
            pairs.append(data.encode_pair(tokenizer, row["prompt"], row["response"]))
    looking_on = FLOAT32 * Footprint.of(reward, lora.Settings(), is_scalar=True).parameters if reward else 0

    def plan(config: SFTConfig) -> Plan:
        model, longest = Footprint.of(folder, config), _longest(folder, pairs)
        mean, answer = fmean(map(len, pairs)), fmean(len(pair.response) for pair in pairs)
        tokens = _pass_tokens(config.micro_batch_tokens, longest, config.batch_size)
        work = model.training_passes * (mean * model.flops(mean) + 2 * answer * model.vocabulary * model.width)
        return Plan(
            learning=(model,),
            frozen=looking_on,
            copies=int(config.choose != "last" and torch.device(device).type == "cpu"),  # kept in the host's memory
            tokens=tokens,
            row_tokens=longest,
            scored_tokens=ceil(tokens * answer / mean),
            cached_tokens=0,
            flops=config.epochs * count * work,
            compute=precision.compute_dtype(config.compute, device),
        )

    return Estimate(config, plan, device, capacity(device))


def reward(config: RewardConfig, folder: Path, snapshot_folder: Path, device: str) -> Estimate:
    """The estimate of a reward model; that of an incumbent, loaded once training is over, is left out."""
    tokenizer = checkpoints.load_tokenizer(folder)
    lengths: list[int] = []
    count = 0
    for row in _rows(snapshot_folder, "rankings.jsonl"):
        count += 1
        if len(lengths) < SAMPLED:
            answers = [conversation.encode_response(tokenizer, each["text"]) for each in row["responses"]]
            lengths.append(len(conversation.encode_prompt(tokenizer, row["prompt"])) + sum(map(len, answers)))

    def plan(config: RewardConfig) -> Plan:
        below = config.frozen_blocks
        model = Footprint.of(folder, config, is_scalar=True, frozen_blocks=below)
        longest, mean = max(lengths), fmean(lengths)
        # Frozen blocks are passed once; all that is above them learns.
        share = below / model.layers
        passes = share + config.epochs * 3 * (1 - share) if below else config.epochs * model.training_passes
        on_host = torch.device(device).type == "cpu"
        return Plan(
            learning=(model,),
            frozen=0,
            copies=0,
            tokens=_pass_tokens(config.micro_batch_tokens, longest, config.batch_size),
            row_tokens=longest,
            scored_tokens=0,
            cached_tokens=0,
            flops=passes * count * mean * model.flops(mean),
            compute=precision.compute_dtype(config.compute, device),
            kept=round(FLOAT32 * count * mean * model.width) if below and on_host else 0,
        )

    return Estimate(config, plan, device, capacity(device))


def ppo(config: PPOConfig, starts: Starts, snapshot_folder: Path, device: str) -> Estimate:
    """The estimate of PPO; what pretraining text costs is left out."""
    tokenizer = checkpoints.load_tokenizer(starts.policy)
    rows = list(_rows(snapshot_folder, "prompts.jsonl"))[:SAMPLED]
    lengths = [len(conversation.encode_prompt(tokenizer, row["prompt"])) for row in rows]
    scorer = starts.reward or starts.policy

    def plan(config: PPOConfig) -> Plan:
        policy, value = Footprint.of(starts.policy, config), Footprint.of(scorer, config, is_scalar=True)
        compute = precision.compute_dtype(config.compute, device)
        # Reference and reward model share the frozen weights behind adapters; else their matrices are held as they compute.
        shared = (starts.policy, starts.reward) if config.lora_rank else ()
        looking_on = ((starts.reference, False), (starts.reward, True), (starts.watch, True))
        held = 2 if compute is torch.bfloat16 and not config.lora_rank else FLOAT32
        frozen = [
            Footprint.of(each, lora.Settings(), is_scalar=is_scalar).bytes(held)
            for each, is_scalar in looking_on
            if each is not None and each not in shared
        ]
        longest, mean = max(lengths) + config.max_new_tokens, fmean(lengths) + config.max_new_tokens
        # As if the models that learn could share prompts; the reward model reads every response with its own.
        share = (fmean(lengths) / config.responses_per_prompt + config.max_new_tokens) / mean
        tokens = _pass_tokens(config.micro_batch_tokens, longest, config.batch_size)
        # Drawn once; policy, reference, value function and reward model read it; policy and value function learn from it.
        policies = 3 + config.inner_epochs * policy.training_passes
        values = 2 + config.inner_epochs * value.training_passes
        head = 2 * config.max_new_tokens * policy.vocabulary * policy.width
        reads = policies * policy.flops(mean) + (values - 1) * value.flops(mean)
        episode = mean * (share * reads + value.flops(mean)) + policies * head
        return Plan(
            learning=(policy, value),
            frozen=sum(frozen),
            copies=int(config.ema > 0) + int(config.kl_max is not None or starts.watch is not None),
            tokens=tokens,
            row_tokens=longest,
            scored_tokens=ceil(tokens * config.max_new_tokens / longest),
            cached_tokens=min(config.batch_size, 256) * longest,
            flops=max(1, config.episodes // config.batch_size) * config.batch_size * episode,
            compute=compute,
        )

    return Estimate(config, plan, device, capacity(device))


def capacity(device: str) -> int:
    """Bytes of a device's memory; of a CPU the machine's."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def measured_flops(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a matrix product of a common size: the best of three, after one that warms up."""
    size = 4096 if torch.device(device).type == "cuda" else 512
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return float(2 * size**3 / min(seconds[1:]))


def _trace(model: PreTrainedModel) -> tuple[float, float]:
    """Bytes that a forward pass of the trunk keeps: per token, and per pair of tokens of a row."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()._cdata) not in own:
            kept[storage] = tensor
        return tensor

    ids = torch.zeros(1, TRACED, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(
            input_ids=ids,
            attention_mask=torch.zeros(1, 1, TRACED, TRACED),
            position_ids=torch.arange(TRACED)[None],
            use_cache=False,
        )
    sizes: dict[bool, int] = {True: 0, False: 0}
    for tensor in kept.values():
        sizes[tensor.shape[-2:] == (TRACED, TRACED)] += tensor.untyped_storage().nbytes()
    # Without numbers scaled_dot_product_attention keeps its scores, which its kernels do not.
    keeps_scores = model.config._attn_implementation == "eager"
    return sizes[False] / TRACED, sizes[True] / TRACED**2 if keeps_scores else 0.0


def _rows(folder: Path, name: str) -> Iterator[snapshot.Row]:
    yield from (row for row in snapshot.read_rows(folder, name) if row["split"] == "train")


def _longest(folder: Path, pairs: list[data.Pair]) -> int:
    context = data.context_length(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    return min(context, max(map(len, pairs)))


def _pass_tokens(micro_batch_tokens: int, longest: int, rows: int) -> int:
    """Padded tokens of a pass: within the budget, at least a row, at most all rows of a step."""
    return min(max(micro_batch_tokens, longest), rows * longest)


def _bytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def _hours(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
