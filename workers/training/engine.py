"""The sampler: many responses to many prompts from one transformers model, drawn reproducibly.

Trainer and sampler share the model, so they cannot disagree. A prompt is prefilled once and its keys and values fanned out to its
n responses; rows leave the batch when they end, and prompts that wait join it while it runs, those of people before the rest.
How tokens are drawn, and why a response does not depend on its batch, is said in `draws`.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from workers.training import checkpoints, conversation, data, draws, slots
from workers.training.data import context_length
from workers.training.draws import Decoding, FinishReason, Response, Row, share_equal
from workers.training.models import evaluation, without_pad
from workers.training.spelling import Spelling

__all__ = ["Decoding", "Engine", "FinishReason", "Look", "OnText", "Request", "Response", "Session", "share_equal"]

PREFILL_TOKENS = 8192
"""Padded tokens in one pass over prompts."""

REFILL_SHARE = 1 / 8
"""Share of the batch's rows that must be free before waiting prompts join: one pass over many is cheaper than many over one."""

OnText = Callable[[int, str], None]
"""Told (response index, text) as a response grows; joined, the pieces are its text. No piece ends within a character."""

Look = Callable[[], None]
"""Called after every token drawn; may raise what ends the drawing."""


@dataclass(eq=False)
class Request:
    """A prompt that waits, is answered, or was answered."""

    prompt: list[int]
    decoding: Decoding
    rows: list[Row]
    on_text: OnText | None = None
    spellings: dict[int, Spelling] = field(default_factory=dict)
    """By response index, where text is wanted while it grows: for `on_text` and for stop strings."""
    responses: list[Response] | None = None
    """The n responses, once all have ended."""


class Engine:
    """Samples from a model that it does not own: weights changed outside (by PPO) are seen by the next call."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_rows: int = 256,
        look: Look | None = None,
    ) -> None:
        """`max_rows` bounds the responses drawn side by side, and with it the memory of the cache."""
        self.model, self.tokenizer, self.max_rows, self.look = model, tokenizer, max_rows, look
        self.context = context_length(model.config)
        self.ends = conversation.end_tokens(tokenizer, getattr(model, "generation_config", None))

    @classmethod
    def load(
        cls, folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32, *, max_rows: int = 256
    ) -> "Engine":
        """An engine over a checkpoint folder (or hub id)."""
        folder = checkpoints.resolve(folder)
        model = checkpoints.load_language_model(folder, dtype)
        return cls(model.to(device), checkpoints.load_tokenizer(folder), max_rows=max_rows)

    def sample(
        self,
        prompts: Sequence[Sequence[conversation.Message]],
        *,
        n: int,
        temperature: float,
        top_p: float = 1.0,
        max_new_tokens: int,
        seed: int,
        top_k: int = 0,
        stop: Sequence[str] = (),
    ) -> list[list[Response]]:
        """n responses to each prompt, in the order of the prompts. A prompt that occurs twice gets different responses.

        Raises ValueError naming the first prompt that leaves no room for `max_new_tokens` in the model's context.
        """
        ids = [conversation.encode_prompt(self.tokenizer, messages) for messages in prompts]
        return self.sample_ids(ids, Decoding(n, temperature, top_p, max_new_tokens, seed, top_k, tuple(stop)))

    def sample_ids(
        self, prompts: Sequence[list[int]], decoding: Decoding, firsts: Sequence[int] | None = None
    ) -> list[list[Response]]:
        """`sample` for prompts that are token ids already; `firsts` are the indices of each one's first response (`number`)."""
        self.check_room(prompts, decoding.max_new_tokens)
        firsts = number(prompts, decoding.n) if firsts is None else firsts
        requests: dict[int, Request] = {}
        with self.open() as session:
            for at in sorted(range(len(prompts)), key=lambda at: len(prompts[at])):
                requests[at] = session.submit(prompts[at], decoding, first=firsts[at])
            while session.is_busy:
                session.step()
                if self.look:
                    self.look()
        return [requests[at].responses or [] for at in range(len(prompts))]

    @contextmanager
    def open(self) -> Iterator["Session"]:
        """A batch that requests join and leave; inside, the model is in evaluation mode and has no gradients."""
        with evaluation(self.model):
            yield Session(self)

    def check_room(self, prompts: Sequence[list[int]], max_new_tokens: int) -> None:
        """Raise ValueError naming the first prompt that is empty or leaves no room for `max_new_tokens` in the context."""
        for place, ids in enumerate(prompts, start=1):
            if not ids:
                raise ValueError(f"prompt {place} has no tokens; there is nothing to continue")
            if len(ids) + max_new_tokens > self.context:
                start = conversation.decode_response(self.tokenizer, ids)[:60]
                raise ValueError(
                    f"prompt {place} ({start!r}...) has {len(ids)} tokens; with {max_new_tokens} new ones it exceeds "
                    f"the model's context of {self.context}: shorten it or lower max_new_tokens"
                )

    def forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """(rows, V) logits of the next token, in the model's precision; `cache` grows by the columns of `ids`."""
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


def number(prompts: Sequence[Sequence[int]], n: int) -> list[int]:
    """The index of each prompt's first response: 0, or n more than at the place where it occurred before."""
    seen: dict[tuple[int, ...], Iterator[int]] = defaultdict(partial(count, 0, n))
    return [next(seen[tuple(ids)]) for ids in prompts]


class Session:
    """The batch of an engine while it runs: submit prompts, at any time, and step until `is_busy` is over."""

    def __init__(self, engine: Engine) -> None:
        """Opened by `Engine.open`."""
        self.engine = engine
        self._slots = slots.choose(engine.model)
        self._waiting: tuple[deque[Request], deque[Request]] = deque(), deque()  # those of people; the rest
        self._live: list[tuple[Request, int]] = []  # request and response index, in the order of the cache's rows
        self._logits: Tensor | None = None  # (rows, V) that the next tokens are drawn from

    @property
    def is_busy(self) -> bool:
        """Whether a request waits or is being answered."""
        return bool(self._live or any(self._waiting))

    @property
    def rows(self) -> int:
        """Responses being drawn side by side."""
        return len(self._live)

    def submit(
        self,
        prompt: list[int],
        decoding: Decoding,
        *,
        first: int = 0,
        interactive: bool = False,
        on_text: OnText | None = None,
    ) -> Request:
        """Have a prompt answered; its `responses` are there when a later step has ended the last of them.

        `first` is the index of the first response, more than 0 where the prompt had others. An interactive request joins as soon
        as rows are free; others join by many at once, and never before one that waits. Raises ValueError where the context has
        no room.
        """
        self.engine.check_room([prompt], decoding.max_new_tokens)
        rows = [
            Row(decoding, len(prompt), draws.row_seed(decoding.seed, prompt, first + at)) for at in range(decoding.n)
        ]
        request = Request(prompt, decoding, rows, on_text)
        if on_text or decoding.stop:
            request.spellings = {at: Spelling(self.engine.tokenizer, decoding.stop) for at in range(decoding.n)}
        self._waiting[0 if interactive else 1].append(request)
        return request

    def step(self) -> list[Request]:
        """Draw one token for every row; those requests that this has ended.

        1. requests that wait join, 2. each row gets a token, 3. ended rows leave, 4. one pass over the tokens drawn.
        """
        if joining := self._choose_joining():
            self._join(joining)
        if self._logits is None:
            return []
        readable = partial(without_pad, model=self.engine.model)
        rows = [request.rows[at] for request, at in self._live]
        tokens, ends = draws.draw(self._logits, rows, readable), self.engine.ends
        for (request, at), row, token in zip(self._live, rows, tokens, strict=True):
            if token in ends:
                row.finish_reason = "stop"
            elif len(row.tokens) == row.decoding.max_new_tokens:
                row.finish_reason = "length"
            if request.spellings:
                self._spell(request, at, token)
        ended = self._leave()
        self._logits = self._advance() if self._live else None
        return ended

    def _choose_joining(self) -> list[Request]:
        """Requests that fit into the free rows, in order: one that does not fit yet is not overtaken."""
        if self._live and not self._slots.joins_while_running:
            return []
        free = self.engine.max_rows - self.rows
        chosen: list[Request] = []
        for queue, least in zip(self._waiting, (1, self.engine.max_rows * REFILL_SHARE), strict=True):
            while queue and (queue[0].decoding.n <= free or not (self._live or chosen)):
                if self._live and not chosen and free < least:
                    break
                chosen.append(queue.popleft())
                free -= chosen[-1].decoding.n
            if queue:
                break
        return chosen

    def _join(self, joining: Sequence[Request]) -> None:
        lengths, everyone = [len(request.prompt) for request in joining], range(len(joining))
        joins = self._slots.joins_while_running
        prefilled, logits = [], [] if self._logits is None else [self._logits]
        for chunk in data.micro_batches(everyone, lengths, PREFILL_TOKENS) if joins else [list(everyone)]:
            cache, of_prompt = self._prefill([joining[at].prompt for at in chunk])
            copies = [place for place, at in enumerate(chunk) for _ in range(joining[at].decoding.n)]
            prefilled.append((cache, copies))
            logits.append(of_prompt if len(copies) == len(chunk) else of_prompt[copies])
            self._live += [(joining[at], index) for at in chunk for index in range(joining[at].decoding.n)]
        self._slots.join(prefilled, self._remaining())
        self._logits = torch.cat(logits)

    def _prefill(self, prompts: Sequence[list[int]]) -> tuple[DynamicCache, Tensor]:
        """Keys and values of prompts, flush right, and their (prompts, V) logits of the first token."""
        device, width = self.engine.model.device, max(map(len, prompts))
        pad = self.engine.tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        cache = self._slots.prefill_cache()
        return cache, self.engine.forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)

    def _spell(self, request: Request, at: int, token: int) -> None:
        """Read a new token's text: it may complete a stop string, and is told to whom it concerns."""
        row, spelling = request.rows[at], request.spellings[at]
        spelling.add(token)
        if spelling.is_cut:
            kept = spelling.count_tokens()
            row.finish_reason, row.tokens, row.logprobs = "stop", row.tokens[:kept], row.logprobs[:kept]
        piece = spelling.finish(self._text(request, at)) if row.finish_reason else spelling.take()
        if request.on_text and piece:
            request.on_text(at, piece)

    def _leave(self) -> list[Request]:
        """Let ended rows go, the last rows taking their places; the requests that have no row left."""
        going = [at for at, (request, index) in enumerate(self._live) if request.rows[index].finish_reason]
        if not going:
            return []
        ended = {id(request): request for request, _ in (self._live[at] for at in going)}
        size = len(self._live) - len(going)
        order, gone = list(range(size)), set(going)
        staying = [at for at in range(size, len(self._live)) if at not in gone]
        for hole, last in zip((at for at in going if at < size), staying, strict=True):
            order[hole] = last
        self._live = [self._live[at] for at in order]
        self._slots.keep(order)
        finished = [request for request in ended.values() if all(row.finish_reason for row in request.rows)]
        for request in finished:
            request.responses = [self._response(request, at) for at in range(request.decoding.n)]
        return finished

    def _advance(self) -> Tensor:
        """(rows, V) logits after the tokens just drawn."""
        device, rows = self.engine.model.device, [request.rows[at] for request, at in self._live]
        lengths = torch.tensor([[row.length] for row in rows], device=device)
        width = self._slots.make_room(max(row.length for row in rows), self._remaining)
        mask = (torch.arange(width, device=device) >= width - lengths).long()
        ids = torch.tensor([[row.tokens[-1]] for row in rows], device=device)
        logits = self.engine.forward(ids, mask, lengths - 1, self._slots.cache)
        self._slots.advance()
        return logits

    def _remaining(self) -> int:
        """Tokens that the rows may still be given, at most."""
        return max(request.decoding.max_new_tokens - len(request.rows[at].tokens) for request, at in self._live)

    def _response(self, request: Request, at: int) -> Response:
        row = request.rows[at]
        return Response(self._text(request, at), row.tokens, row.logprobs, row.finish_reason or "length", row.seed)

    def _text(self, request: Request, at: int) -> str:
        spelling = request.spellings.get(at)
        if spelling is not None and spelling.is_cut:
            return spelling.text
        return conversation.decode_response(self.engine.tokenizer, request.rows[at].tokens)
