"""Sampling by a vLLM server behind the engine's interface, for GPUs: it draws, our model says with what probability.

vLLM pins a torch and a transformers of its own, so it lives in an environment of its own: `vllm serve CHECKPOINT`. Its kernels
are not ours: draws are repeatable for a seed on one machine and version, but depend on the batch, and log-probabilities are
computed anew, by the model that a trainer would use.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workers.training import checkpoints, conversation, data, draws, models
from workers.training.data import Pair
from workers.training.engine import Decoding, Engine, Response, number
from workers.training.spelling import Spelling

PAD_BIAS = -100.0
"""The strongest bias that vLLM takes, for the token that may not be drawn."""

RECOMPUTE_TOKENS = 16384
"""Padded tokens in one pass over what was drawn."""

TIMEOUT_SECONDS = 600.0
"""Longest wait for one response, that for its turn included."""


class VLLMEngine(Engine):
    """An engine whose responses a server draws. The server holds the same checkpoint, and does not follow a training model."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        url: str,
        *,
        max_rows: int = 256,
    ) -> None:
        """`url` is where `vllm serve` answers, without /v1. Raises ValueError where it does not."""
        super().__init__(model, tokenizer, max_rows=max_rows)
        limits = httpx.Limits(max_connections=max_rows, max_keepalive_connections=max_rows)
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, limits=limits)
        self._served = str(self._ask("GET", "/v1/models")["data"][0]["id"])

    @classmethod
    def connect(cls, url: str, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> "VLLMEngine":
        """An engine over a checkpoint folder that the server at `url` serves too."""
        model = checkpoints.load_language_model(folder, dtype).to(device)
        return cls(model, checkpoints.load_tokenizer(folder), url)

    def sample_ids(
        self, prompts: Sequence[list[int]], decoding: Decoding, firsts: Sequence[int] | None = None
    ) -> list[list[Response]]:
        """`Engine.sample_ids`, every response a request with the seed of its own stream."""
        self.check_room(prompts, decoding.max_new_tokens)
        firsts = number(prompts, decoding.n) if firsts is None else firsts
        asked = [
            (ids, draws.row_seed(decoding.seed, ids, first + at))
            for ids, first in zip(prompts, firsts, strict=True)
            for at in range(decoding.n)
        ]
        with ThreadPoolExecutor(self.max_rows) as pool:
            drawn = list(pool.map(lambda one: self._draw(one[0], one[1], decoding), asked))
        rows = [Pair(ids, tokens) for (ids, _), (_, tokens, _) in zip(asked, drawn, strict=True)]
        logprobs = self._logprobs(rows, decoding.temperature or 1.0)
        found = iter(
            Response(text, tokens, of_row, "stop" if ended else "length", seed)
            for (_, seed), (text, tokens, ended), of_row in zip(asked, drawn, logprobs, strict=True)
        )
        return [[next(found) for _ in range(decoding.n)] for _ in prompts]

    def _draw(self, prompt: list[int], seed: int, decoding: Decoding) -> tuple[str, list[int], bool]:
        """Text, tokens, and whether the response ended by itself, spelled and cut as the engine does."""
        pad = self.model.config.pad_token_id
        body = {
            "model": self._served,
            "prompt": prompt,
            "seed": seed,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "top_k": decoding.top_k or -1,
            "max_tokens": decoding.max_new_tokens,
            "stop": list(decoding.stop),
            "stop_token_ids": sorted(self.ends),
            "logit_bias": {} if pad is None or pad in self.ends else {str(pad): PAD_BIAS},
            "return_token_ids": True,
        }
        choice = self._ask("POST", "/v1/completions", json=body)["choices"][0]
        tokens, spelling = list(choice["token_ids"]), Spelling(self.tokenizer, decoding.stop)
        for token in tokens:
            spelling.add(token)
            if spelling.is_cut:
                return spelling.text, tokens[: spelling.count_tokens()], True
        return conversation.decode_response(self.tokenizer, tokens), tokens, choice["finish_reason"] == "stop"

    def _logprobs(self, rows: Sequence[Pair], temperature: float) -> list[list[float]]:
        """Log-probability of each token of each response under our model."""
        found: list[list[float]] = [[] for _ in rows]
        with models.evaluation(self.model):
            for chunk in data.micro_batches(range(len(rows)), [len(row) for row in rows], RECOMPUTE_TOKENS):
                batch = data.collate([rows[at] for at in chunk], self.tokenizer.pad_token_id or 0, self.model.device)
                logprobs = models.response_logprobs(self.model, batch, temperature)
                for at, of_row in zip(chunk, logprobs.tolist(), strict=True):
                    found[at] = of_row[: len(rows[at].response)]
        return found

    def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, **content)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ValueError(
                f"no vLLM answers at {self._client.base_url} ({error}): start one with `vllm serve CHECKPOINT` in an "
                "environment of its own, or leave --vllm out"
            ) from error
        return dict(answer.json())
