"""What PPO learns from: the policy's own responses, scored by the reward and measured against the reference.

A rollout also carries what methods without a critic need, so that each of them is one function of it: which responses answer the
same prompt, the components of the reward, and the log-probabilities as the sampler gave them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.rlhf import kl
from workers.rlhf.masked import masked_mean
from workers.training import data, invariants, models, parallel, passes, precision, rewards
from workers.training.data import Pair
from workers.training.engine import Decoding, Engine, Look, number
from workers.training.events import State
from workers.training.passes import ResponseBatch
from workers.training.starts import Models


@dataclass(frozen=True)
class Rollouts:
    """B episodes of one prompt and one response each; responses flush left in T columns."""

    rows: list[Pair]
    ended: list[bool]
    """Whether the response closed with the end token, or was cut at the length limit."""
    groups: Tensor
    """(B,) int64, equal where two responses answer the same prompt."""
    components: dict[str, Tensor]
    """(B,) each, as the reward named them; `score` is what is climbed."""
    mask: Tensor
    """(B, T) bool, True on response tokens."""
    logprobs: Tensor
    """(B, T) under the policy that drew them, at the sampling temperature, as the trainer computes them."""
    sampler_logprobs: Tensor
    """(B, T) the same as the sampler gave them."""
    ref_logprobs: Tensor
    """(B, T) under the reference, at the same temperature."""
    values: Tensor
    """(B, T) of the state before each token; zeros in a held-out report, which asks no value model."""
    entropy: float
    """Mean over tokens, nats."""

    @property
    def scores(self) -> Tensor:
        """(B,)"""
        return self.components["score"]

    def sequence_kl(self) -> Tensor:
        """(B,) sum over tokens of log pi - log pi_ref."""
        return kl.sequence_kl(self.logprobs, self.ref_logprobs, self.mask)

    def metrics(self) -> dict[str, float]:
        """Mean score and further components (`x_score`), KL, entropy, length in tokens, and the share that ended."""
        worth = {name if name == "score" else f"{name}_score": each.mean() for name, each in self.components.items()}
        return {
            **{name: mean.item() for name, mean in worth.items()},
            "kl": self.sequence_kl().mean().item(),
            "entropy": self.entropy,
            "length": self.mask.sum(1).float().mean().item(),
            "ended": sum(self.ended) / len(self.ended),
        }

    def state(self) -> State:
        """All that `load` needs: a run that is cancelled goes on with the very same responses."""
        return vars(self) | {"rows": [(row.prompt, row.response) for row in self.rows]}

    @classmethod
    def load(cls, state: State) -> "Rollouts":
        """The rollouts of a saved state."""
        return cls(**{**state, "rows": [Pair(*row) for row in state["rows"]]})

    @classmethod
    def join(cls, parts: Sequence["Rollouts"]) -> "Rollouts":
        """Several rollouts as one, the episodes of one behind those of the other."""
        tokens = [int(part.mask.sum()) for part in parts]

        def rows(name: str) -> Tensor:
            return _padded([row for part in parts for row in getattr(part, name)])

        return cls(
            rows=[row for part in parts for row in part.rows],
            ended=[ended for part in parts for ended in part.ended],
            groups=torch.cat([part.groups for part in parts]),
            components={name: torch.cat([part.components[name] for part in parts]) for name in parts[0].components},
            mask=rows("mask"),
            logprobs=rows("logprobs"),
            sampler_logprobs=rows("sampler_logprobs"),
            ref_logprobs=rows("ref_logprobs"),
            values=rows("values"),
            entropy=sum(part.entropy * count for part, count in zip(parts, tokens, strict=True)) / sum(tokens),
        )


def collect(
    parts: Models,
    prompts: Sequence[data.Prompt],
    decoding: Decoding,
    micro_batch_tokens: int,
    *,
    is_heldout: bool = False,
    look: Look | None = None,
) -> Rollouts:
    """Let the policy answer each prompt `decoding.n` times, and score, measure and value the answers; no gradients.

    Held-out answers are not valued; the second reward model, where there is one, scores them too (component `watch`).

    Of several ranks each answers its share of the prompts, and all get all the rollouts. `look` is for one alone.

    Raises RuntimeError where the sampler's log-probabilities and the trainer's differ: PPO would then learn from other
    probabilities than it drew from.
    """
    mine = parallel.share(range(len(prompts)))
    # A rank without a share goes along with the first prompt, as ranks gather weights together, and tells nothing.
    # Within one autocast weights are rounded once for the whole of it, not at every token drawn.
    with precision.autocast(parts.policy.device, parts.compute):
        engine = Engine(parts.policy, parts.tokenizer, look=look if parallel.size() == 1 else None)
        found = _collect(parts, engine, prompts, mine or [0], decoding, micro_batch_tokens, is_heldout)
    if parallel.size() == 1:
        return found
    states = parallel.gather(found.state() if mine else None)
    joined = Rollouts.join([Rollouts.load(state) for state in states if state is not None])
    return Rollouts.load(parallel.each_tensor(joined.state(), lambda _, tensor: tensor.to(parts.policy.device)))


def centred_values(parts: Models, batch: ResponseBatch) -> Tensor:
    """(b, t) the value function before each token, less the mean of the reward model that it began as: on the scale of scores."""
    return passes.values(parts.value, batch) - parts.value.config.reward_mean


def _collect(
    parts: Models,
    engine: Engine,
    prompts: Sequence[data.Prompt],
    mine: Sequence[int],
    decoding: Decoding,
    micro_batch_tokens: int,
    is_heldout: bool,
) -> Rollouts:
    """The rollouts of those of the prompts that are `mine`."""
    ids = [prompt.ids for prompt in prompts]
    firsts = number(ids, decoding.n)
    answers = engine.sample_ids([ids[at] for at in mine], decoding, [firsts[at] for at in mine])
    answered = [(prompts[at], answer) for at, of_prompt in zip(mine, answers, strict=True) for answer in of_prompt]
    rows = [Pair(prompt.ids, answer.token_ids) for prompt, answer in answered]
    device = parts.policy.device
    mask = _padded([torch.ones(len(row.response), dtype=torch.bool) for row in rows]).to(device)
    logprobs, ref_logprobs, entropies, values = (torch.zeros(mask.shape, device=device) for _ in range(4))
    batches = parts.layout.batches(rows, micro_batch_tokens)
    # One model after the other: of several ranks each holds one of them whole at a time.
    with models.evaluation(parts.policy):
        for batch in batches:
            measured = passes.logprobs_and_entropies(parts.policy, batch, decoding.temperature)
            logprobs[batch.numbers, : batch.width], entropies[batch.numbers, : batch.width] = measured
    with models.evaluation(parts.reference):
        for batch in batches:
            of_reference = passes.logprobs(parts.reference, batch, decoding.temperature)
            ref_logprobs[batch.numbers, : batch.width] = of_reference
    if not is_heldout:
        with models.evaluation(parts.value):
            for batch in batches:
                values[batch.numbers, : batch.width] = centred_values(parts, batch)
    drawn = _padded([torch.tensor(answer.logprobs) for _, answer in answered]).to(device)
    gap = masked_mean((drawn - logprobs).abs(), mask).item()
    invariants.require_agreement(gap, parts.compute)
    asked, given = [prompt for prompt, _ in answered], [answer for _, answer in answered]
    components = rewards.measure(parts.reward, asked, given, device)
    if is_heldout and parts.watch is not None:
        components["watch"] = rewards.measure(parts.watch, asked, given, device)["score"]
    numbers = {prompt.id: number for number, prompt in enumerate(prompts)}
    return Rollouts(
        rows=rows,
        ended=[answer.finish_reason == "stop" for answer in given],
        groups=torch.tensor([numbers[prompt.id] for prompt in asked], device=device),
        components=components,
        mask=mask,
        logprobs=logprobs * mask,
        sampler_logprobs=drawn,
        ref_logprobs=ref_logprobs * mask,
        values=values * mask,
        entropy=masked_mean(entropies, mask).item(),
    )


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
