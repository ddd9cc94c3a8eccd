"""Passes of PPO's models over responses: log-probabilities and values per token, a prompt computed once for its responses.

Where the models take it, responses to one prompt lie behind it in one row (`branches`), and a long prompt with a single response
lies in a row without padding, what nobody reads of its last layer left out. Else each response is a row by itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.training import branches, data, models, parallel, precision
from workers.training.branches import BlockBatch, Reads, SetBatch
from workers.training.data import Pair


@dataclass(frozen=True)
class ResponseBatch:
    """b responses of at most t tokens, N tokens in all, as a model reads them."""

    numbers: list[int]
    """Which of the rows they are, set by set."""
    inputs: data.Batch | SetBatch | BlockBatch
    mask: Tensor
    """(b, t) bool, flush left, True on response tokens"""
    tokens: Tensor
    """(N,) int64, the response tokens, row by row"""

    @property
    def width(self) -> int:
        """t."""
        return self.mask.shape[1]

    def lay_out(self, values: Tensor) -> Tensor:
        """(b, t) of one value for each response token (N,); 0 elsewhere."""
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values)


@dataclass(frozen=True)
class Layout:
    """How responses are laid out for a pass."""

    pad_id: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    """What a pass computes in: a mask in another precision could be infinite there, and a row of it no number."""
    takes_rows: bool = False
    """Whether several responses lie in one row behind their prompt."""
    takes_blocks: bool = False
    """Whether long sets of responses, also of one, lie end to end and are attended block by block."""
    long: int = branches.LONG
    """Tokens from which a set is long."""

    def batches(self, rows: Sequence[Pair], max_tokens: int) -> list[ResponseBatch]:
        """All rows, alike in length, in batches within the budget of padded tokens."""
        sets = self._sets(rows, range(len(rows)), max_tokens)
        chunks = data.micro_batches(range(len(sets)), self._widths(rows, sets), max_tokens)
        return [self._response_batch(rows, [sets[at] for at in chunk]) for chunk in chunks]

    def micro_batches(
        self, rows: Sequence[Pair], minibatch: Sequence[int], max_tokens: int
    ) -> Iterator[tuple[ResponseBatch, float]]:
        """Those rows that are in the minibatch and this rank's, and what they count: see `parallel.micro_batches`."""
        sets = self._sets(rows, minibatch, max_tokens)
        for chunk, counts in parallel.micro_batches(range(len(sets)), self._widths(rows, sets), max_tokens):
            yield self._response_batch(rows, [sets[at] for at in chunk]), counts

    def _sets(self, rows: Sequence[Pair], numbers: Sequence[int], max_tokens: int) -> list[list[int]]:
        """What shares a prompt: neighbours that answer the same one, as many as the budget holds."""
        if not self.takes_rows:
            return [[number] for number in numbers]
        sets: list[list[int]] = []
        for _, group in groupby(numbers, key=lambda number: rows[number].prompt):
            room = -1
            for number in group:
                if len(rows[number].response) > room:
                    sets.append([])
                    room = max_tokens - len(rows[number].prompt)
                sets[-1].append(number)
                room -= len(rows[number].response)
        return sets

    def _widths(self, rows: Sequence[Pair], sets: Sequence[Sequence[int]]) -> list[int]:
        return [_width([rows[number] for number in element]) for element in sets]

    def _response_batch(self, rows: Sequence[Pair], sets: Sequence[Sequence[int]]) -> ResponseBatch:
        numbers = [number for element in sets for number in element]
        inputs = self._inputs([[rows[number] for number in element] for element in sets])
        responses = [torch.tensor(rows[number].response, dtype=torch.int64) for number in numbers]
        ones = [torch.ones(len(response), dtype=torch.bool) for response in responses]
        mask = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True)
        return ResponseBatch(numbers, inputs, mask.to(self.device), torch.cat(responses).to(self.device))

    def _inputs(self, sets: Sequence[Sequence[Pair]]) -> data.Batch | SetBatch | BlockBatch:
        if self.takes_blocks and min(map(_width, sets)) >= self.long:
            return branches.collate_blocks(sets, self.dtype, self.device, Reads.BEFORE)
        if any(len(element) > 1 for element in sets):
            return branches.collate(sets, self.pad_id, self.dtype, self.device, Reads.BEFORE)
        return data.collate([row for element in sets for row in element], self.pad_id, self.device)


def choose(
    plain: Layout,
    language: Sequence[PreTrainedModel],
    value: PreTrainedModel,
    prompts: Sequence[data.Prompt],
    responses: int,
    max_new_tokens: int,
) -> Layout:
    """The fullest layout, for so many responses to a prompt, under which every model finds what it finds response by response.

    A model is held to half the digits of float32, in bfloat16 to 3 %, in the mean over tokens.

    It is tried on up to three responses of full length to the longest prompt, not looked up: attention that cannot take the mask
    (flash, sliding windows, recurrence) shows in the numbers.
    """
    prompt = max((prompt.ids for prompt in prompts), key=len)
    is_long = len(prompt) + responses * max_new_tokens >= plain.long
    if (responses == 1 and not is_long) or not all(models.has_plain_head(model) for model in language):
        return plain
    count = min(responses, 3)
    sizes = [-(-max_new_tokens * part // count) for part in range(1, count + 1)]
    rows = [Pair(prompt, (prompt * max_new_tokens)[:size]) for size in sizes]
    measures: list[tuple[Callable[[PreTrainedModel, ResponseBatch], Tensor], PreTrainedModel]]
    measures = [*((logprobs, model) for model in language), (values, value)]

    def is_right(layout: Layout) -> bool:
        # A list: every rank makes every model's passes, whatever it finds.
        return parallel.agree(all([_agree(measure, model, plain, layout, rows) for measure, model in measures]))

    chosen = replace(plain, takes_rows=responses > 1)
    if chosen.takes_rows and not is_right(chosen):
        return plain
    return replace(chosen, takes_blocks=is_long and is_right(replace(chosen, takes_blocks=True, long=0)))


def logprobs(model: PreTrainedModel, batch: ResponseBatch, temperature: float = 1.0) -> Tensor:
    """(b, t) log-probability of each response token; columns outside the mask hold no meaning."""
    if isinstance(batch.inputs, data.Batch):
        return models.response_logprobs(model, batch.inputs, temperature)
    before = branches.states(model, batch.inputs)
    return batch.lay_out(models.state_logprobs(model, before, batch.tokens, temperature))


def logprobs_and_entropies(model: PreTrainedModel, batch: ResponseBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """(b, t) each: `logprobs`, and the entropies in nats of the distributions the tokens were drawn from."""
    inputs, at_once = batch.inputs, models.logits_at_once(model)
    if isinstance(inputs, data.Batch) and (inputs.last_tokens.numel() <= at_once or not models.has_plain_head(model)):
        logits = models.response_logits(model, inputs)
        found = models.token_logprobs(logits, inputs.last_tokens, temperature), models.entropy(logits, temperature)
        return models.flush_left(found[0], inputs), models.flush_left(found[1], inputs)
    if isinstance(inputs, data.Batch):
        before, tokens = models.states_before(model, inputs), inputs.last_tokens.flatten()
    else:
        before, tokens = branches.states(model, inputs), batch.tokens
    parts = []
    for states, drawn in zip(before.split(at_once), tokens.split(at_once), strict=True):
        logits = models.state_logits(model, states)[None]
        parts.append((models.token_logprobs(logits, drawn[None], temperature), models.entropy(logits, temperature)))
    logprobs, entropies = (torch.cat(each, 1)[0] for each in zip(*parts, strict=True))
    if isinstance(inputs, data.Batch):
        shape = inputs.last_tokens.shape
        return models.flush_left(logprobs.view(shape), inputs), models.flush_left(entropies.view(shape), inputs)
    return batch.lay_out(logprobs), batch.lay_out(entropies)


def values(model: PreTrainedModel, batch: ResponseBatch) -> Tensor:
    """(b, t) the scalar head in the state before each response token; columns outside the mask hold no meaning."""
    if isinstance(batch.inputs, data.Batch):
        return models.state_values(model, batch.inputs)
    return batch.lay_out(models.read_head(model, branches.states(model, batch.inputs)))


def _width(element: Sequence[Pair]) -> int:
    """Tokens of a prompt with responses to it behind it."""
    return len(element[0].prompt) + sum(len(row.response) for row in element)


def _agree(
    measure: Callable[[PreTrainedModel, ResponseBatch], Tensor],
    model: PreTrainedModel,
    plain: Layout,
    layout: Layout,
    rows: Sequence[Pair],
) -> bool:
    """Whether a model finds of the rows, all in one batch of a layout, what it finds of them in the plain one."""
    with models.evaluation(model), precision.autocast(plain.device, plain.dtype):
        expected = _in_order(measure, model, plain, rows)
        try:
            found = _in_order(measure, model, layout, rows)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return False
    # In bfloat16 a pass of another shape rounds otherwise by about a hundredth.
    digits = min(torch.finfo(plain.dtype).eps ** 0.5, 0.03)
    return (found - expected).abs().mean().item() <= digits * expected.abs().mean().item()


def _in_order(
    measure: Callable[[PreTrainedModel, ResponseBatch], Tensor],
    model: PreTrainedModel,
    layout: Layout,
    rows: Sequence[Pair],
) -> Tensor:
    """What a model finds of the rows' response tokens, row by row."""
    found: dict[int, Tensor] = {}
    for batch in layout.batches(rows, len(rows) * max(map(len, rows))):
        for number, measured, mask in zip(batch.numbers, measure(model, batch), batch.mask, strict=True):
            found[number] = measured[mask]
    return torch.cat([found[number] for number in range(len(rows))])
