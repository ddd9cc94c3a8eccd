"""LoRA: small matrices learn beside frozen weights (Hu et al. 2021, arXiv 2106.09685), through peft.

A layer W x becomes W x + (alpha / r) B A x, with A of r rows drawn at random and B of zeros, so that a run begins at the model it
was given. Adam and gradients are kept for what learns only. The adapters lie within the model, which stays the transformers model
that every other module knows, and a checkpoint is written with them added in (`merged`): nothing downstream knows of them.

What learns is told by `requires_grad` alone; `learned`, `state` and `load_state` are also right where all weights learn.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from workers.training import parallel, precision
from workers.training.events import State

ADAPTER = "default"
"""peft's name of a model's one adapter."""

HEAD = "score"
"""The scalar head of a reward or value model: it learns beside the adapters, as all of it."""


@dataclass(frozen=True)
class Settings:
    """Whether a stage trains adapters; part of its settings. The papers of the stages train all weights."""

    lora_rank: int = 0
    """Rank of the adapters beside every linear layer of the blocks; 0: none, all weights learn. With them ten times the lr."""
    lora_alpha: int = 32
    """The adapters' part is scaled by alpha / rank, so that one lr fits all ranks (Schulman et al. 2025, LoRA Without Regret)."""

    def __post_init__(self) -> None:
        if self.lora_rank < 0 or self.lora_alpha < 1:
            raise ValueError(
                f"lora_rank is {self.lora_rank} and lora_alpha {self.lora_alpha}; expected at least 0 and 1"
            )


def attach(
    model: PreTrainedModel,
    settings: Settings,
    seed: int,
    *,
    dropout: float = 0.0,
    new_tokens: Sequence[int] = (),
    compute: torch.dtype = torch.float32,
) -> None:
    """Freeze a model and lay adapters beside every linear layer of its blocks; nothing happens at rank 0.

    What learns from then on: the adapters, a scalar head, and of the embeddings the rows of `new_tokens`, which stand for nothing
    yet. `seed` alone decides the adapters' first values; torch's random state is left as it was. Where products are computed in
    bfloat16 (`compute`), frozen weights that it holds without loss are held in it.
    """
    if not settings.lora_rank:
        return
    if parallel.size() > 1:
        raise ValueError(
            f"lora_rank is {settings.lora_rank} in a run of {parallel.size()} processes, but adapters learn in one process "
            "only; start it with one, or set lora_rank to 0"
        )
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import

    layers = linear_layers(model)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=dropout,
        target_modules=layers,
        fan_in_fan_out=isinstance(model.get_submodule(layers[0]), Conv1D),
        trainable_token_indices=_embeddings(model, new_tokens),
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, model, ADAPTER)
    if (head := getattr(model, HEAD, None)) is not None:
        head.requires_grad_(True)
    if compute is torch.bfloat16:
        precision.narrow(model, compute, exactly=True)


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers of a model's blocks, GPT-2's transposed ones among them; not of its heads."""
    trunk = f"{model.base_model_prefix}."
    return [
        name
        for name, module in model.named_modules()
        if name.startswith(trunk) and isinstance(module, nn.Linear | Conv1D)
    ]


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """A second model of the same weights, in the same memory but for a scalar head; to be made before `attach`.

    Frozen weights can stand behind a model that learns by adapters and behind the one it began as.
    """
    shared = {id(parameter): parameter for name, parameter in model.named_parameters() if not _is_head(name)}
    return copy.deepcopy(model, shared)


def learned(model: PreTrainedModel) -> list[nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def state(model: PreTrainedModel) -> State:
    """What learns, by name: all that `load_state` needs beside the checkpoint the run began from. Tensors are shared."""
    frozen = _frozen(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def load_state(model: PreTrainedModel, saved: State) -> None:
    """Put what `state` saved back into a model of the same settings."""
    whole = model.state_dict()
    model.load_state_dict({name: whole[name] for name in _frozen(model)} | saved)


def merged(model: PreTrainedModel) -> dict[str, Tensor] | None:
    """A model's weights under the names that plain transformers knows, its adapters added in; None for one without.

    The model itself stays as it is. W + (alpha / r) B A is summed in the precision of W.
    """
    if not hasattr(model, "peft_config"):
        return None
    from peft.tuners.lora import Linear
    from peft.utils.other import TrainableTokensWrapper

    with torch.no_grad():
        weights: dict[str, Tensor] = {}
        tied: dict[int, Tensor] = {}
        for name, module in model.named_modules():
            if isinstance(module, Linear):
                weights[f"{name}.weight"] = module.weight + module.get_delta_weight(ADAPTER)
            elif isinstance(module, TrainableTokensWrapper):
                whole = module.token_adapter.get_merged_weights([ADAPTER])
                weights[f"{name}.weight"] = tied.setdefault(id(module.original_module.weight), whole)
    plain = {
        name.replace(".token_adapter", "").replace(".base_layer", ""): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name and ".trainable_tokens_" not in name
    }
    return {
        name: tensor.float() if tensor.dtype is torch.bfloat16 else tensor for name, tensor in (plain | weights).items()
    }


def sentence(model: PreTrainedModel, settings: Settings) -> str | None:
    """What learns and what stays, for a run's log; None where all weights learn."""
    if not settings.lora_rank:
        return None
    count, whole = sum(parameter.numel() for parameter in learned(model)), model.num_parameters()
    return (
        f"adapters of rank {settings.lora_rank}: {count:,} of {whole:,} parameters learn, the others stay as they are"
    )


def _embeddings(model: PreTrainedModel, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """The layers whose rows of `tokens` learn: the embedding, and the unembedding, which peft ties to it where the model does."""
    layers = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    names = [name for name, module in model.named_modules() if any(module is layer for layer in layers)]
    return {name: list(tokens) for name in names} if tokens else None


def _frozen(model: PreTrainedModel) -> set[str]:
    """Names of the parameters that stay, both names of tied ones."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in parameters if not parameter.requires_grad}


def _is_head(name: str) -> bool:
    return name.startswith(f"{HEAD}.")
