"""Stage 3, PPO: the policy climbs a reward while a KL penalty keeps it near the reference (InstructGPT 3.5, C.4).

A bandit: one prompt, one response, one score at its last token; the KL penalty is paid token by token. The value function is a
model of its own with its own Adam, begun as the reward model, so that the losses need no relative weight (`vf_coef`). With
`ptx_coef` the likelihood of pretraining text is kept up as well (PPO-ptx). Of our choice, the paper being silent: GAE's lambda,
whitened advantages, clipped values, Adam's eps, clipped gradients, means per token. Every detail with its test: docs/ppo.md.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.snapshot import folder_sha256
from workers.rlhf import gae, kl, losses, masked, schedules
from workers.training import checkpoints, data, invariants, lora, parallel, passes, precision, pretraining, remarks
from workers.training.engine import Decoding, Look
from workers.training.events import Run, State
from workers.training.guard import Guard, Report
from workers.training.learner import Learner, kl_coefficient
from workers.training.material import Material
from workers.training.rewards import Reward
from workers.training.rollouts import Rollouts, centred_values, collect
from workers.training.starts import Models, Starts, load


@dataclass(frozen=True)
class PPOConfig(lora.Settings):
    """Settings of PPO; the defaults are InstructGPT's (C.4) where it names one, else those of the code cited."""

    episodes: int = 256_000
    """Responses in all; the paper's prompts are seen about eight times each."""
    batch_size: int = 512
    """Responses an iteration."""
    responses_per_prompt: int = 1
    """Responses to a prompt in an iteration, n; each pass computes the prompt once for all of them, where the models can."""
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
    value_warmup: int | None = None
    """Those of the value function, where it shall foresee before the policy follows it; none: as the policy's."""
    cliprange: float = 0.2
    """How far a token's probability ratio counts, epsilon (Schulman et al. 2017, Eq. 7)."""
    cliprange_value: float = 0.2
    """How far a value may move from its old estimate, in units of the reward (OpenAI's code, whose rewards have deviation 1)."""
    kl_coef: float = 0.02
    """beta of Eq. 2, per nat; the start value where `kl_target` is set."""
    kl_target: float | None = None
    """Nats per response that an adaptive coefficient steers to (Ziegler et al. 2019); none: the coefficient is fixed."""
    kl_horizon: int = 10_000
    """Episodes over which the adaptive coefficient reacts."""
    kl_max: float | None = None
    """Stop once the held-out divergence, nats per response, passes this, and keep the best checkpoint before; none: no stop."""
    guard_reports: int = 3
    """Reports in a row of a rising score and a falling second score that stop a run which a second reward model watches."""
    ptx_coef: float = 0.0
    """gamma of Eq. 2, weight of a pretraining token's mean log-likelihood: 27.8 in the paper's PPO-ptx; 0: PPO alone."""
    ptx_per_episode: int = 8
    """Blocks of pretraining text for each episode of an update."""
    ptx_tokens: int = 128
    """Tokens of a block, at most the model's context; the paper does not say."""
    gamma: float = 1.0
    """Discount: none."""
    lam: float = 0.95
    """GAE's lambda (OpenAI's code; the paper does not say)."""
    temperature: float = 1.0
    """Of sampling and of every log-probability of a response; pretraining text is read at 1."""
    max_new_tokens: int = 128
    """Length limit of a response."""
    missing_end_score: float | None = None
    """Score, less the mean, of a response cut at the limit (Huang et al. 2024 set -1); none: as the reward model says."""
    whiten_rewards: bool = False
    """Scale rewards to variance 1 before GAE (OpenAI's code does; the paper does not say)."""
    ema: float = 0.992
    """Decay per update of the averaged weights that become the checkpoint; 0: the last weights do."""
    max_grad_norm: float = 1.0
    """Norm that each model's gradient is clipped to; the paper names none."""
    heldout_prompts: int = 256
    """Held-out prompts in a report, the first ones of the snapshot."""
    report_every: int = 0
    """Iterations between held-out reports; 0: before and after only. `kl_max` is checked at reports."""
    micro_batch_tokens: int = 8192
    """Padded tokens in one forward pass: memory and speed only."""
    compute: str = "auto"
    """float32, bfloat16 (weights that learn stay float32), or auto: bfloat16 on CUDA that has it, else float32."""
    seed: int = 0
    """Order of the prompts and draws of the responses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        precision.require_known(self.compute)
        if self.temperature <= 0:
            raise ValueError(
                f"temperature is {self.temperature}; PPO learns from log-probabilities, which need one above 0"
            )
        if self.kl_target is not None and 5 * self.kl_horizon <= self.batch_size:
            raise ValueError(
                f"kl_horizon is {self.kl_horizon} and batch_size {self.batch_size}; expected more than a fifth of batch_size, "
                "below which an iteration could turn the coefficient negative"
            )
        if self.kl_max is not None and not self.report_every:
            raise ValueError("kl_max is checked at held-out reports; set report_every to 1 or more as well")
        if self.responses_per_prompt < 1 or self.batch_size % self.responses_per_prompt:
            raise ValueError(
                f"responses_per_prompt is {self.responses_per_prompt}; expected a divisor of batch_size ({self.batch_size})"
            )
        if self.guard_reports < 1 or self.ptx_per_episode < 1 or self.ptx_tokens < 2:
            raise ValueError(
                f"guard_reports is {self.guard_reports}, ptx_per_episode {self.ptx_per_episode} and ptx_tokens "
                f"{self.ptx_tokens}; expected at least 1, 1 and 2"
            )


@dataclass(frozen=True)
class Targets:
    """What an iteration's updates aim at."""

    advantages: Tensor
    """(B, T) A, whitened over the batch's response tokens once the returns are taken."""
    returns: Tensor
    """(B, T) R = A + V, of A before it is whitened."""


def train(
    config: PPOConfig, starts: Starts, data_folder: Path, run: Run, device: str = "cpu", reward: Reward | None = None
) -> dict[str, Any]:
    """Improve a policy against `reward`, by default a reward model, on the prompts of a snapshot; the run's result.

    Raises ValueError for a snapshot without usable prompts or text, CheckpointError for checkpoints that do not fit together,
    RuntimeError where an invariant breaks (sampler and trainer agree; the first log ratio and KL are 0 but for rounding; finite
    gradients) or no report was within `kl_max`, CancelledError once its state is saved: before a minibatch or, in one process,
    a token to learn from.
    """
    # 1. The policy pi_phi, the reference pi_SFT, the reward r_theta; the value function V begins as the reward model, or where
    #    there is none as pi_phi under a head of zeros. No dropout.
    parts, material = begin(config, starts, data_folder, device, reward)
    iterations = max(1, config.episodes // config.batch_size)
    run.start(asdict(config), material.counts() | {"iterations": iterations})
    for line in remarks.at_start(parts, material, config):
        run.log(line)

    # 2. Adam, betas (0.9, 0.95), for pi_phi and V; the average of pi_phi's weights; beta, the KL coefficient.
    learner = Learner.begin(
        parts.policy,
        parts.value,
        kl=kl_coefficient(config.kl_coef, config.kl_target, config.kl_horizon),
        ema=config.ema,
        max_grad_norm=config.max_grad_norm,
    )
    first, guard = 0, Guard(config.kl_max, config.guard_reports, parts.watch is not None)
    halfway: State | None = None  # what an iteration that was cut short had drawn and done
    if (saved := run.load_state(device)) is not None:
        first, state = saved
        learner.load(state["learner"])
        before, guard, halfway = state["before"], Guard(**state["guard"]), state["halfway"]
    else:
        seen = report(config, parts, material)
        guard.begin(seen, parts.policy)
        before = seen.values
    begins_at_reference = first == 0 and folder_sha256(starts.policy) == folder_sha256(starts.reference)

    for iteration in range(first, iterations):
        if guard.reason:
            break

        # 3. B episodes: B / n prompts x, to each n responses y ~ pi_phi(. | x), the longest of T tokens; r_theta(x, y) (B,),
        #    log pi_phi, log pi_SFT and V (B, T), as they are before the updates: the "old" ones of steps 4 and 5.
        if halfway:
            rollouts, updates, halfway = Rollouts.load(halfway["rollouts"]), halfway["updates"], None
        else:
            look = partial(run.look, iteration, iterations, partial(_state, learner, before, guard))
            rollouts, updates = _answer(config, parts, material.prompts, iteration, look), []
            if iteration == 0 and (wide := remarks.on_spread(_scores(config, rollouts), config)):
                run.log(wide)
        if iteration == 0 and begins_at_reference:
            divergence = kl.k1(rollouts.logprobs, rollouts.ref_logprobs).abs().max().item()
            invariants.require_zero(divergence, parts.compute, "KL of the policy to a reference that equals it")

        # 4. Rewards r_t = -beta (log pi_phi - log pi_SFT), r_theta added at the last token (Eq. 2); GAE makes of r and V the
        #    advantages A and the returns R = A + V, all (B, T); then A is whitened over the batch: mean 0, variance 1.
        targets = aim(config, rollouts, learner.kl.value)

        # 5. For each minibatch an update of pi_phi by the clipped ratio rho = pi_phi / pi_phi_old, of V towards the returns;
        #    the first one meets the very weights that answered: rho is 1. PPO-ptx adds `ptx_coef` (gamma of Eq. 2, not the
        #    discount) times the gradient of -log pi_phi, its mean over the tokens of pretraining text, before pi_phi steps.
        lr, value_lr = _rates(config, iteration)
        minibatches = _minibatches(config, iteration, len(rollouts.rows))
        for number in range(len(updates), len(minibatches)):
            unfinished = {"rollouts": rollouts.state(), "updates": updates}
            run.look(iteration, iterations, partial(_state, learner, before, guard, unfinished))
            watched = backward(config, parts, rollouts, targets, minibatches[number], must_match=number == 0)
            watched |= _backward_text(config, parts, material, iteration, minibatches, number)
            updates.append(watched | learner.update(lr, value_lr))

        # 6. What to watch; the coefficient adapts to the divergence just measured.
        values = summary(rollouts, targets, updates) | {"kl_coef": learner.kl.value, "lr": lr, "value_lr": value_lr}
        learner.kl.update(values["kl"], len(rollouts.rows))

        # 7. Now and then the averaged policy on held-out prompts: the guard remembers the best and ends a run gone too far.
        if config.report_every and (iteration + 1) % config.report_every == 0:
            with learner.averaged():
                seen = report(config, parts, material)
                guard.take(iteration + 1, seen, parts.policy)
            values |= seen.values
        run.step(iteration + 1, iterations, values, partial(_state, learner, before, guard))

    # 8. The checkpoint: the averaged policy, or the best before it went too far; and what it is worth on held-out prompts.
    with learner.averaged():
        metrics = conclude(config, parts, material, guard, run, iterations)
        folder = run.folder / "checkpoint"
        identity = checkpoints.save(folder, parts.policy, parts.tokenizer, "policy", starts.checkpoints())
    metrics |= {f"{name}_before": value for name, value in before.items()} | {"snapshot": material.snapshot}
    return run.finish(metrics, folder, identity)


def aim(config: PPOConfig, rollouts: Rollouts, kl_coef: float) -> Targets:
    """Rewards per token from scores and KL (Eq. 2), advantages and returns by GAE, advantages whitened over the batch."""
    scores, mask = _scores(config, rollouts), rollouts.mask  # (B,), (B, T)
    rewards = kl.kl_rewards(scores, rollouts.logprobs, rollouts.ref_logprobs, mask, kl_coef=kl_coef)  # (B, T)
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

    A loss is summed over each micro-batch and divided by the tokens of the whole minibatch: how it is cut changes no gradient.
    `counts` is 1, or 0 where this process has no rows and only goes along. With `must_match` the policy is
    still the one that answered: a log ratio beyond rounding (`invariants.EXACT`) raises RuntimeError.
    """
    tokens = sum(len(rollouts.rows[at].response) for at in minibatch)
    largest, sums = torch.zeros((), device=parts.policy.device), torch.zeros(4, device=parts.policy.device)
    for batch, counts in parts.layout.micro_batches(rollouts.rows, minibatch, config.micro_batch_tokens):
        chunk, mask, columns = batch.numbers, batch.mask, slice(batch.width)
        # (b, t) each: of what is kept in (B, T) the rows `chunk` of this micro-batch, as far as its longest response goes
        old_logprobs, advantages = rollouts.logprobs[chunk, columns], targets.advantages[chunk, columns]
        old_values, returns = rollouts.values[chunk, columns], targets.returns[chunk, columns]
        with precision.autocast(parts.policy.device, parts.compute):
            logprobs = passes.logprobs(parts.policy, batch, config.temperature)  # (b, t)
        policy = losses.policy_loss(logprobs, old_logprobs, advantages, mask, cliprange=config.cliprange)
        (counts * policy.loss / tokens).backward()
        with precision.autocast(parts.policy.device, parts.compute):
            values = centred_values(parts, batch)  # (b, t)
        value = losses.value_loss(values, old_values, returns, mask, cliprange_value=config.cliprange_value)
        (counts * value / tokens).backward()
        largest = torch.maximum(largest, ((logprobs.detach() - old_logprobs) * mask).abs().max())
        watched = (policy.loss, value, policy.clipped, policy.approx_kl)
        sums += counts * torch.stack([each.detach().to(sums) for each in watched])
    sums, largest = parallel.total(sums), parallel.largest(largest)
    *means, gap = torch.cat([sums / tokens, largest[None]]).tolist()  # the one wait for the device
    if must_match:
        invariants.require_zero(gap, parts.compute, "log ratio of an unchanged policy to itself")
    return dict(zip(("policy_loss", "value_loss", "clip_fraction", "approx_kl"), means, strict=True))


def summary(rollouts: Rollouts, targets: Targets, updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """What to watch of an iteration: its responses, the means over its updates, and how well the value function foresaw."""
    means = {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
    foreseen = gae.explained_variance(rollouts.values, targets.returns, rollouts.mask)
    return rollouts.metrics() | means | {"explained_variance": foreseen.item()}


def report(config: PPOConfig, parts: Models, material: Material) -> Report:
    """One answer to each held-out prompt, always from the same draws: scores, KL in nats a response, length, share ended.

    Where there is pretraining text, also `heldout_text_loss`: nats a token of its held-out blocks.
    """
    values, seconds, max_tokens = {}, [], config.micro_batch_tokens
    if material.heldout:
        rollouts = collect(parts, material.heldout, _decoding(config, 0), max_tokens, is_heldout=True)
        values = {f"heldout_{name}": value for name, value in rollouts.metrics().items()}
        seconds = rollouts.components["watch"].tolist() if parts.watch is not None else []
    if material.text is not None:
        blocks = material.text.heldout
        values["heldout_text_loss"] = pretraining.loss(parts.policy, parts.tokenizer, blocks, max_tokens, parts.compute)
    return Report(values, seconds)


def conclude(
    config: PPOConfig, parts: Models, material: Material, guard: Guard, run: Run, iterations: int
) -> dict[str, Any]:
    """The last report; where the guard ended the run, the best policy is put back, and the report is on that one."""
    if not guard.reason:
        seen = report(config, parts, material)
        guard.take(iterations, seen, parts.policy)
        if not guard.reason:
            return dict(seen.values)
    run.log(f"{guard.reason}; keeping the policy of iteration {guard.kept_step}, the best before it")
    guard.restore(parts.policy)
    return report(config, parts, material).values | {"stopped": guard.reason, "kept_step": guard.kept_step}


def begin(
    config: PPOConfig, starts: Starts, data_folder: Path, device: str, reward: Reward | None
) -> tuple[Models, Material]:
    """The models of a run and its data; the models read responses to one prompt together where they can."""
    compute = precision.compute_dtype(config.compute, device)
    parts = load(starts, device, reward, config.micro_batch_tokens, config, config.seed, compute)
    material = read_material(config, starts, data_folder, parts)
    return parts.with_layout_for(material.prompts, config.responses_per_prompt, config.max_new_tokens), material


def read_material(config: PPOConfig, starts: Starts, folder: Path, parts: Models) -> Material:
    """The prompts and the text of a run; raises ValueError where the settings ask for something that is not there."""
    material = Material.read(parts, folder, config.max_new_tokens, starts.text, config.ptx_tokens)
    heldout = material.heldout[: config.heldout_prompts]
    if config.kl_max is not None and not heldout:
        raise ValueError(f"kl_max is set, but {folder} has no prompt in split 'valid' to measure the divergence on")
    if starts.watch is not None and not (heldout and config.report_every):
        raise ValueError(
            f"a second reward model watches at held-out reports; set report_every (it is {config.report_every}) to 1 or more, "
            f"and give prompts in split 'valid' ({len(heldout)} are used)"
        )
    if config.ptx_coef and starts.text is None:
        raise ValueError(f"ptx_coef is {config.ptx_coef}, but there is no text to mix in; give one with --pretrain")
    return replace(material, heldout=heldout)


def _answer(config: PPOConfig, parts: Models, prompts: Sequence[data.Prompt], iteration: int, look: Look) -> Rollouts:
    """The policy's answers to the next prompts: a pure function of seed and number, in a new order each pass over them."""
    count = config.batch_size // config.responses_per_prompt
    chosen = [prompts[at] for at in data.endless(len(prompts), count, iteration, config.seed)]
    return collect(parts, chosen, _decoding(config, iteration + 1), config.micro_batch_tokens, look=look)


def _minibatches(config: PPOConfig, iteration: int, episodes: int) -> list[list[int]]:
    """Episodes of an iteration in minibatches, shuffled anew each inner epoch, those of one prompt as neighbours."""
    generator = torch.Generator().manual_seed(_seed(config, iteration))
    groups = torch.arange(episodes).view(-1, config.responses_per_prompt)  # a row for each prompt
    orders = [groups[torch.randperm(len(groups), generator=generator)].flatten() for _ in range(config.inner_epochs)]
    return [part.tolist() for order in orders for part in order.split(config.minibatch_size)]


def _rates(config: PPOConfig, iteration: int) -> tuple[float, float]:
    """Learning rates of the policy and of the value function."""
    warmups = config.warmup, config.warmup if config.value_warmup is None else config.value_warmup
    factor, value_factor = (schedules.linear_warmup(iteration, warmup) for warmup in warmups)
    return config.lr * factor, config.value_lr * value_factor


def _backward_text(
    config: PPOConfig, parts: Models, material: Material, iteration: int, minibatches: list[list[int]], number: int
) -> dict[str, float]:
    """Add the gradient of ptx_coef times the loss of the text that goes with a minibatch: the next blocks for each episode."""
    if (text := material.text) is None or not config.ptx_coef:
        return {}
    sizes = [len(minibatch) * config.ptx_per_episode for minibatch in minibatches]
    blocks = text.of_update(iteration, number, sizes, config.seed)
    tokenizer, max_tokens = parts.tokenizer, config.micro_batch_tokens
    loss = pretraining.backward(parts.policy, tokenizer, blocks, config.ptx_coef, max_tokens, parts.compute)
    return {"ptx_loss": loss}


def _decoding(config: PPOConfig, iteration: int) -> Decoding:
    """How answers are drawn; iteration 0 is the held-out report's, from 1 on those that are learnt from."""
    n, seed = config.responses_per_prompt if iteration else 1, _seed(config, iteration)
    return Decoding(n=n, temperature=config.temperature, max_new_tokens=config.max_new_tokens, seed=seed)


def _seed(config: PPOConfig, iteration: int) -> int:
    """Of whatever is drawn for an iteration."""
    return config.seed * 1_000_003 + iteration


def _scores(config: PPOConfig, rollouts: Rollouts) -> Tensor:
    """(B,) scores, that of a response cut at the limit replaced where the settings say so."""
    if config.missing_end_score is None:
        return rollouts.scores
    ended = torch.tensor(rollouts.ended, device=rollouts.scores.device)
    return rollouts.scores.where(ended, torch.full_like(rollouts.scores, config.missing_end_score))


def _state(learner: Learner, before: dict[str, float], guard: Guard, halfway: State | None = None) -> State:
    """What a run goes on from; `halfway` holds the responses and finished updates of an iteration that was cut short."""
    return {"learner": learner.state(), "before": before, "guard": vars(guard), "halfway": halfway}
