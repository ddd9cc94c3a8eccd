"""`preferable sample` and `preferable score`: files in, files out."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import snapshot
from workers.training import checkpoints, conversation, data, models, reward
from workers.training.data import Pair
from workers.training.engine import Decoding, Engine, Response


@dataclass(frozen=True)
class Question:
    """A prompt to sample for, and the row it came from."""

    id: str
    prompt: list[conversation.Message]


def sample(
    model_folder: Path,
    source: Path,
    out: Path,
    decoding: Decoding,
    *,
    split: str | None = None,
    reference_folder: Path | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Answer every prompt of a snapshot or JSONL file and write a row {id, prompt, responses} for each; summary metrics.

    With a reference each response carries `kl`, the sum over its tokens of log pi - log pi_ref, and the metrics their mean.
    Raises ValueError without prompts, and naming a prompt that leaves no room for the response.
    """
    questions = list(read_questions(source, split))
    if not questions:
        raise ValueError(f"{source} has no prompts" + (f" in split {split!r}" if split else ""))
    if reference_folder is not None:
        checkpoints.require_same_format(model_folder, reference_folder)
    engine = Engine.load(model_folder, device)
    prompts = [conversation.encode_prompt(engine.tokenizer, question.prompt) for question in questions]
    answers = engine.sample_ids(prompts, decoding)
    flat = [answer for of_prompt in answers for answer in of_prompt]
    responses = [_row(answer) for answer in flat]
    metrics: dict[str, Any] = {
        "prompts": len(questions),
        "responses": len(flat),
        "length": sum(len(answer.token_ids) for answer in flat) / len(flat),
        "ended": sum(answer.finish_reason == "stop" for answer in flat) / len(flat),
        "distinct": sum(len({answer.text for answer in of_prompt}) for of_prompt in answers) / len(flat),
    }
    if reference_folder is not None:
        rows = [
            Pair(ids, answer.token_ids) for ids, of_prompt in zip(prompts, answers, strict=True) for answer in of_prompt
        ]
        divergences = _divergences(reference_folder, engine, rows, flat, decoding.temperature)
        for response, value in zip(responses, divergences, strict=True):
            response["kl"] = value
        metrics["kl"] = sum(divergences) / len(flat)
    with out.open("w", encoding="utf-8") as stream:
        for number, question in enumerate(questions):
            row = {
                "id": question.id,
                "prompt": question.prompt,
                "responses": responses[number * decoding.n : (number + 1) * decoding.n],
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return metrics


def score(model_folder: Path, source: Path, out: Path, device: str = "cpu") -> dict[str, Any]:
    """Write the rows of a JSONL file again, a `score` (less `reward_mean`) on every response; summary metrics.

    A row holds {prompt, response} or, as `sample` writes it, {prompt, responses: [{text, finish_reason}]}.
    """
    tokenizer, model = checkpoints.load_tokenizer(model_folder), checkpoints.load_reward_model(model_folder).to(device)
    rows = list(snapshot.read_rows(source.parent, source.name))
    if not rows:
        raise ValueError(f"{source} has no rows; expected JSONL with prompt and response or responses")
    targets = [(row, target) for number, row in enumerate(rows, start=1) for target in _targets(source, number, row)]
    pairs = [_pair(model, tokenizer, row, target) for row, target in targets]
    scores = [value - model.config.reward_mean for value in reward.score_rows(model, tokenizer, pairs)]
    for (_, target), value in zip(targets, scores, strict=True):
        target["score"] = value
    with out.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return {"rows": len(rows), "responses": len(scores), "score": sum(scores) / len(scores)}


def read_questions(source: Path, split: str | None = None) -> Iterator[Question]:
    """The prompts of a snapshot, or of a JSONL file of {id?, prompt} with a list of messages or plain text."""
    if source.is_dir():
        snapshot.read_manifest(source)
        rows = snapshot.read_rows(source, "prompts.jsonl")
    elif source.is_file():
        rows = snapshot.read_rows(source.parent, source.name)
    else:
        raise FileNotFoundError(f"{source} is neither a snapshot folder nor a JSONL file")
    for number, row in enumerate(rows, start=1):
        if "prompt" not in row:
            raise ValueError(f"{source}, row {number}: no `prompt`; found {', '.join(sorted(row)) or 'nothing'}")
        if split is None or row.get("split") == split:
            yield Question(str(row.get("id", number)), _messages(row["prompt"]))


def _messages(prompt: Any) -> list[conversation.Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _row(answer: Response) -> dict[str, Any]:
    return {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "token_count": len(answer.token_ids),
        "logprob": sum(answer.logprobs),
        "seed": answer.seed,
    }


def _divergences(
    reference_folder: Path, engine: Engine, rows: Sequence[Pair], answers: Sequence[Response], temperature: float
) -> list[float]:
    """For each answer the sum over its tokens of log pi - log pi_ref, in nats, both at the sampling temperature."""
    reference = checkpoints.load_language_model(reference_folder).to(engine.model.device)
    checkpoints.prepare(reference, engine.tokenizer)
    totals = [0.0] * len(rows)
    with models.evaluation(reference):
        for chunk in data.micro_batches(range(len(rows)), [len(row) for row in rows], 8192):
            batch = data.collate([rows[at] for at in chunk], reference.config.pad_token_id, reference.device)
            logprobs = models.response_logprobs(reference, batch, temperature or 1.0) * batch.response_mask
            for at, total in zip(chunk, logprobs.double().sum(1).tolist(), strict=True):
                totals[at] = sum(answers[at].logprobs) - total
    return totals


def _targets(source: Path, number: int, row: dict[str, Any]) -> list[dict[str, Any]]:
    if "prompt" in row and isinstance(row.get("responses"), list):
        return list(row["responses"])
    if "prompt" in row and isinstance(row.get("response"), str):
        return [row]
    raise ValueError(
        f"{source}, row {number}: expected `prompt` with `response` or `responses`; found {', '.join(sorted(row))}"
    )


def _pair(model: Any, tokenizer: Any, row: dict[str, Any], target: dict[str, Any]) -> Pair:
    text = target["response"] if target is row else target["text"]
    pair = data.encode_pair(tokenizer, _messages(row["prompt"]), text, ended=target.get("finish_reason") != "length")
    if len(pair) > (context := data.context_length(model.config)):
        raise ValueError(
            f"prompt and response {text[:40]!r}... have {len(pair)} tokens; the reward model's context is {context}"
        )
    return pair
