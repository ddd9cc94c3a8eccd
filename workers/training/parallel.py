"""One run in several processes: who does which share of it, and what they tell each other. Nothing of it in a process alone.

The processes that torchrun starts are the ranks of a run. Every rank reads the same data, goes through the same loop and decides
by the same numbers; models, gradients and optimisers are sharded over the ranks (FSDP2). An exchange waits for all ranks, so all
must come to the same exchanges in the same order, whatever their share of the data is. Two rules see to that:

- *With gradients*, the weights of a block are gathered as the pass comes to it: each rank makes the same number of passes, for a
  step is cut into micro-batches as if by one process, and a rank takes its share of the rows of each (`micro_batches`).
- *Without gradients* (answers, scores, held-out losses) ranks make as many passes as they have work for, and each holds all
  weights meanwhile (`whole`). The price: every model of a run must fit a device by itself, though without gradients and Adam.

A gradient is the sum over ranks of sums divided by the units of the whole step: it does not depend on how many ranks there are,
but for the order in which numbers are added.
"""

import contextlib
import ctypes
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel

from workers.training import data

T = TypeVar("T")
U = TypeVar("U")

_WHOLE: WeakSet[nn.Module] = WeakSet()
"""Sharded models whose weights every rank holds at the moment."""

_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def group() -> Iterator[None]:
    """The ranks of this run can reach each other inside; nothing happens in a process that torchrun did not start."""
    if not dist.is_torchelastic_launched():
        yield
        return
    if sys.platform == "linux":  # ranks are in sessions of their own: they must not outlive torchrun
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(dist.get_node_local_rank() % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo")
    yield
    dist.destroy_process_group()  # not after an error: it would wait for the others, whom torchrun ends


def record(sentence: str) -> None:
    """Leave the sentence that ends this process to torchrun, which tells the first of all processes."""
    if dist.is_torchelastic_launched():
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(RuntimeError(sentence))


def is_consequence(error: BaseException) -> bool:
    """Whether an error says only that another process of the run is gone: what ended that one is the run's error."""
    if size() == 1:
        return False
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)  # gloo's own is a plain RuntimeError


def rank() -> int:
    """The number of this process in its run; 0 speaks, writes and keeps the folder for all."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence[T]) -> Sequence[T]:
    """The part of `items` that this rank takes: the parts of all, one behind the other, are the items."""
    first, last = (len(items) * number // size() for number in (rank(), rank() + 1))
    return items[first:last]


def spread(work: Callable[[Sequence[T]], list[U]], items: Sequence[T]) -> list[U]:
    """`work(items)`, a result an item, each rank having done its share."""
    return [result for part in gather(work(share(items))) for result in part]


def micro_batches(indices: Sequence[int], lengths: Sequence[int], max_tokens: int) -> Iterator[tuple[list[int], float]]:
    """This rank's rows of each micro-batch of a step, and what they count: 1, or 0 for a row that only keeps it in step.

    As `data.micro_batches`, with `max_tokens` for each rank, exceeded by a row, or a set of responses to one prompt, at most.
    """
    for chunk in data.micro_batches(indices, lengths, max_tokens * size()):
        mine = chunk[rank() :: size()]
        yield (mine, 1.0) if mine else (chunk[:1], 0.0)


def total(values: Tensor) -> Tensor:
    """The sum of `values` over the ranks, the same on each."""
    return _reduced(values, dist.ReduceOp.SUM)


def largest(values: Tensor) -> Tensor:
    """The largest of `values` over the ranks, entry by entry."""
    return _reduced(values, dist.ReduceOp.MAX)


def anywhere(*facts: bool) -> list[bool]:
    """Whether each fact holds on any rank."""
    if size() == 1:
        return list(facts)
    return [bool(fact) for fact in largest(torch.tensor([int(fact) for fact in facts])).tolist()]


def gather(value: T) -> list[T]:
    """The value of every rank, by rank; tensors in nested dicts, lists and tuples come in memory of the host."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, each_tensor(value, lambda _, tensor: tensor.cpu()))
    return found


def agree(value: T) -> T:
    """Rank 0's value, on every rank; all come here before any goes on."""
    return gather(value)[0]


def shard(model: PreTrainedModel, device: str | torch.device) -> PreTrainedModel:
    """A model loaded alike on every rank, put on the device and sharded there, block by block.

    Ranks draw apart from here on: dropout must not drop the same units on each.
    """
    if torch.device(device).type == "cuda" and dist.get_node_local_rank() >= (count := torch.cuda.device_count()):
        raise ValueError(f"this host has {count} GPUs; start at most as many processes on it")
    mesh = _mesh(torch.device(device).type)
    names = set(model._no_split_modules or ())
    for block in [module for module in model.modules() if type(module).__name__ in names]:
        _fully_shard(block, mesh, reshard_after_forward=True)
    # What is outside the blocks (embeddings, head) stays gathered from forward to backward: `models` calls the head by itself.
    _fully_shard(model, mesh, reshard_after_forward=False)
    model.sharded_trunk = types.MethodType(_trunk, model)
    from torch.distributed.fsdp import register_fsdp_forward_method

    register_fsdp_forward_method(model, "sharded_trunk")
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")  # nothing writes into it
    torch.manual_seed(torch.initial_seed() + rank())
    return model


def trunk(model: PreTrainedModel) -> Callable[..., Any]:
    """`model.base_model`, called so that a sharded model gathers what it needs."""
    found: Callable[..., Any] = getattr(model, "sharded_trunk", model.base_model)
    return found


@contextlib.contextmanager
def whole(model: PreTrainedModel) -> Iterator[None]:
    """Inside, every rank holds all weights and may make any number of passes without gradients; all come and go together."""
    modules = _sharded_modules(model)
    if not modules or model in _WHOLE:
        yield
        return
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    _WHOLE.add(model)
    try:
        yield
    finally:
        _WHOLE.discard(model)
        for module in modules:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)


def whole_state_dict(model: PreTrainedModel) -> dict[str, Tensor] | None:
    """All weights of a sharded model, in memory of rank 0's host; None on other ranks, and for a model that is not sharded."""
    if not _sharded_modules(model):
        return None
    found: dict[int, Tensor] = {}  # by parameter: tied weights stay one tensor
    for parameter in model.parameters():
        gathered = full(parameter.detach())
        if rank() == 0:
            found[id(parameter)] = gathered.cpu()
    if rank():
        return None
    named = {name: found[id(each)] for name, each in model.named_parameters(remove_duplicate=False)}
    return {name: named.get(name, value) for name, value in model.state_dict().items()}


def full(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor; any other tensor as it is."""
    if size() == 1:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def save_shards(state: Any, folder: Path) -> Any:
    """Let every rank write its shards of the tensors in a state; what is left of the state: their shapes in their places.

    `torch.distributed.checkpoint`; nothing is written where nothing is sharded.
    """
    from torch.distributed.checkpoint.state_dict_saver import save
    from torch.distributed.tensor import DTensor

    sharded: dict[str, Tensor] = {}

    def take_out(name: str, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        sharded[name] = tensor.detach()
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    rest = each_tensor(state, take_out)
    if sharded:
        save(sharded, checkpoint_id=folder)
    return rest


def load_shards(rest: Any, folder: Path, device: str | torch.device) -> Any:
    """The state that `save_shards` took apart, sharded over the ranks there are now; whole tensors in a process alone."""
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.tensor import Shard, zeros

    found: dict[str, Tensor] = {}

    def make_room(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor
        if size() == 1:
            found[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        else:
            mesh = _mesh(torch.device(device).type)
            found[name] = zeros(tensor.shape, dtype=tensor.dtype, device_mesh=mesh, placements=[Shard(0)])
        return found[name]

    state = each_tensor(rest, make_room)
    if found:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # and so it should be in a process alone
            load(found, checkpoint_id=folder, no_dist=size() == 1)
    return state


def each_tensor(state: Any, do: Callable[[str, Tensor], Tensor], name: str = "state") -> Any:
    """A copy of nested dicts, lists and tuples with `do(name, tensor)` in the place of every tensor."""
    if isinstance(state, Tensor):
        return do(name, state)
    if isinstance(state, dict):
        return {key: each_tensor(value, do, f"{name}/{key}") for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(each_tensor(value, do, f"{name}/{at}") for at, value in enumerate(state))
    return state


def _fully_shard(module: Any, mesh: Any, *, reshard_after_forward: bool) -> None:
    from torch.distributed.fsdp import fully_shard

    fully_shard(module, mesh=mesh, reshard_after_forward=reshard_after_forward)
    module.set_gradient_divide_factor(1.0)  # a sum, not a mean: losses are divided by the units of all ranks
    module.set_force_sum_reduction_for_comms(True)  # and a plain one: gloo has no other


def _trunk(model: PreTrainedModel, **inputs: Any) -> Any:
    return model.base_model(**inputs)


def _sharded_modules(model: PreTrainedModel) -> list[Any]:
    if size() == 1:
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


@cache
def _mesh(device_type: str) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device_type, (size(),))


def _reduced(values: Tensor, how: Any) -> Tensor:
    if size() == 1:
        return values
    reduced = values.clone()
    dist.all_reduce(reduced, how)
    return reduced
