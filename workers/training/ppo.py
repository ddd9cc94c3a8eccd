"""Stage 3, PPO: the policy climbs the reward model while a KL penalty keeps it near the reference (InstructGPT 3.5, C.4).

A bandit: one prompt, one response, one score at its last token; the KL penalty is paid token by token. The value function is a
model of its own with its own Adam, begun as the reward model, so that the losses need no relative weight (`vf_coef`).
Departures from the paper, which names no value for them: GAE's lambda, Adam's eps, the clipping of gradients.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.snapshot import folder_sha256, read_manifest
from workers.rlhf import gae, kl, losses, masked, schedules
from workers.training import checkpoints, data, models
from workers.training.engine import Decoding
from workers.training.events import Run, State
from workers.training.learner import Learner
from workers.training.rollouts import Models, Rollouts, collect

EXACT = 1e-3
"""Nats a token by which two passes of equal weights may differ: float32 rounding in matrix products of other shapes."""


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO; the defaults are InstructGPT's (C.4) where it names one, else those of the code cited."""

    episodes: int = 256_000
    """Responses in all; the paper's prompts are seen about eight times each."""
    batch_size: int = 512
    """Responses an iteration."""
    minibatch_size: int = 64
    """Responses an update."""
    inner_epochs: int = 1
    """Passes over an iteration's responses."""
    lr: float = 2.55e-6
    """Policy's peak learning rate: the lowest of the paper's sweep, which went up to 2.55e-5 and diverged above 8.05e-6."""
    value_lr: float = 9e-6
    """Value function's peak learning rate."""
    warmup: int = 10
    """Iterations of linear warm-up from one tenth of the peak; constant afterwards."""
    cliprange: float = 0.2
    """How far a token's probability ratio counts."""
    cliprange_value: float = 0.2
    """How far a value may move from its old estimate (OpenAI's code)."""
    kl_coef: float = 0.02
    """beta of Eq. 2, per nat; the start value where `kl_target` is set."""
    kl_target: float | None = None
    """Nats per response that an adaptive coefficient steers to (Ziegler et al. 2019); none: the coefficient is fixed."""
    kl_horizon: int = 10_000
    """Episodes over which the adaptive coefficient reacts."""
    kl_max: float | None = None
    """Stop once the divergence on held-out prompts passes this, and keep the best checkpoint before; none: no such stop."""
    gamma: float = 1.0
    """Discount: none."""
    lam: float = 0.95
    """GAE's lambda (OpenAI's code; the paper does not say)."""
    temperature: float = 1.0
    """Sampling temperature, and that of every log-probability."""
    max_new_tokens: int = 128
    """Length limit of a response."""
    missing_end_score: float | None = None
    """Score, less the mean, of a response cut at the limit (Huang et al. 2024 set -1); none: as the reward model says."""
    whiten_rewards: bool = False
    """Scale rewards to variance 1 before GAE (OpenAI's code does; the paper does not say)."""
    ema: float = 0.992
    """Decay per update of the averaged weights that become the checkpoint; 0: the last weights do."""
    max_grad_norm: float = 1.0
    """Gradient norm that is clipped to; the paper names none."""
    heldout_prompts: int = 256
    """Held-out prompts in a report, the first ones of the snapshot."""
    report_every: int = 0
    """Iterations between held-out reports; 0: before and after only. `kl_max` is checked at reports."""
    micro_batch_tokens: int = 8192
    """Padded tokens in one forward pass: memory and speed only."""
    seed: int = 0
    """Order of the prompts and draws of the responses."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(
                f"temperature is {self.temperature}; PPO learns from log-probabilities, which need one above 0"
            )
        if self.kl_target is not None and self.kl_horizon < self.batch_size:
            raise ValueError(
                f"kl_horizon is {self.kl_horizon} and batch_size {self.batch_size}; a coefficient that reacts within less than "
                "an iteration could turn negative"
            )
        if self.kl_max is not None and not self.report_every:
            raise ValueError("kl_max is checked at held-out reports; set report_every to 1 or more as well")


@dataclass(frozen=True)
class Targets:
    """What an iteration's updates aim at."""

    advantages: Tensor
    """(B, T) whitened."""
    returns: Tensor
    """(B, T)"""


@dataclass
class Best:
    """The best policy on held-out prompts among those within `kl_max`; used only where that is set."""

    score: float = float("-inf")
    weights: list[Tensor] = field(default_factory=list)
    strays: bool = False
    """The divergence passed `kl_max`: the run is over."""

    def take(self, config: PPOConfig, seen: dict[str, Any], parts: Models) -> None:
        """Remember the policy if its held-out report is the best so far, or that it strayed."""
        if config.kl_max is None:
            return
        self.strays = seen["heldout_kl"] > config.kl_max
        if not self.strays and seen["heldout_score"] > self.score:
            self.score, self.weights = (
                seen["heldout_score"],
                [weight.detach().clone() for weight in parts.policy.parameters()],
            )

    @torch.no_grad()
    def restore(self, parts: Models) -> None:
        """Put the remembered weights into the policy; raises RuntimeError where none stayed within bounds."""
        if not self.weights:
            raise RuntimeError(
                "the divergence passed kl_max before the first held-out report; lower lr, or raise kl_coef or kl_max"
            )
        for parameter, weight in zip(parts.policy.parameters(), self.weights, strict=True):
            parameter.copy_(weight)


@dataclass(frozen=True)
class Starts:
    """The checkpoints PPO begins from."""

    policy: Path
    reward: Path
    reference: Path
    """What the divergence is measured against: the SFT model, in the paper."""


def train(config: PPOConfig, starts: Starts, data_folder: Path, run: Run, device: str = "cpu") -> dict[str, Any]:
    """Improve a policy against a reward model on the prompts of a snapshot; the run's result.

    Raises ValueError for a snapshot without usable prompts, CheckpointError for checkpoints that do not fit together,
    RuntimeError where an invariant of PPO breaks (first ratio 1, first KL 0, finite gradients).
    """
    # 1. Policy, reference, reward model; the value function begins as the reward model. Dropout off in all.
    manifest = read_manifest(data_folder)
    parts = load(starts, device)
    prompts, heldout, dropped = _prompts(config, data_folder, parts)
    iterations = max(1, config.episodes // config.batch_size)
    run.start(
        asdict(config),
        {"prompts": len(prompts), "heldout_prompts": len(heldout), "dropped": len(dropped), "iterations": iterations},
    )
    if dropped:
        run.log(f"{len(dropped)} prompts leave no room for a response and were left out, the first is {dropped[0]}")

    # 2. Adam, betas (0.9, 0.95), for policy and value function; the average of the policy's weights; the KL coefficient.
    learner = Learner.begin(
        parts.policy,
        parts.value,
        lr=config.lr,
        value_lr=config.value_lr,
        kl=_coefficient(config),
        ema=config.ema,
        max_grad_norm=config.max_grad_norm,
    )
    first, best = 0, Best()
    if (saved := run.load_state()) is not None:
        first, state = saved
        learner.load(state["learner"])
        before, best = state["before"], Best(**state["best"])
    else:
        before = report(config, parts, heldout)
    begins_at_reference = first == 0 and folder_sha256(starts.policy) == folder_sha256(starts.reference)

    for iteration in range(first, first if best.strays else iterations):
        # 3. The policy answers a batch of prompts; the reward model scores the answers, the reference measures them.
        chosen, decoding = _batch(config, prompts, iteration), _decoding(config, iteration + 1)
        rollouts = collect(parts, chosen, decoding, config.micro_batch_tokens)
        if iteration == 0 and begins_at_reference:
            divergence = kl.k1(rollouts.logprobs, rollouts.ref_logprobs)
            _require_zero(divergence, "KL of the policy to a reference that equals it")

        # 4. The score less the KL penalty is the reward of each token (Eq. 2); rewards less what was expected are advantages.
        targets = aim(config, rollouts, learner.kl.value)

        # 5. An update of policy and value function for each minibatch; the first one meets the very weights that answered.
        factor = schedules.linear_warmup(iteration, config.warmup)
        updates = []
        for number, minibatch in enumerate(_minibatches(config, iteration, len(rollouts.rows))):
            watched = backward(config, parts, rollouts, targets, minibatch, must_match=number == 0)
            updates.append(watched | learner.update(config.lr * factor, config.value_lr * factor))

        # 6. What to watch; the coefficient adapts to the divergence just measured.
        means = {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
        values = rollouts.metrics() | means | {"kl_coef": learner.kl.value, "lr": config.lr * factor}
        values["explained_variance"] = _explained_variance(rollouts.values, targets.returns, rollouts.mask)
        learner.kl.update(values["kl"], len(rollouts.rows))

        # 7. Now and then the averaged policy on held-out prompts: remember the best, stop where it strays too far.
        if config.report_every and (iteration + 1) % config.report_every == 0:
            with learner.averaged():
                values |= (seen := report(config, parts, heldout))
                best.take(config, seen, parts)
        if best.strays:
            run.log(
                f"held-out KL {values['heldout_kl']:.2f} nats passed kl_max {config.kl_max}; keeping the best before it"
            )
        run.step(iteration + 1, iterations, values, partial(_state, learner, before, best))
        if best.strays:
            break

    # 8. The checkpoint: the averaged policy, or the best before it strayed; and what it is worth on held-out prompts.
    with learner.averaged():
        metrics: dict[str, Any] = report(config, parts, heldout)
        best.take(config, metrics, parts)
        if best.strays:
            best.restore(parts)
            metrics = report(config, parts, heldout)
        parents = {"policy": starts.policy, "reward": starts.reward, "reference": starts.reference}
        identity = checkpoints.save(run.folder / "checkpoint", parts.policy, parts.tokenizer, "policy", parents)
    metrics |= {f"{name}_before": value for name, value in before.items()} | {"snapshot": manifest.sha256}
    return run.finish(metrics, run.folder / "checkpoint", identity)


def load(starts: Starts, device: str) -> Models:
    """The four models, in evaluation mode, after checking that they read conversations alike."""
    tokenizer = checkpoints.load_tokenizer(starts.policy)
    if not tokenizer.chat_template:
        raise checkpoints.CheckpointError(
            f"{starts.policy} has no chat template; fine-tune it with `preferable train sft` first"
        )
    checkpoints.require_same_format(starts.policy, starts.reward)
    checkpoints.require_same_format(starts.policy, starts.reference)
    policy, reference = (checkpoints.load_language_model(folder) for folder in (starts.policy, starts.reference))
    reward, value = (checkpoints.load_reward_model(starts.reward) for _ in range(2))
    for model in (policy, reference):
        checkpoints.prepare(model, tokenizer)
    reference.requires_grad_(False)
    reward.requires_grad_(False)
    return Models(policy.to(device), reference.to(device), reward.to(device), value.to(device), tokenizer)


def aim(config: PPOConfig, rollouts: Rollouts, kl_coef: float) -> Targets:
    """Rewards per token from scores and KL (Eq. 2), advantages and returns by GAE, advantages whitened over the batch."""
    scores, mask = _scores(config, rollouts), rollouts.mask
    rewards = kl.kl_rewards(scores, rollouts.logprobs, rollouts.ref_logprobs, mask, kl_coef=kl_coef)
    if config.whiten_rewards:
        rewards = masked.whiten(rewards, mask, center=False)
    advantages, returns = gae.advantages_and_returns(rewards, rollouts.values, mask, gamma=config.gamma, lam=config.lam)
    return Targets(masked.whiten(advantages, mask), returns)


def backward(
    config: PPOConfig,
    parts: Models,
    rollouts: Rollouts,
    targets: Targets,
    minibatch: Sequence[int],
    *,
    must_match: bool,
) -> dict[str, float]:
    """Leave the gradients of both losses, means over the minibatch's tokens, in the models; return what to watch of them.

    With `must_match` the policy is still the one that answered: a ratio that is not 1 raises RuntimeError.
    """
    tokens = rollouts.mask[minibatch].sum().item()
    clipped = approx_kl = policy_total = value_total = 0.0
    for chunk in data.micro_batches(minibatch, [len(row) for row in rollouts.rows], config.micro_batch_tokens):
        batch = data.collate([rollouts.rows[at] for at in chunk], parts.tokenizer.pad_token_id, parts.policy.device)
        mask, columns = batch.response_mask, slice(batch.response_mask.shape[1])
        logprobs = models.response_logprobs(parts.policy, batch, config.temperature)
        old_logprobs = rollouts.logprobs[chunk, columns]
        if must_match:
            _require_zero((logprobs.detach() - old_logprobs) * mask, "log ratio of an unchanged policy to itself")
        policy = losses.policy_loss(
            logprobs, old_logprobs, targets.advantages[chunk, columns], mask, cliprange=config.cliprange
        )
        (policy.loss / tokens).backward()
        value = losses.value_loss(
            models.state_values(parts.value, batch) - parts.reward.config.reward_mean,
            rollouts.values[chunk, columns],
            targets.returns[chunk, columns],
            mask,
            cliprange_value=config.cliprange_value,
        )
        (value / tokens).backward()
        clipped, approx_kl = clipped + policy.clipped.item(), approx_kl + policy.approx_kl.item()
        policy_total, value_total = policy_total + policy.loss.item(), value_total + value.item()
    totals = {"policy_loss": policy_total, "value_loss": value_total, "clip_fraction": clipped, "approx_kl": approx_kl}
    return {name: total / tokens for name, total in totals.items()}


def report(config: PPOConfig, parts: Models, heldout: Sequence[data.Prompt]) -> dict[str, float]:
    """One answer to each held-out prompt, always from the same draws: score, KL in nats a response, length, share ended."""
    if not heldout:
        return {}
    rollouts = collect(parts, heldout, _decoding(config, 0), config.micro_batch_tokens, with_values=False)
    return {f"heldout_{name}": value for name, value in rollouts.metrics().items()}


def _prompts(config: PPOConfig, folder: Path, parts: Models) -> tuple[list[data.Prompt], list[data.Prompt], list[str]]:
    """Training prompts, held-out prompts, and the ids of those too long."""
    room = data.context_length(parts.policy.config) - config.max_new_tokens
    prompts, dropped = data.read_prompts(folder, parts.tokenizer, room)
    chosen = [prompt for prompt in prompts if prompt.split == "train"]
    heldout = [prompt for prompt in prompts if prompt.split == "valid"][: config.heldout_prompts]
    if not chosen:
        raise ValueError(
            f"{folder} has no prompt in split 'train' that leaves room for {config.max_new_tokens} tokens of response"
        )
    if config.kl_max is not None and not heldout:
        raise ValueError(f"kl_max is set, but {folder} has no prompt in split 'valid' to measure the divergence on")
    return chosen, heldout, dropped


def _batch(config: PPOConfig, prompts: Sequence[data.Prompt], iteration: int) -> list[data.Prompt]:
    """The prompts of an iteration: a pure function of seed and number, in a new order each pass over them."""
    numbers = range(iteration * config.batch_size, (iteration + 1) * config.batch_size)
    return [
        prompts[_order(config.seed, number // len(prompts), len(prompts))[number % len(prompts)]] for number in numbers
    ]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()
    return order


def _decoding(config: PPOConfig, iteration: int) -> Decoding:
    """How answers are drawn; iteration 0 is the held-out report's, from 1 on those that are learnt from."""
    seed = config.seed * 1_000_003 + iteration
    return Decoding(n=1, temperature=config.temperature, max_new_tokens=config.max_new_tokens, seed=seed)


def _coefficient(config: PPOConfig) -> kl.FixedKL | kl.AdaptiveKL:
    if config.kl_target is None:
        return kl.FixedKL(config.kl_coef)
    return kl.AdaptiveKL(config.kl_coef, config.kl_target, config.kl_horizon)


def _minibatches(config: PPOConfig, iteration: int, episodes: int) -> Iterator[list[int]]:
    """Episodes of an iteration in minibatches, shuffled anew each inner epoch."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + iteration)
    for _ in range(config.inner_epochs):
        order: list[int] = torch.randperm(episodes, generator=generator).tolist()
        yield from (order[at : at + config.minibatch_size] for at in range(0, episodes, config.minibatch_size))


def _scores(config: PPOConfig, rollouts: Rollouts) -> Tensor:
    """(B,) scores, that of a response cut at the limit replaced where the settings say so."""
    if config.missing_end_score is None:
        return rollouts.scores
    ended = torch.tensor(rollouts.ended, device=rollouts.scores.device)
    return rollouts.scores.where(ended, torch.full_like(rollouts.scores, config.missing_end_score))


def _explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(R - V) / Var(R): 1 where the value function foresees the return, 0 where it is no better than a constant."""
    return (
        1
        - (
            masked.masked_variance(returns - values, mask) / masked.masked_variance(returns, mask).clamp(min=1e-8)
        ).item()
    )


def _require_zero(difference: Tensor, what: str) -> None:
    if not (largest := difference.abs().max().item()) <= EXACT:
        raise RuntimeError(
            f"{what} is {largest:.3g} nats at some token; expected 0. Are log-probabilities computed alike?"
        )


def _state(learner: Learner, before: dict[str, float], best: Best) -> State:
    return {"learner": learner.state(), "before": before, "best": asdict(best)}
