"""What a reward model makes of responses: scores, the best of n, and `preferable score`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app import snapshot
from workers.training import checkpoints, conversation, data
from workers.training.bulk import Output
from workers.training.data import Pair
from workers.training.engine import Decoding, Engine, Response
from workers.training.kwise import SetScorer
from workers.training.rankings import RankedSet

MAX_TOKENS = 16384
"""Padded tokens in one pass."""

MAX_ROW_TOKENS = 4096
"""Tokens of a prompt with its responses behind it: attention grows with their square, and past this shares too little."""

ROWS_AT_ONCE = 256
"""Rows of a file that are scored and written together."""


@dataclass(frozen=True)
class Judge:
    """A reward model with its tokenizer. Its scores are less `reward_mean`, so that 0 is the mean of the demonstrations."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Judge":
        """The judge in a checkpoint folder."""
        return cls(checkpoints.load_reward_model(folder).to(device), checkpoints.load_tokenizer(folder))

    @property
    def context(self) -> int:
        """Tokens that it can read."""
        return data.context_length(self.model.config)

    def score(self, sets: Sequence[Sequence[Pair]]) -> list[list[float]]:
        """Scores by set and response. The responses of a set share their prompt; where the model takes it, it is read once."""
        parts = [(at, RankedSet(str(at), part)) for at, pairs in enumerate(sets) for part in _parts(pairs)]
        elements = [element for _, element in parts]
        shared = [element for element in elements if len(element.outputs) > 1]
        if shared:
            scorer = SetScorer.choose(self.model, self.tokenizer, shared, MAX_TOKENS)
        else:
            scorer = SetScorer(self.model, self.tokenizer, MAX_TOKENS, "one response a prompt")
        found: list[list[float]] = [[] for _ in sets]
        for (at, _), scores in zip(parts, scorer.score_all(elements), strict=True):
            found[at] += [score - self.model.config.reward_mean for score in scores]
        return found

    def read(self, prompt: list[int], response: Response) -> Pair:
        """A response as people read it: its text, encoded anew. What the context does not hold (broken UTF-8 grows) is cut."""
        ids = conversation.encode_response(self.tokenizer, response.text, ended=response.finish_reason == "stop")
        return Pair(prompt, ids[: self.context - len(prompt)])


@dataclass(frozen=True)
class Scored:
    """A response and its score, None where nobody judged it."""

    response: Response
    score: float | None


def best_of(
    engine: Engine,
    judge: Judge,
    prompts: Sequence[list[int]],
    decoding: Decoding,
    candidates: int,
    firsts: Sequence[int] | None = None,
) -> list[list[Scored]]:
    """`decoding.n` responses to each prompt, each the one of `candidates` drawn that the judge scores highest.

    Best-of-n sampling (Stiennon et al. 2020, appendix G; Nakano et al. 2021, section 3); of equal scores the one drawn first.
    Policy and judge must read conversations in one format.
    """
    drawn = engine.sample_ids(prompts, replace(decoding, n=decoding.n * candidates), firsts)
    scores = judge.score(
        [[judge.read(ids, answer) for answer in answers] for ids, answers in zip(prompts, drawn, strict=True)]
    )
    found = []
    for answers, of_prompt in zip(drawn, scores, strict=True):
        scored = [Scored(answer, score) for answer, score in zip(answers, of_prompt, strict=True)]
        groups = [scored[at : at + candidates] for at in range(0, len(scored), candidates)]
        found.append([max(group, key=lambda one: one.score or 0.0) for group in groups])
    return found


def score(model_folder: Path, source: Path, out: Path, device: str = "cpu") -> dict[str, Any]:
    """Write the rows of a JSONL file again, a `score` on every response; summary metrics.

    A row holds {prompt, response} or, as `sample` writes it, {prompt, responses: [{text, finish_reason}]}. Interrupted, the same
    call goes on where it was. Raises ValueError for rows without responses, responses longer than the context, and an `out` of
    other settings.
    """
    judge = Judge.load(model_folder, device)
    rows = list(snapshot.read_rows(source.parent, source.name))
    targets = [_targets(source, number, row) for number, row in enumerate(rows, start=1)]
    if not any(targets):
        raise ValueError(f"{source} has no rows; expected JSONL with prompt and response or responses")
    sets = []
    for number, (row, of_row) in enumerate(zip(rows, targets, strict=True), start=1):
        try:
            sets.append([_pair(judge, row, target) for target in of_row])
        except ValueError as error:
            raise ValueError(f"{source}, row {number} ({row.get('id', 'no id')}): {error}") from None
    settings = {
        "command": "score",
        "model": snapshot.folder_sha256(model_folder),
        "data": snapshot.file_sha256(source),
    }
    output = Output.open(out, settings)
    for chunk in output.chunks(len(rows), ROWS_AT_ONCE):
        for at, scores in zip(chunk, judge.score([sets[at] for at in chunk]), strict=True):
            for target, value in zip(targets[at], scores, strict=True):
                target["score"] = value
        output.write(chunk, [rows[at] for at in chunk])
    found = [target["score"] for row in output.rows() for target in _targets(out, 0, row)]
    return {"rows": len(rows), "responses": len(found), "score": sum(found) / len(found)}


def messages(prompt: Any) -> list[conversation.Message]:
    """A file's prompt, which may be plain text, as a conversation."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _parts(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Runs of a set's responses that go into one row. One without tokens is read at its prompt's end, in a row of its own."""
    part: list[Pair] = []
    size = 0
    for pair in pairs:
        if part and (size + len(pair.response) > MAX_ROW_TOKENS or not pair.response or not part[-1].response):
            yield part
            part = []
        size = len(pair) if not part else size + len(pair.response)
        part.append(pair)
    if part:
        yield part


def _targets(source: Path, number: int, row: dict[str, Any]) -> list[dict[str, Any]]:
    if "prompt" in row and isinstance(row.get("responses"), list):
        return list(row["responses"])
    if "prompt" in row and "response" in row:
        return [row]
    raise ValueError(
        f"{source}, row {number}: expected `prompt` with `response` or `responses`; found {', '.join(sorted(row))}"
    )


def _pair(judge: Judge, row: dict[str, Any], target: dict[str, Any]) -> Pair:
    if not isinstance(target, dict):
        raise ValueError(f"expected a response as an object with `text`, found {json.dumps(target)[:40]}")
    text, ended = target.get("response" if target is row else "text"), target.get("finish_reason") != "length"
    if not isinstance(text, str):
        raise ValueError(f"expected a response's text as a string, found {json.dumps(text)[:40]}")
    pair = data.encode_pair(judge.tokenizer, messages(row["prompt"]), text, ended=ended)
    if len(pair) > judge.context:
        raise ValueError(
            f"prompt and response {text[:40]!r}... have {len(pair)} tokens; the reward model's context is {judge.context}"
        )
    return pair
